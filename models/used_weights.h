// SPDX-License-Identifier: Apache-2.0
// A checkpoint that notes which of its tensors are asked for, so that what a model leaves aside can
// be named. Any thread.
#pragma once

#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "kernels/strings.h"
#include "models/weights.h"

namespace fairlead {

class UsedWeights final : public WeightSource {
 public:
  // `source` must outlive it.
  explicit UsedWeights(const WeightSource& source) : source_(source) {}

  // The file's names of tensors that nobody has asked for, but for those that say nothing of what a
  // model computes, or belong to parts that are known to be left aside.
  std::vector<std::string> Unused() const;

  WeightFormat format() const override { return source_.format(); }
  const std::string& path() const override { return source_.path(); }
  const WeightInfo* Find(std::string_view name) const override {
    const WeightInfo* found = source_.Find(name);
    if (found != nullptr) {
      const std::lock_guard<std::mutex> lock(mutex_);
      asked_.insert(std::string(name));
    }
    return found;
  }
  absl::Span<const WeightInfo> tensors() const override { return source_.tensors(); }
  absl::Span<const SkippedTensor> skipped() const override { return source_.skipped(); }
  const Json& config() const override { return source_.config(); }
  const Json& metadata() const override { return source_.metadata(); }
  absl::Span<const MmapFile> files() const override { return source_.files(); }

 private:
  const WeightSource& source_;
  mutable std::mutex mutex_;
  mutable absl::flat_hash_set<std::string> asked_;
};

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// A checkpoint with tensors made of its own besides those that it has. Any thread.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "models/weights.h"

namespace fairlead {

class OverlayWeights final : public WeightSource {
 public:
  // `source` must outlive it. A made tensor hides one of the source's that has its name.
  OverlayWeights(const WeightSource& source, std::vector<WeightInfo> made)
      : source_(source), made_(std::move(made)) {
    for (size_t i = 0; i < made_.size(); ++i) index_[made_[i].name] = i;
  }

  WeightFormat format() const override { return source_.format(); }
  const std::string& path() const override { return source_.path(); }
  const WeightInfo* Find(std::string_view name) const override {
    const auto found = index_.find(absl::string_view(name.data(), name.size()));
    return found == index_.end() ? source_.Find(name) : &made_[found->second];
  }
  // The source's.
  absl::Span<const WeightInfo> tensors() const override { return source_.tensors(); }
  absl::Span<const SkippedTensor> skipped() const override { return source_.skipped(); }
  const Json& config() const override { return source_.config(); }
  const Json& metadata() const override { return source_.metadata(); }
  absl::Span<const MmapFile> files() const override { return source_.files(); }

 private:
  const WeightSource& source_;
  const std::vector<WeightInfo> made_;
  absl::flat_hash_map<std::string, size_t> index_;
};

}  // namespace fairlead

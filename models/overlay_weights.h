// SPDX-License-Identifier: Apache-2.0
// A checkpoint with tensors made of its own besides those that it has, or in their place. Any
// thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "kernels/strings.h"
#include "models/weights.h"

namespace fairlead {

class OverlayWeights final : public WeightSource {
 public:
  using Names = absl::flat_hash_set<std::string>;

  // `source` must outlive it. A made tensor hides one of the source's that has its name; `replaced`
  // names others of the source's, skipped ones too, that are no longer there.
  OverlayWeights(const WeightSource& source, std::vector<WeightInfo> made,
                 const Names& replaced = {})
      : source_(source), num_made_(made.size()), tensors_(std::move(made)) {
    for (size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
    for (const WeightInfo& tensor : source.tensors()) {
      if (replaced.contains(tensor.name)) continue;
      if (!index_.emplace(tensor.name, tensors_.size()).second) continue;
      tensors_.push_back(tensor);
    }
    for (const SkippedTensor& tensor : source.skipped()) {
      if (!replaced.contains(tensor.name)) skipped_.push_back(tensor);
    }
  }
  // Keeps the source.
  OverlayWeights(std::unique_ptr<WeightSource> source, std::vector<WeightInfo> made,
                 const Names& replaced)
      : OverlayWeights(*source, std::move(made), replaced) {
    kept_ = std::move(source);
  }

  WeightFormat format() const override { return source_.format(); }
  const std::string& path() const override { return source_.path(); }
  const WeightInfo* Find(std::string_view name) const override {
    const auto found = index_.find(AbslView(name));
    if (found == index_.end()) return nullptr;
    // The source may want to know that it is asked (used_weights.h).
    return found->second < num_made_ ? &tensors_[found->second] : source_.Find(name);
  }
  absl::Span<const WeightInfo> tensors() const override { return tensors_; }
  absl::Span<const SkippedTensor> skipped() const override { return skipped_; }
  const Json& config() const override { return source_.config(); }
  const Json& metadata() const override { return source_.metadata(); }
  absl::Span<const MmapFile> files() const override { return source_.files(); }

 private:
  std::unique_ptr<WeightSource> kept_;
  const WeightSource& source_;
  const size_t num_made_;
  std::vector<WeightInfo> tensors_;  // the made ones first
  std::vector<SkippedTensor> skipped_;
  absl::flat_hash_map<std::string, size_t> index_;
};

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "models/mapped_weights.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/escaping.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

constexpr size_t kLongestQuote = 100;

class MappedWeights final : public WeightSource {
 public:
  MappedWeights(CheckpointContents contents, absl::flat_hash_map<std::string, size_t> index)
      : contents_(std::move(contents)), index_(std::move(index)) {}

  WeightFormat format() const override { return contents_.format; }
  const std::string& path() const override { return contents_.path; }
  const WeightInfo* Find(std::string_view name) const override {
    const auto found = index_.find(AbslView(name));
    return found == index_.end() ? nullptr : &contents_.tensors[found->second];
  }
  absl::Span<const WeightInfo> tensors() const override { return contents_.tensors; }
  absl::Span<const SkippedTensor> skipped() const override { return contents_.skipped; }
  const Json& config() const override { return contents_.config; }
  const Json& metadata() const override { return contents_.metadata; }
  absl::Span<const MmapFile> files() const override { return contents_.files; }

 private:
  const CheckpointContents contents_;
  const absl::flat_hash_map<std::string, size_t> index_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WeightSource>> MakeMappedWeights(CheckpointContents contents) {
  absl::flat_hash_map<std::string, size_t> index;
  index.reserve(contents.tensors.size());
  for (size_t i = 0; i < contents.tensors.size(); ++i) {
    const auto [entry, is_new] = index.emplace(contents.tensors[i].name, i);
    if (is_new) continue;
    return absl::InvalidArgumentError(
        StrCat(contents.path, ": duplicate tensor name ", Quoted(contents.tensors[i].name),
               " (in the file: ", Quoted(contents.tensors[entry->second].file_name), " and ",
               Quoted(contents.tensors[i].file_name), ")"));
  }
  return std::make_unique<MappedWeights>(std::move(contents), std::move(index));
}

absl::Status CheckDisjoint(std::vector<TensorExtent>& extents, const std::string& path) {
  std::sort(extents.begin(), extents.end(), [](const TensorExtent& a, const TensorExtent& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  for (size_t i = 1; i < extents.size(); ++i) {
    if (extents[i].begin >= extents[i - 1].end) continue;
    return absl::InvalidArgumentError(StrCat(path, ": tensors ", Quoted(extents[i - 1].name),
                                             " and ", Quoted(extents[i].name),
                                             " overlap at data offset ", extents[i].begin));
  }
  return absl::OkStatus();
}

std::string Quoted(std::string_view name) {
  const bool is_long = name.size() > kLongestQuote;
  return StrCat("\"", absl::CHexEscape(AbslView(name.substr(0, kLongestQuote))),
                is_long ? "...\"" : "\"");
}

bool CheckedProduct(absl::Span<const int64_t> dims, int64_t* product) {
  *product = 1;
  for (const int64_t dim : dims) {
    if (__builtin_mul_overflow(*product, dim, product)) return false;
  }
  return true;
}

}  // namespace fairlead

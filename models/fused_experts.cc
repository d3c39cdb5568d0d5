// SPDX-License-Identifier: Apache-2.0
#include "models/fused_experts.h"

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

class SplitWeights final : public WeightSource {
 public:
  SplitWeights(const WeightSource& source, std::vector<WeightInfo> tensors)
      : source_(source), tensors_(std::move(tensors)) {
    for (size_t i = 0; i < tensors_.size(); ++i) index_[tensors_[i].name] = i;
  }

  WeightFormat format() const override { return source_.format(); }
  const std::string& path() const override { return source_.path(); }
  const WeightInfo* Find(std::string_view name) const override {
    const auto found = index_.find(absl::string_view(name.data(), name.size()));
    return found == index_.end() ? source_.Find(name) : &tensors_[found->second];
  }
  absl::Span<const WeightInfo> tensors() const override { return source_.tensors(); }
  absl::Span<const SkippedTensor> skipped() const override { return source_.skipped(); }
  const Json& config() const override { return source_.config(); }
  const Json& metadata() const override { return source_.metadata(); }
  absl::Span<const MmapFile> files() const override { return source_.files(); }

 private:
  const WeightSource& source_;
  const std::vector<WeightInfo> tensors_;
  absl::flat_hash_map<std::string, size_t> index_;
};

// out[e, n, k] = fused[e, k, first + n * step], elements of `size` bytes.
struct Transposed {
  const std::byte* fused;
  int64_t experts, k, columns, n, first, step;
  size_t size;

  void operator()(std::byte* out) const {
    for (int64_t e = 0; e < experts; ++e) {
      for (int64_t row = 0; row < n; ++row) {
        const std::byte* from = fused + (e * k * columns + first + row * step) * size;
        for (int64_t i = 0; i < k; ++i, out += size, from += columns * size) {
          std::memcpy(out, from, size);
        }
      }
    }
  }
};

class Splitter {
 public:
  explicit Splitter(const WeightSource& source) : source_(source) {}

  absl::StatusOr<std::unique_ptr<WeightSource>> Run() {
    constexpr std::string_view kGateUp = ".mlp.experts.gate_up_proj";
    constexpr std::string_view kDown = ".mlp.experts.down_proj";
    for (const WeightInfo& tensor : source_.tensors()) {
      for (const std::string_view kind : {kGateUp, kDown}) {
        const bool bias = tensor.name.ends_with(StrCat(kind, "_bias"));
        if (!bias && !tensor.name.ends_with(kind)) continue;
        const std::string prefix = tensor.name.substr(0, tensor.name.rfind(".experts.") + 9);
        absl::Status status = kind == kDown ? Add(tensor, prefix + "down_proj", bias, 0, 1)
                                            : Halves(tensor, prefix, bias);
        if (!status.ok()) return status;
      }
    }
    return std::make_unique<SplitWeights>(source_, std::move(tensors_));
  }

 private:
  absl::Status Halves(const WeightInfo& tensor, const std::string& prefix, bool bias) {
    absl::Status status = Add(tensor, prefix + "gate_proj", bias, 0, 2);
    status.Update(Add(tensor, prefix + "up_proj", bias, 1, 2));
    return status;
  }

  absl::Status Add(const WeightInfo& tensor, const std::string& module, bool bias, int64_t first,
                   int64_t step) {
    const size_t rank = bias ? 2 : 3;
    if (tensor.dim.size() != rank || tensor.dim.back() % step != 0 || IsQuantized(tensor.dtype) ||
        tensor.data == nullptr) {
      return absl::InvalidArgumentError(StrCat(source_.path(), ": tensor ", tensor.file_name,
                                               " must be ",
                                               bias ? "[experts, n]" : "[experts, k, n]",
                                               " of plain numbers", step > 1 ? ", n even" : ""));
    }
    const int64_t columns = tensor.dim.back(), n = columns / step;
    const int64_t k = bias ? 1 : tensor.dim[1];
    WeightInfo made;
    made.name = module + (bias ? ".bias" : ".weight");
    made.file_name = tensor.file_name;
    made.dtype = tensor.dtype;
    made.dim = {tensor.dim[0], n};
    if (!bias) made.dim.push_back(k);
    made.bytes = tensor.bytes / static_cast<size_t>(step);
    made.make = Transposed{tensor.data, tensor.dim[0], k,    columns,
                           n,           first,         step, RowBytes(tensor.dtype, 1)};
    tensors_.push_back(std::move(made));
    return absl::OkStatus();
  }

  const WeightSource& source_;
  std::vector<WeightInfo> tensors_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WeightSource>> SplitFusedExperts(const WeightSource& source) {
  return Splitter(source).Run();
}

}  // namespace fairlead

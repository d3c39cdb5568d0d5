// SPDX-License-Identifier: Apache-2.0
#include "models/fused_experts.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "kernels/strings.h"
#include "models/overlay_weights.h"

namespace fairlead {
namespace {

// out[e, n, k] = fused[e, k, first + n * step], elements of `size` bytes; [e, n] are the rows.
struct Transposed {
  const std::byte* fused;
  int64_t k, columns, n, first, step;
  size_t size;

  void operator()(int64_t begin, int64_t rows, std::byte* out) const {
    // A few inputs of all rows at a time: neighbouring rows share cache lines.
    for (int64_t input = 0; input < k; input += kTileInputs) {
      const int64_t count = std::min(kTileInputs, k - input);
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t e = (begin + row) / n, column = first + (begin + row) % n * step;
        const std::byte* from = fused + ((e * k + input) * columns + column) * size;
        std::byte* to = out + (row * k + input) * size;
        for (int64_t i = 0; i < count; ++i, to += size, from += columns * size) {
          std::memcpy(to, from, size);
        }
      }
    }
  }

  static constexpr int64_t kTileInputs = 32;
};

// out[e, n] = fused[e, first + n * step]: biases.
struct Picked {
  const std::byte* fused;
  int64_t columns, n, first, step;
  size_t size;

  void operator()(int64_t begin, int64_t rows, std::byte* out) const {
    for (int64_t e = begin; e < begin + rows; ++e) {
      const std::byte* from = fused + (e * columns + first) * size;
      for (int64_t i = 0; i < n; ++i, out += size, from += step * size) {
        std::memcpy(out, from, size);
      }
    }
  }
};

// Rows first, first + step ... of [experts, rows, blocks, 16] nibbles and [experts, rows, blocks]
// exponents, as blocks of kMXFP4. The file's byte j holds the elements 2j and 2j + 1 of a block,
// ours j and j + 16 (dtype.h).
struct Interleaved {
  static constexpr int64_t kNibbleBytes = 16;

  const std::byte* nibbles;
  const std::byte* exponents;
  int64_t blocks, first, step;

  void operator()(int64_t begin, int64_t rows, std::byte* out) const {
    const int64_t end = first + (begin + rows) * step;
    for (int64_t row = first + begin * step; row < end; row += step) {
      for (int64_t block = row * blocks; block < (row + 1) * blocks; ++block) {
        *out++ = exponents[block];
        const std::byte* pair = nibbles + block * kNibbleBytes;
        for (int64_t j = 0; j < kNibbleBytes; ++j) {
          const int shift = j % 2 == 0 ? 0 : 4;
          const std::byte low = pair[j / 2] >> shift;
          const std::byte high = pair[kNibbleBytes / 2 + j / 2] >> shift;
          *out++ = (low & std::byte{15}) | (high << 4);
        }
      }
    }
  }
};

class Splitter {
 public:
  explicit Splitter(const WeightSource& source) : source_(source) {}

  absl::StatusOr<std::unique_ptr<WeightSource>> Run() {
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
    if (absl::Status status = AddBlocks(); !status.ok()) return status;
    return std::make_unique<OverlayWeights>(source_, std::move(tensors_));
  }

 private:
  static constexpr std::string_view kGateUp = ".mlp.experts.gate_up_proj";
  static constexpr std::string_view kDown = ".mlp.experts.down_proj";

  absl::Status AddBlocks() {
    for (const SkippedTensor& nibbles : source_.skipped()) {
      for (const std::string_view kind : {kGateUp, kDown}) {
        if (!nibbles.name.ends_with(StrCat(kind, "_blocks"))) continue;
        const std::string scales =
            StrCat(nibbles.name.substr(0, nibbles.name.size() - 6), "scales");
        const std::string prefix = nibbles.name.substr(0, nibbles.name.rfind(".experts.") + 9);
        absl::Status status;
        if (kind == kDown) {
          status = AddBlocks(nibbles, scales, prefix + "down_proj", 0, 1);
        } else {
          status = AddBlocks(nibbles, scales, prefix + "gate_proj", 0, 2);
          status.Update(AddBlocks(nibbles, scales, prefix + "up_proj", 1, 2));
        }
        if (!status.ok()) return status;
      }
    }
    return absl::OkStatus();
  }

  absl::Status AddBlocks(const SkippedTensor& nibbles, const std::string& scales_name,
                         const std::string& module, int64_t first, int64_t step) {
    const SkippedTensor* scales = nullptr;
    for (const SkippedTensor& each : source_.skipped()) {
      if (each.name == scales_name) scales = &each;
    }
    if (scales == nullptr) {
      return absl::InvalidArgumentError(
          StrCat(source_.path(), ": tensor ", nibbles.name, " has no ", scales_name));
    }
    std::vector<int64_t> dim = scales->dim;
    dim.push_back(Interleaved::kNibbleBytes);
    const bool bytes = nibbles.dtype == "U8" && scales->dtype == "U8";
    if (!bytes || dim.size() != 4 || nibbles.dim != dim || dim[1] % step != 0) {
      return absl::InvalidArgumentError(
          StrCat(source_.path(), ": tensors ", nibbles.name, " and ", scales_name,
                 " must be U8 [experts, n, k / 32, 16] and [experts, n, k / 32]",
                 step > 1 ? ", n even" : ""));
    }
    WeightInfo made;
    made.name = module + ".weight";
    made.file_name = nibbles.name;
    made.dtype = DType::kMXFP4;
    made.dim = {dim[0], dim[1] / step, dim[2] * Info(made.dtype).block_elements};
    made.bytes = (nibbles.bytes + scales->bytes) / static_cast<size_t>(step);
    made.make = Interleaved{nibbles.data, scales->data, dim[2], first, step};
    tensors_.push_back(std::move(made));
    return absl::OkStatus();
  }

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
    const size_t size = RowBytes(tensor.dtype, 1);
    if (bias) {
      made.make = Picked{tensor.data, columns, n, first, step, size};
    } else {
      made.make = Transposed{tensor.data, k, columns, n, first, step, size};
    }
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

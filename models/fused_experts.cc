// SPDX-License-Identifier: Apache-2.0
#include "models/fused_experts.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kernels/strings.h"
#include "models/mapped_weights.h"
#include "models/overlay_weights.h"
#include "models/registry.h"

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

// What the tensors' names end in; the parts' names begin up to here.
constexpr std::string_view kGateUp = ".mlp.experts.gate_up_proj";
constexpr std::string_view kDown = ".mlp.experts.down_proj";
constexpr std::string_view kBlocks = "_blocks", kScales = "_scales";

std::string PrefixOf(const std::string& name) {
  return name.substr(0, name.rfind(".experts.") + 9);
}

bool EndsWith(std::string_view name, std::string_view kind, std::string_view suffix) {
  return name.ends_with(suffix) && name.substr(0, name.size() - suffix.size()).ends_with(kind);
}

// The elements of a shape that has some, and whose count fits.
bool CountElements(const std::vector<int64_t>& dim, int64_t* count) {
  return std::all_of(dim.begin(), dim.end(), [](int64_t d) { return d > 0; }) &&
         CheckedProduct(dim, count);
}

class Splitter {
 public:
  explicit Splitter(const WeightSource& source) : source_(source) {
    for (const SkippedTensor& tensor : source.skipped()) skipped_.emplace(tensor.name, &tensor);
  }

  absl::Status Run() {
    for (const WeightInfo& tensor : source_.tensors()) {
      for (const std::string_view kind : {kGateUp, kDown}) {
        const bool bias = EndsWith(tensor.name, kind, "_bias");
        if (!bias && !tensor.name.ends_with(kind)) continue;
        if (absl::Status status = SplitPlain(tensor, kind, bias); !status.ok()) return status;
      }
    }
    for (const SkippedTensor& tensor : source_.skipped()) {
      for (const std::string_view kind : {kGateUp, kDown}) {
        if (!EndsWith(tensor.name, kind, kBlocks)) continue;
        if (absl::Status status = SplitBlocks(tensor, kind); !status.ok()) return status;
      }
    }
    return absl::OkStatus();
  }

  std::vector<WeightInfo> Take() { return std::move(made_); }
  const OverlayWeights::Names& replaced() const { return replaced_; }

 private:
  absl::Status Error(std::string_view what) const {
    return absl::InvalidArgumentError(StrCat(source_.path(), ": ", what));
  }

  absl::Status SplitBlocks(const SkippedTensor& nibbles, std::string_view kind) {
    const std::string scales_name =
        StrCat(nibbles.name.substr(0, nibbles.name.size() - kBlocks.size()), kScales);
    const auto scales = skipped_.find(scales_name);
    if (scales == skipped_.end()) {
      return Error(StrCat("tensor ", nibbles.name, " has no ", scales_name));
    }
    replaced_.insert({nibbles.name, scales_name});
    const std::string prefix = PrefixOf(nibbles.name);
    if (kind == kDown) return AddBlocks(nibbles, *scales->second, prefix + "down_proj", 0, 1);
    absl::Status status = AddBlocks(nibbles, *scales->second, prefix + "gate_proj", 0, 2);
    if (status.ok()) status = AddBlocks(nibbles, *scales->second, prefix + "up_proj", 1, 2);
    return status;
  }

  absl::Status AddBlocks(const SkippedTensor& nibbles, const SkippedTensor& scales,
                         const std::string& module, int64_t first, int64_t step) {
    std::vector<int64_t> dim = scales.dim;
    dim.push_back(Interleaved::kNibbleBytes);
    int64_t bytes = 0, elements = 0;
    // Of two elements each.
    const bool fits = CountElements(dim, &bytes) && !__builtin_mul_overflow(bytes, 2, &elements);
    if (!fits || nibbles.dtype != "U8" || scales.dtype != "U8" || dim.size() != 4 ||
        nibbles.dim != dim || dim[1] % step != 0 || nibbles.bytes != static_cast<size_t>(bytes) ||
        scales.bytes != nibbles.bytes / Interleaved::kNibbleBytes) {
      return Error(StrCat("tensors ", nibbles.name, " and ", scales.name, " are ", nibbles.dtype,
                          ShapeText(nibbles.dim), " and ", scales.dtype, ShapeText(scales.dim),
                          "; they must be U8 [experts, n, k / 32, 16] and [experts, n, k / 32]",
                          step > 1 ? ", n even" : "", ", with elements"));
    }
    WeightInfo made;
    made.name = module + ".weight";
    made.file_name = nibbles.name;
    made.dtype = DType::kMXFP4;
    made.dim = {dim[0], dim[1] / step, dim[2] * Info(made.dtype).block_elements};
    made.bytes = (nibbles.bytes + scales.bytes) / static_cast<size_t>(step);
    made.make = Interleaved{nibbles.data, scales.data, dim[2], first, step};
    return Add(std::move(made));
  }

  absl::Status SplitPlain(const WeightInfo& tensor, std::string_view kind, bool bias) {
    replaced_.insert(tensor.name);
    const std::string prefix = PrefixOf(tensor.name);
    if (kind == kDown) return AddPlain(tensor, prefix + "down_proj", bias, 0, 1);
    absl::Status status = AddPlain(tensor, prefix + "gate_proj", bias, 0, 2);
    if (status.ok()) status = AddPlain(tensor, prefix + "up_proj", bias, 1, 2);
    return status;
  }

  absl::Status AddPlain(const WeightInfo& tensor, const std::string& module, bool bias,
                        int64_t first, int64_t step) {
    const size_t rank = bias ? 2 : 3;
    int64_t elements = 0;
    if (tensor.dim.size() != rank || !CountElements(tensor.dim, &elements) ||
        tensor.dim.back() % step != 0 || IsQuantized(tensor.dtype) || tensor.data == nullptr ||
        tensor.bytes != RowBytes(tensor.dtype, elements)) {
      return Error(StrCat("tensor ", tensor.file_name, " is ", Info(tensor.dtype).name,
                          ShapeText(tensor.dim), "; it must be ",
                          bias ? "[experts, n]" : "[experts, k, n]", " of plain numbers",
                          step > 1 ? ", n even" : "", ", with elements"));
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
    return Add(std::move(made));
  }

  absl::Status Add(WeightInfo made) {
    if (source_.Find(made.name) != nullptr || !names_.insert(made.name).second) {
      return Error(
          StrCat("tensor ", made.name, " is there besides ", made.file_name, ", which holds it"));
    }
    made_.push_back(std::move(made));
    return absl::OkStatus();
  }

  const WeightSource& source_;
  absl::flat_hash_map<std::string, const SkippedTensor*> skipped_;
  std::vector<WeightInfo> made_;
  OverlayWeights::Names names_;  // of made_
  OverlayWeights::Names replaced_;
};

bool HasFusedExperts(const WeightSource& source) {
  const auto is_fused = [](const auto& tensor) {
    return tensor.name.find(kGateUp) != std::string::npos ||
           tensor.name.find(kDown) != std::string::npos;
  };
  return std::any_of(source.tensors().begin(), source.tensors().end(), is_fused) ||
         std::any_of(source.skipped().begin(), source.skipped().end(), is_fused);
}

}  // namespace

absl::StatusOr<std::unique_ptr<WeightSource>> SplitFusedExperts(
    std::unique_ptr<WeightSource> source) {
  if (!HasFusedExperts(*source)) return source;
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(*source);
  if (!config.ok() || config->experts.names != ExpertNames::kGptOss) return source;
  Splitter splitter(*source);
  if (absl::Status status = splitter.Run(); !status.ok()) return status;
  return std::make_unique<OverlayWeights>(std::move(source), splitter.Take(), splitter.replaced());
}

}  // namespace fairlead

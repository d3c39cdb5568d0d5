// SPDX-License-Identifier: Apache-2.0
// A checkpoint on disk, whatever its format: GGUF v2/v3, or a Hugging Face folder (config.json +
// safetensors). Bytes are mmapped and live as long as the source. Immutable after opening: any
// thread.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/dtype.h"
#include "models/json.h"
#include "models/mmap_file.h"

namespace fairlead {

// One tensor. `dim` is row-major, slowest first (a linear layer's weight is [out, in]), for GGUF
// too.
struct WeightInfo {
  std::string name;       // Hugging Face name; GGUF names are translated
                          // ("model.layers.0.self_attn.q_proj.weight")
  std::string file_name;  // the name in the file ("blk.0.attn_q.weight"): what errors print
  DType dtype = DType::kF32;
  std::vector<int64_t> dim;
  const std::byte* data =
      nullptr;  // GGUF: aligned to general.alignment; safetensors: not aligned at all
  size_t bytes = 0;
  // Where the file has the values in another form, data is null and this writes them in `dtype`: so
  // many rows (of dim.back() elements, all other dimensions as one) from `first` on. Any thread,
  // several at once; not after the source is gone. Neighbouring rows are cheaper together.
  std::function<void(int64_t first, int64_t rows, std::byte* out)> make = {};
  std::string file_dtype = {};  // as the file calls that form ("IQ3_S"); empty: dtype's name
  // What --weight-dtype has made this of (convert_weights.h); lives as long as the source.
  const WeightInfo* converted_from = nullptr;

  int64_t rows() const;
};

// The bytes of a tensor, or of some of its rows, wherever they come from; made ones live as long as
// this.
class WeightBytes {
 public:
  explicit WeightBytes(const WeightInfo& info) : WeightBytes(info, 0, info.rows()) {}
  WeightBytes(const WeightInfo& info, int64_t first, int64_t rows);
  const std::byte* data() const { return data_; }

 private:
  std::unique_ptr<std::byte[]> made_;
  const std::byte* data_;
};

// A tensor of a dtype that no op takes: integers and booleans that no model asks for (position_ids
// as I64), or a part of a quantised weight.
struct SkippedTensor {
  std::string name;
  std::string dtype;  // as the file calls it
  std::vector<int64_t> dim = {};
  const std::byte* data = nullptr;
  size_t bytes = 0;
};

// For messages: "[2, 32]".
std::string ShapeText(absl::Span<const int64_t> dim);

enum class WeightFormat { kGguf, kSafetensors };

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual WeightFormat format() const = 0;
  virtual const std::string& path() const = 0;
  // Null if absent.
  virtual const WeightInfo* Find(std::string_view name) const = 0;
  virtual absl::Span<const WeightInfo> tensors() const = 0;
  // Left out of tensors() and Find(): whoever misses a tensor can say that it is there with a dtype
  // we lack.
  virtual absl::Span<const SkippedTensor> skipped() const { return {}; }
  // The model's config as Hugging Face writes config.json. A GGUF file's metadata is translated to
  // the same keys
  // ("hidden_size", "num_attention_heads", "rope_theta", "rope_scaling" ...), "model_type" from
  // general.architecture.
  virtual const Json& config() const = 0;
  // GGUF: every metadata key and value (arrays as JSON arrays), tokenizer.ggml.* included; null
  // Json for folders.
  virtual const Json& metadata() const = 0;
  // The files that hold the tensors' bytes; none where they are not from files.
  virtual absl::Span<const MmapFile> files() const { return {}; }
};

// Opens a GGUF file or a Hugging Face folder; quantised weights of folders are tensors of a dtype
// of ours (quantized_tensors.h), and so are fused experts (fused_experts.h). Every size, count and
// offset is checked against the file with overflow-safe arithmetic before it is used. Errors name
// the file, the tensor or key, and the offset: kNotFound (no such path), kInvalidArgument
// (truncated, lying or malformed), kUnimplemented (a dtype or version we lack; the message lists
// the known ones).
absl::StatusOr<std::unique_ptr<WeightSource>> OpenWeights(const std::string& path);

}  // namespace fairlead

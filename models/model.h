// SPDX-License-Identifier: Apache-2.0
// A decoder as a function of a ragged batch. Immutable after loading; Forward is const; scratch and
// KV belong to the caller. One thread a stream.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "models/config.h"
#include "models/weight_cache.h"
#include "models/weights.h"

namespace fairlead {

// A bump allocator over one device buffer, reset by every Forward. Owned by the engine.
class Scratch {
 public:
  explicit Scratch(Buffer buffer) : buffer_(std::move(buffer)) {}
  // What an allocation takes of the buffer.
  static size_t Bytes(DType dtype, int64_t elements);
  void Reset() { used_ = 0; }
  Tensor Allocate(DType dtype, std::initializer_list<int64_t> dims);
  // Gives back everything allocated after the mark. Work that is queued may still use it: a stream
  // runs in order.
  using Mark = size_t;
  Mark mark() const { return used_; }
  void Rewind(Mark mark) { used_ = mark; }
  size_t capacity() const { return buffer_.bytes(); }

 private:
  Buffer buffer_;
  size_t used_ = 0;
};

// The device-side input of one step; all i32.
struct Batch {
  Tensor token;           // [tokens]
  Tensor position;        // [tokens]
  Tensor kv_slot;         // [tokens]
  Tensor query_start;     // [seqs + 1]
  Tensor context_tokens;  // [seqs]
  Tensor block_table;     // [seqs, max_blocks]
};

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelConfig& config() const = 0;
  virtual size_t weight_bytes() const = 0;  // device memory of the packed weights
  // Of the layers from resident_layers on, whose weights the device copies from the host's memory
  // for every step.
  virtual size_t host_weight_bytes() const { return 0; }
  virtual int resident_layers() const { return config().layers; }
  // Scratch that Forward over max_tokens and Logits over max_rows need together.
  virtual size_t ScratchBytes(int max_tokens, int max_rows) const = 0;
  // Runs all layers and writes the batch's keys and values. Returns the last layer's output
  // [tokens, hidden], before the final norm, in scratch: valid until the next Forward.
  virtual Tensor Forward(Stream& stream, const Batch& batch, absl::Span<const PagedKv> layers,
                         Scratch& scratch) const = 0;
  // logits[r] = head(norm(hidden[row[r]])): f32 [rows, vocab]. May be called several times after a
  // Forward, a slice of rows each, so that the scratch of long prompts' logprobs stays bounded.
  // row: i32 [rows].
  virtual void Logits(Stream& stream, const Tensor& hidden, const Tensor& row, const Tensor& logits,
                      Scratch& scratch) const = 0;
  // out[t] = norm(hidden[t]), [tokens, hidden] both: what embedding models pool. out may be hidden.
  virtual void FinalNorm(Stream& stream, const Tensor& hidden, const Tensor& out) const = 0;
};

// What ScratchBytes of a model of this config is on `device`, without its weights.
size_t ScratchBytesOf(const ModelConfig& config, const Device& device, int max_tokens,
                      int max_rows);

// Which layers' weights stay on a device that can do without (DeviceInfo::streams_weights); others
// keep all.
struct LayerPlacement {
  std::optional<int> resident;  // the first so many; none: as many as fit beside
  size_t kept_bytes = 0;        // the KV cache and whatever else a step takes,
  int max_tokens = 0;           // and the scratch of Forward and Logits
  int max_rows = 0;
};

// Proves before it returns that the device takes every dtype of the file. `source` may be dropped
// afterwards. max_positions: the rows of the RoPE table (--max-model-len). `cache`: packed weights
// from an earlier start; null packs them all. with_head: Logits will be called. Errors: missing or
// misshapen tensors by name.
absl::StatusOr<std::unique_ptr<Model>> LoadModel(const WeightSource& source, Device& device,
                                                 int max_positions,
                                                 std::shared_ptr<WeightCache> cache = nullptr,
                                                 const LayerPlacement& placement = {},
                                                 bool with_head = true);

}  // namespace fairlead

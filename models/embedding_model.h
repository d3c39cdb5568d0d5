// SPDX-License-Identifier: Apache-2.0
// A model as a function from whole texts to a vector a token: what pooling reads. Immutable after
// loading; HiddenStates is const; scratch and KV belong to the caller. One thread a stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "models/model.h"
#include "models/tokenizer.h"
#include "models/weight_cache.h"
#include "models/weights.h"

namespace fairlead {

class EmbeddingModel {
 public:
  virtual ~EmbeddingModel() = default;
  virtual int hidden() const = 0;  // elements of a token's vector
  virtual int vocab() const = 0;
  virtual int max_positions() const = 0;  // tokens of the longest text
  virtual size_t weight_bytes() const = 0;
  virtual KvShape kv_shape(int block_tokens) const = 0;
  virtual size_t ScratchBytes(int max_tokens) const = 0;
  // Batch::position of a text's tokens: from 0 on, unless the model counts otherwise.
  virtual void AppendPositions(absl::Span<const Token> text,
                               std::vector<int32_t>& positions) const {
    for (size_t i = 0; i < text.size(); ++i) positions.push_back(static_cast<int32_t>(i));
  }
  // Of a batch of whole sequences (context_tokens are their lengths): [tokens, hidden] in scratch,
  // valid until the next call. Every layer overwrites the keys and values in `kv`.
  virtual Tensor HiddenStates(Stream& stream, const Batch& batch, const PagedKv& kv,
                              Scratch& scratch) const = 0;
};

// An encoder, or a decoder whose states after the last norm are what is pooled (Qwen3-Embedding,
// arXiv 2506.05176). max_tokens: of the largest batch. `source` may be dropped afterwards.
// `cache`: packed weights from an earlier start; null packs them all. Errors: Encoder::Load's, or
// LoadModel's.
absl::StatusOr<std::unique_ptr<EmbeddingModel>> LoadEmbeddingModel(
    const WeightSource& source, Device& device, int max_tokens,
    std::shared_ptr<WeightCache> cache = nullptr);

}  // namespace fairlead

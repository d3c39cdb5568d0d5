// SPDX-License-Identifier: Apache-2.0
// A model as a function from whole texts to a vector a token: what pooling reads. Immutable after
// loading; HiddenStates is const; scratch and KV belong to the caller. One thread a stream.
#pragma once

#include <cstddef>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "models/model.h"

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
  // Of a batch of whole sequences (context_tokens are their lengths): [tokens, hidden] in scratch,
  // valid until the next call. Every layer overwrites the keys and values in `kv`.
  virtual Tensor HiddenStates(Stream& stream, const Batch& batch, const PagedKv& kv,
                              Scratch& scratch) const = 0;
};

}  // namespace fairlead

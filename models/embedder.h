// SPDX-License-Identifier: Apache-2.0
// Texts as token ids become vectors: runs an EmbeddingModel over ragged batches and pools. Owns a
// stream and all device memory that a batch takes. One thread at a time.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/embedding_model.h"
#include "models/pooling.h"
#include "models/tokenizer.h"

namespace fairlead {

// Of a batch; all are at least 1.
struct EmbedderLimits {
  int tokens = 2048;  // and so of a sequence; at most the max_tokens that the model was loaded for
  int sequences = 64;
};

class Embedder {
 public:
  // `device` outlives it. RESOURCE_EXHAUSTED when a batch of these limits does not fit.
  static absl::StatusOr<std::unique_ptr<Embedder>> Create(std::unique_ptr<EmbeddingModel> model,
                                                          Device& device,
                                                          const EmbedderLimits& limits);

  // The longest sequence that it takes: the limits', or that of the model's positions.
  int max_tokens() const { return max_tokens_; }
  int dimensions() const { return model_->hidden(); }
  const EmbeddingModel& model() const { return *model_; }

  // [sequences, dimensions], in the order given, whose bits depend on each sequence alone. Any
  // number of sequences: they are run in as many batches as it takes. kInvalidArgument names the
  // sequence that is empty or longer than max_tokens, or its token that the vocabulary has not.
  absl::StatusOr<std::vector<float>> Embed(absl::Span<const std::vector<Token>> sequences,
                                           const PoolingConfig& pooling);
  // What is pooled: [tokens of all sequences, dimensions]. The same errors.
  absl::StatusOr<std::vector<float>> HiddenStates(absl::Span<const std::vector<Token>> sequences);

 private:
  // Called for each batch, whose hidden states are [tokens, hidden]; it copies them, or what it
  // makes of them, to the host, which is done when the batch is.
  using Consumer = std::function<void(const Tensor& hidden, const Batch& batch)>;

  Embedder() = default;
  absl::Status Check(absl::Span<const std::vector<Token>> sequences) const;
  void Run(absl::Span<const std::vector<Token>> sequences, const Consumer& consume);
  size_t CountBatch(absl::Span<const std::vector<Token>> sequences) const;
  Batch Upload(absl::Span<const std::vector<Token>> sequences);

  std::unique_ptr<EmbeddingModel> model_;
  EmbedderLimits limits_;
  int max_tokens_ = 0;
  const Ops* ops_ = nullptr;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Scratch> scratch_;
  Buffer kv_buffer_, inputs_, pooled_;
  PagedKv kv_;
  std::vector<int32_t> host_inputs_;  // of the batch that runs
};

}  // namespace fairlead

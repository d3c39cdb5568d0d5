// SPDX-License-Identifier: Apache-2.0
// Runs a model on one sequence without the engine: the shortest way from token ids to logits. One
// thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/device.h"
#include "models/model.h"
#include "models/tokenizer.h"

namespace fairlead {

class ModelRunner {
 public:
  using CacheMaker =
      std::function<std::shared_ptr<WeightCache>(const WeightSource& source, Device& device)>;
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Open(const std::string& path,
                                                           std::unique_ptr<Device> device,
                                                           int max_tokens,
                                                           const CacheMaker& make_cache = {},
                                                           const LayerPlacement& placement = {});

  // Forgets the sequence.
  void Restart() { context_tokens_ = 0; }
  // Computes `tokens` after what has been computed and returns the logits of the last `rows` of
  // them, [rows, vocab].
  std::vector<float> Run(absl::Span<const Token> tokens, int rows);
  // The same with the final norm's outputs of all `tokens`, [tokens, hidden], and with one vector
  // made of them, [hidden].
  std::vector<float> RunToFinalNorm(absl::Span<const Token> tokens);
  std::vector<float> RunToPooled(absl::Span<const Token> tokens, Pooling pooling, bool normalize);
  // Feeds each choice back; starts from the logits of `tokens`.
  std::vector<Token> Greedy(absl::Span<const Token> tokens, int count);

  int vocab() const { return model_->config().vocab; }
  int hidden() const { return model_->config().hidden; }
  const Model& model() const { return *model_; }

 private:
  // Runs the layers; `row`, where it is given, becomes the last so many rows.
  Tensor Forward(absl::Span<const Token> tokens, Batch& batch, Tensor* row, int rows);
  std::vector<float> CopyToHost(const Tensor& tensor);

  std::unique_ptr<Device> device_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Scratch> scratch_;
  std::vector<Buffer> kv_buffers_;
  std::vector<PagedKv> kv_;
  Buffer inputs_, logits_;
  int max_tokens_ = 0, num_blocks_ = 0;
  int context_tokens_ = 0;
};

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// A Model whose logits are a hash of every token it attends to. The tokens and their positions are
// written to the KV blocks by slot and read back through the block table, in each of two layers, so
// a wrong slot, table, chunk or shared block changes the output. Runs on FakeDevice alone.
#pragma once

#include <functional>
#include <vector>

#include "absl/types/span.h"
#include "models/model.h"
#include "models/tokenizer.h"

namespace fairlead {

inline constexpr int kFakeVocab = 97;
// A history with this token has NaN logits. It is never drawn.
inline constexpr Token kPoisonToken = kFakeVocab - 1;

// The state after `tokens`, and the logits that follow it.
uint64_t FakeState(absl::Span<const Token> tokens);
float FakeLogit(uint64_t state, Token token);
std::vector<float> FakeLogits(absl::Span<const Token> tokens);
Token FakeArgMax(absl::Span<const Token> tokens);
// The greedy continuation: what an engine must answer.
std::vector<Token> FakeGenerate(std::vector<Token> prompt, int num_tokens);

class FakeModel final : public Model {
 public:
  // before_forward: on the engine thread, at the start of every Forward.
  explicit FakeModel(std::function<void(const Batch&)> before_forward = nullptr);
  const ModelConfig& config() const override { return config_; }
  size_t weight_bytes() const override { return 0; }
  size_t ScratchBytes(int max_tokens, int max_rows) const override;
  Tensor Forward(Stream& stream, const Batch& batch, absl::Span<const PagedKv> layers,
                 Scratch& scratch) const override;
  void Logits(Stream& stream, const Tensor& hidden, const Tensor& row, const Tensor& logits,
              Scratch& scratch) const override;
  void FinalNorm(Stream&, const Tensor&, const Tensor&) const override {}  // nobody pools it

 private:
  ModelConfig config_;
  std::function<void(const Batch&)> before_forward_;
};

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// What an encoder computes (BERT, Devlin et al., arXiv 1810.04805; nomic-bert, Nussbaum et al.,
// arXiv 2402.01613; RoBERTa, Liu et al., arXiv 1907.11692), as features. Every number is bounded,
// so that products of three of them fit int64_t. Any thread; no state.
#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "models/rope.h"
#include "models/tokenizer.h"
#include "models/weights.h"

namespace fairlead {

enum class EncoderNames { kBert, kNomic };  // of tensors and config keys

struct EncoderConfig {
  int hidden = 0;
  int layers = 0;
  int heads = 0;
  int head_dim = 0;
  int ffn = 0;
  int vocab = 0;
  int token_types = 0;    // 0: no embeddings of them
  int max_positions = 0;  // of a sequence
  float epsilon = 0;      // of the norms
  Activation activation = Activation::kGelu;
  bool gated = false;  // ActivateAndMulArgs::gated
  bool qkv_bias = false;
  bool attention_out_bias = false;
  bool up_bias = false;  // of the gate, too
  bool down_bias = false;
  std::optional<RopeConfig> rope;  // none: an embedding a position
  // RoBERTa's positions are counted from behind this token's id on, and the token itself, which
  // counts for nothing, has its id for a position.
  std::optional<Token> padding;
  EncoderNames names = EncoderNames::kBert;

  int first_position() const { return padding ? *padding + 1 : 0; }
};

// Whether the architecture that `source` names is an encoder. A decoder may make embeddings, too.
bool IsEncoder(const WeightSource& source);

// kUnimplemented for an architecture that is no encoder we know and for features we lack, by name;
// kInvalidArgument with key, value and range. Errors start with the source's path.
absl::StatusOr<EncoderConfig> LoadEncoderConfig(const WeightSource& source);

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "tests/runtime/fake_model.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "kernels/check.h"
#include "kernels/sampling_rng.h"
#include "tests/runtime/fake_device.h"

namespace fairlead {
namespace {

constexpr int kLayers = 2;
constexpr uint64_t kPoisoned = 0;

struct KvEntry {
  int32_t token;
  int32_t position;
};

// One token of the history; a poisoned state stays so.
uint64_t Fold(uint64_t state, KvEntry entry) {
  if (state == kPoisoned || entry.token == kPoisonToken) return kPoisoned;
  return MixBits(state ^ (uint64_t{static_cast<uint32_t>(entry.position)} << 32) ^
                 static_cast<uint32_t>(entry.token)) |
         1;
}

// What one layer stores: told apart, so that layers cannot stand in for each other.
KvEntry Stored(KvEntry entry, int layer) { return {entry.token + 1000 * layer, entry.position}; }
KvEntry Loaded(KvEntry entry, int layer) { return {entry.token - 1000 * layer, entry.position}; }

using Layers = std::array<PagedKv, kLayers>;

void WriteKv(const Batch& batch, const Layers& layers) {
  for (int64_t t = 0; t < batch.token.dim[0]; ++t) {
    const int32_t slot = batch.kv_slot.As<int32_t>()[t];
    if (slot == -1) continue;
    const KvEntry entry = {batch.token.As<int32_t>()[t], batch.position.As<int32_t>()[t]};
    for (int layer = 0; layer < kLayers; ++layer) {
      FAIRLEAD_CHECK(slot >= 0 &&
                     slot < layers[layer].num_blocks * layers[layer].shape.block_tokens);
      static_cast<KvEntry*>(layers[layer].data)[slot] = Stored(entry, layer);
    }
  }
}

uint64_t Attend(const Batch& batch, const Layers& layers, int64_t sequence, int32_t last_position) {
  const int block_tokens = layers[0].shape.block_tokens;
  const int32_t* table = batch.block_table.As<int32_t>() + sequence * batch.block_table.dim[1];
  uint64_t state = 1;
  for (int32_t p = 0; p <= last_position; ++p) {
    const int32_t slot = table[p / block_tokens] * block_tokens + p % block_tokens;
    for (int layer = 0; layer < kLayers; ++layer) {
      state = Fold(state, Loaded(static_cast<const KvEntry*>(layers[layer].data)[slot], layer));
    }
  }
  return state;
}

}  // namespace

uint64_t FakeState(absl::Span<const Token> tokens) {
  uint64_t state = 1;
  for (size_t p = 0; p < tokens.size(); ++p) {
    for (int layer = 0; layer < kLayers; ++layer) {
      state = Fold(state, {tokens[p], static_cast<int32_t>(p)});
    }
  }
  return state;
}

float FakeLogit(uint64_t state, Token token) {
  if (state == kPoisoned) return std::numeric_limits<float>::quiet_NaN();
  if (token == kPoisonToken) return -std::numeric_limits<float>::infinity();
  return 8 * UniformFor(state, static_cast<uint32_t>(token)) - 4;
}

std::vector<float> FakeLogits(absl::Span<const Token> tokens) {
  const uint64_t state = FakeState(tokens);
  std::vector<float> logits;
  for (Token v = 0; v < kFakeVocab; ++v) logits.push_back(FakeLogit(state, v));
  return logits;
}

Token FakeArgMax(absl::Span<const Token> tokens) {
  const std::vector<float> logits = FakeLogits(tokens);
  return static_cast<Token>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

std::vector<Token> FakeGenerate(std::vector<Token> prompt, int num_tokens) {
  const size_t start = prompt.size();
  for (int i = 0; i < num_tokens; ++i) prompt.push_back(FakeArgMax(prompt));
  return std::vector<Token>(prompt.begin() + static_cast<ptrdiff_t>(start), prompt.end());
}

FakeModel::FakeModel(std::function<void(const Batch&)> before_forward)
    : before_forward_(std::move(before_forward)) {
  config_.hidden = 2;
  config_.layers = kLayers;
  config_.heads = 1;
  config_.kv_heads = 1;
  config_.head_dim = 2;
  config_.vocab = kFakeVocab;
}

size_t FakeModel::ScratchBytes(int max_tokens, int) const {
  return 8 * static_cast<size_t>(max_tokens) + 64;
}

Tensor FakeModel::Forward(Stream& stream, const Batch& batch, absl::Span<const PagedKv> layers,
                          Scratch& scratch) const {
  if (before_forward_) before_forward_(batch);
  FAIRLEAD_CHECK(layers.size() == kLayers);
  const Layers kv = {layers[0], layers[1]};
  scratch.Reset();
  const Tensor hidden = scratch.Allocate(DType::kF32, {batch.token.dim[0], 2});
  static_cast<FakeStream&>(stream).Run([batch, kv, hidden] {
    WriteKv(batch, kv);
    for (int64_t s = 0; s < batch.context_tokens.dim[0]; ++s) {
      const int32_t* start = batch.query_start.As<int32_t>() + s;
      for (int32_t t = start[0]; t < start[1]; ++t) {
        const int32_t position = batch.context_tokens.As<int32_t>()[s] - (start[1] - t);
        const uint64_t state = Attend(batch, kv, s, position);
        std::memcpy(hidden.As<float>() + 2 * t, &state, sizeof(state));
      }
    }
  });
  return hidden;
}

void FakeModel::Logits(Stream& stream, const Tensor& hidden, const Tensor& row,
                       const Tensor& logits, Scratch&) const {
  static_cast<FakeStream&>(stream).Run([hidden, row, logits] {
    for (int64_t r = 0; r < row.dim[0]; ++r) {
      uint64_t state;
      std::memcpy(&state, hidden.As<float>() + 2 * row.As<int32_t>()[r], sizeof(state));
      for (Token v = 0; v < kFakeVocab; ++v)
        logits.As<float>()[r * kFakeVocab + v] = FakeLogit(state, v);
    }
  });
}

}  // namespace fairlead

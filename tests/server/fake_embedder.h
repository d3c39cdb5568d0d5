// SPDX-License-Identifier: Apache-2.0
// A model that makes embeddings which a test can do in its head, and its tokenizer: <bos>, a token
// a byte, <eos>. Thread-safe.
#pragma once

#include <condition_variable>
#include <mutex>
#include <vector>

#include "server/embed_service.h"
#include "tests/server/fake_model.h"

namespace fairlead {

class FramingTokenizer final : public FakeTokenizer {
 public:
  using Tokenizer::Encode;
  std::vector<Token> Encode(absl::Span<const TextPiece> pieces,
                            const EncodeOptions& options) const override {
    std::vector<Token> tokens = FakeTokenizer::Encode(pieces, options);
    if (options.add_special_tokens) tokens.push_back(kEos);
    return tokens;
  }
};

// A text's vector is its length, its first token, its last one. Batches wait while it is held.
class FakeEmbedder {
 public:
  static constexpr int kDimensions = 3;
  static constexpr int kMaxTokens = 32;

  static std::vector<float> VectorOf(const std::vector<Token>& text) {
    return {static_cast<float>(text.size()), static_cast<float>(text.front()),
            static_cast<float>(text.back())};
  }
  EmbeddingEngine::Embed function() {
    return [this](absl::Span<const std::vector<Token>> texts) {
      std::unique_lock<std::mutex> lock(mutex_);
      ++batches_;
      changed_.notify_all();
      changed_.wait(lock, [this] { return !held_; });
      std::vector<float> vectors;
      for (const auto& text : texts) {
        const std::vector<float> vector = VectorOf(text);
        vectors.insert(vectors.end(), vector.begin(), vector.end());
      }
      return absl::StatusOr<std::vector<float>>(std::move(vectors));
    };
  }
  void Hold(bool held) {
    const std::lock_guard<std::mutex> lock(mutex_);
    held_ = held;
    changed_.notify_all();
  }
  void WaitForBatch() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return batches_ > 0; });
  }
  static ServedModel Served(const Tokenizer* tokenizer) {
    ServedModel model = FakeServedModel(tokenizer, nullptr);
    model.dimensions = kDimensions;
    return model;
  }
  static EmbedTraits Traits() {
    return {.max_tokens = kMaxTokens,
            .normalize = false,
            .frame = {.before = {FakeTokenizer::kBos}, .after = {FakeTokenizer::kEos}}};
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  int batches_ = 0;
};

}  // namespace fairlead

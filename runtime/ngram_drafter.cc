// SPDX-License-Identifier: Apache-2.0
#include "runtime/ngram_drafter.h"

#include <bit>

#include "kernels/check.h"
#include "kernels/sampling_rng.h"

namespace fairlead {

NgramDrafter::NgramDrafter(absl::Span<const Token> prompt, int max_tokens)
    : latest_(std::bit_ceil(static_cast<size_t>(max_tokens)), -1) {
  previous_.reserve(static_cast<size_t>(max_tokens));
  for (size_t i = 0; i < prompt.size(); ++i) Index(prompt, static_cast<int>(i));
  match_ = Find(prompt);
}

int32_t& NgramDrafter::BucketOf(Token before_last, Token last) {
  const uint64_t pair =
      uint64_t{static_cast<uint32_t>(before_last)} << 32 | static_cast<uint32_t>(last);
  return latest_[MixBits(pair) & (latest_.size() - 1)];
}

void NgramDrafter::Index(absl::Span<const Token> tokens, int position) {
  FAIRLEAD_CHECK(previous_.size() < previous_.capacity());
  previous_.push_back(-1);
  if (position < kMinMatch) return;
  int32_t& latest = BucketOf(tokens[position - 2], tokens[position - 1]);
  previous_.back() = latest;
  latest = position;
}

int32_t NgramDrafter::Find(absl::Span<const Token> tokens) {
  const int size = static_cast<int>(tokens.size());
  if (size <= kMinMatch) return -1;
  int32_t best = -1;
  int best_length = kMinMatch - 1;  // a bucket holds other pairs too
  int32_t candidate = BucketOf(tokens[size - 2], tokens[size - 1]);
  for (int i = 0; i < kMaxCandidates && candidate >= 0 && best_length < kMaxMatch; ++i) {
    int length = 0;
    while (length < kMaxMatch && length < candidate &&
           tokens[candidate - 1 - length] == tokens[size - 1 - length]) {
      ++length;
    }
    if (length > best_length) best = candidate, best_length = length;
    candidate = previous_[candidate];
  }
  return best;
}

void NgramDrafter::Append(absl::Span<const Token> tokens) {
  const int position = static_cast<int>(tokens.size()) - 1;
  Index(tokens, position);
  if (match_ >= 0) {
    constexpr double kWeight = 1.0 / 16;
    const bool hit = tokens[match_] == tokens[position];
    mean_ += ((hit ? 1 : 0) - mean_) * kWeight;
    if (hit) {
      ++match_;
      ++hits_;
      return;
    }
  }
  match_ = Find(tokens);
  hits_ = 0;
}

int NgramDrafter::Draft(absl::Span<const Token> tokens, absl::Span<Token> out) const {
  if (match_ < 0) return 0;
  const size_t known = tokens.size() - static_cast<size_t>(match_);
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = i < known ? tokens[static_cast<size_t>(match_) + i] : out[i - known];
  return static_cast<int>(out.size());
}

// The mean of a beta distribution: what is known of the sequence's matches counts as much as
// kPrior observations of this one, which has been right hits_ times out of hits_.
double NgramDrafter::acceptance() const {
  constexpr double kPrior = 4;
  return (hits_ + kPrior * mean_) / (hits_ + kPrior);
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// How many drafted tokens a step verifies: as many as make the most accepted tokens a second, by
// what steps have been measured to cost and drafts to be right. No clock of its own, no allocation
// after it is made. Engine thread only.
//
// A step with n tokens, one drawn after each, takes cost(n). A draft whose tokens are each right
// with probability p gives p + p^2 + ... further tokens. With B sequences in the step, plain
// decoding makes B / cost(B) tokens a second; drafts are added, the likeliest first, while
// (B + expected) / cost(B + drafted) has not passed its best, and only if that best is worth it.
// Under load cost(n) is close to proportional to n, so drafting ends by itself.
#pragma once

#include <array>

#include "absl/time/time.h"
#include "absl/types/span.h"

namespace fairlead {

// What steps of n tokens cost. Each n is measured on its own; what lies between two measured ones
// is interpolated, and up to twice the largest measured one is guessed to cost no more than that,
// so that it is tried. A larger step never costs less than a smaller one: where estimates say so,
// the fresh one is believed. What is not renewed sinks slowly, so that it is tried again: one slow
// measurement is not believed for ever.
class StepCosts {
 public:
  static constexpr int kMaxTokens = 256;

  StepCosts();
  // Outside 1 .. kMaxTokens tokens, or without time: ignored.
  void Record(int tokens, absl::Duration time);
  // Seconds; infinite where nothing is known. 1 <= tokens.
  double Of(int tokens) const;
  bool measured(int tokens) const { return tokens <= kMaxTokens && estimate_[tokens].seconds > 0; }

 private:
  struct Estimate {
    double seconds = 0;  // 0: never measured
    double hope = 1;     // sinks from 1 with every step that another number of tokens had
    double cost() const { return seconds * hope; }
  };

  void Agree(int fresh);
  void Interpolate();

  std::array<Estimate, kMaxTokens + 1> estimate_ = {};
  std::array<double, kMaxTokens + 1> cost_;
};

struct DraftCandidate {
  double acceptance = 0;  // of each token
  int limit = 0;          // tokens that may be drafted
  int drafts = 0;         // chosen
  double chance = 0;      // that the one after those is accepted; ChooseDrafts' own
};

// Sets `drafts` of the candidates of a step with `rows` rows of one token each; the drafts of all
// together are at most max_drafts.
void ChooseDrafts(const StepCosts& costs, int rows, int max_drafts,
                  absl::Span<DraftCandidate> candidates);

}  // namespace fairlead

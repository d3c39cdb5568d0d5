// SPDX-License-Identifier: Apache-2.0
// The search for the largest rate that a server carries. No clock and no I/O. One thread.
#pragma once

#include <optional>

namespace fairlead::serve_bench {

// A rate is carried when at least this share of its requests was good.
inline constexpr double kCarriedShare = 0.9;

// Doubles from the first rate until one is not carried (or halves until one is), then bisects
// geometrically until the two lie within `precision` of each other.
class KneeSearch {
 public:
  // `first_rate` and `precision` above 0: 0.05 is 5 %. At most `max_points` rates are tried.
  KneeSearch(double first_rate, double precision, int max_points)
      : first_rate_(first_rate), precision_(precision), points_left_(max_points) {}

  std::optional<double> NextRate() const;  // nullopt: the search is over
  void Report(double rate, bool carried);

  std::optional<double> knee() const { return carried_; }  // the largest rate that was carried
  // A larger rate was tried and not carried. False: the knee is a lower bound.
  bool bounded() const { return not_carried_.has_value(); }

 private:
  const double first_rate_;
  const double precision_;
  int points_left_;
  std::optional<double> carried_;      // the largest
  std::optional<double> not_carried_;  // the smallest
};

}  // namespace fairlead::serve_bench

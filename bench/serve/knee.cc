// SPDX-License-Identifier: Apache-2.0
#include "bench/serve/knee.h"

#include <cmath>

namespace fairlead::serve_bench {

std::optional<double> KneeSearch::NextRate() const {
  if (points_left_ == 0) return std::nullopt;
  if (!carried_ && !not_carried_) return first_rate_;
  if (!not_carried_) return *carried_ * 2;
  if (!carried_) return *not_carried_ / 2;
  if (*not_carried_ / *carried_ <= 1 + precision_) return std::nullopt;
  return std::sqrt(*carried_ * *not_carried_);
}

void KneeSearch::Report(double rate, bool carried) {
  --points_left_;
  (carried ? carried_ : not_carried_) = rate;
}

}  // namespace fairlead::serve_bench

// SPDX-License-Identifier: Apache-2.0
#include "tests/models/fidelity.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace fairlead {
namespace {

std::vector<double> LogSoftmax(const std::vector<float>& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  std::vector<double> out;
  for (const float logit : logits) out.push_back(logit - largest - std::log(sum));
  return out;
}

}  // namespace

Fidelity MeasureFidelity(ModelRunner& runner, const Json& golden) {
  Fidelity fidelity;
  for (const Json& prefix : golden["prefixes"]) {
    runner.Restart();
    const std::vector<double> ours =
        LogSoftmax(runner.Run(prefix["ids"].get<std::vector<Token>>(), 1));
    const Token best =
        static_cast<Token>(std::max_element(ours.begin(), ours.end()) - ours.begin());
    double kl = 0, rest_theirs = 1, rest_ours = 1;
    for (const Json& entry : prefix["top"]) {
      const Token id = entry[0].get<Token>();
      const double theirs = entry[1].get<double>(), p = std::exp(theirs);
      kl += p * (theirs - ours[id]);
      rest_theirs -= p;
      rest_ours -= std::exp(ours[id]);
      const double d = std::abs(theirs - ours[id]);
      if (!(d <= fidelity.largest)) fidelity.largest = d;
      if (id == best && theirs > prefix["top"][0][1].get<double>() - 0.1) fidelity.top1 += 1;
    }
    if (rest_theirs > 1e-9 && rest_ours > 1e-9)
      kl += rest_theirs * std::log(rest_theirs / rest_ours);
    fidelity.kl_mean += kl;
  }
  fidelity.kl_mean /= golden["prefixes"].size();
  fidelity.top1 /= golden["prefixes"].size();
  return fidelity;
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// Comparators of op results. Each returns what is wrong, or an empty string. Tested themselves in
// compare_test.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace fairlead {

struct FloatBound {
  // Largest |got - want| of each element; 0: the same value; infinity: not compared.
  std::vector<double> max_error;
  // Largest sum((got - want)^2) / sum(want^2), or 0: not asked for. Looked at from kNmseElements
  // elements on: fewer may cancel by chance, and then the ratio says nothing.
  double max_nmse = 0;
};
inline constexpr size_t kNmseElements = 64;

// NaN and infinity match only themselves.
std::string CompareFloats(absl::Span<const float> got, absl::Span<const float> want,
                          const FloatBound& bound);

std::string CompareInts(absl::Span<const int32_t> got, absl::Span<const int32_t> want);

// got[i] must be one of allowed[i].
std::string CompareChoices(absl::Span<const int32_t> got,
                           absl::Span<const std::vector<int32_t>> allowed);

// The first byte that differs, by its offset.
std::string CompareBytes(absl::Span<const std::byte> got, absl::Span<const std::byte> want);

}  // namespace fairlead

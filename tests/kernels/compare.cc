// SPDX-License-Identifier: Apache-2.0
#include "tests/kernels/compare.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace fairlead {
namespace {

std::string CountMismatch(size_t got, size_t want) {
  return got == want ? "" : absl::StrCat(got, " elements where ", want, " are expected");
}

// NaN compares false with everything, so the test asks what is right, never what is wrong.
bool Matches(float got, float want, double max_error) {
  if (std::isnan(want)) return std::isnan(got);
  if (std::isinf(want)) return got == want;
  return std::isfinite(got) && std::fabs(double{got} - want) <= max_error;
}

}  // namespace

std::string CompareFloats(absl::Span<const float> got, absl::Span<const float> want,
                          const FloatBound& bound) {
  if (got.size() != want.size()) return CountMismatch(got.size(), want.size());
  if (bound.max_error.size() != want.size()) {
    return "bounds: " + CountMismatch(bound.max_error.size(), want.size());
  }
  double error_energy = 0, want_energy = 0;
  size_t compared = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double max_error = bound.max_error[i];
    if (std::isinf(max_error)) continue;
    if (!Matches(got[i], want[i], max_error)) {
      return absl::StrCat("element ", i, " is ", got[i], ", expected ", want[i], " +- ", max_error);
    }
    if (!std::isfinite(want[i])) continue;
    const double error = double{got[i]} - want[i];
    error_energy += error * error;
    want_energy += double{want[i]} * want[i];
    ++compared;
  }
  if (bound.max_nmse > 0 && compared >= kNmseElements &&
      !(error_energy <= bound.max_nmse * want_energy)) {
    return absl::StrCat("NMSE ", error_energy / want_energy, " is above ", bound.max_nmse);
  }
  return "";
}

std::string CompareInts(absl::Span<const int32_t> got, absl::Span<const int32_t> want) {
  if (got.size() != want.size()) return CountMismatch(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    if (got[i] != want[i]) {
      return absl::StrCat("element ", i, " is ", got[i], ", expected ", want[i]);
    }
  }
  return "";
}

std::string CompareChoices(absl::Span<const int32_t> got,
                           absl::Span<const std::vector<int32_t>> allowed) {
  if (got.size() != allowed.size()) return CountMismatch(got.size(), allowed.size());
  for (size_t i = 0; i < allowed.size(); ++i) {
    if (std::find(allowed[i].begin(), allowed[i].end(), got[i]) == allowed[i].end()) {
      return absl::StrCat("element ", i, " is ", got[i], ", expected one of ",
                          absl::StrJoin(allowed[i], ", "));
    }
  }
  return "";
}

std::string CompareBytes(absl::Span<const std::byte> got, absl::Span<const std::byte> want) {
  if (got.size() != want.size()) return CountMismatch(got.size(), want.size());
  const auto [g, w] = std::mismatch(got.begin(), got.end(), want.begin());
  if (g == got.end()) return "";
  return absl::StrCat("byte ", g - got.begin(), " is ", static_cast<int>(*g), ", expected ",
                      static_cast<int>(*w));
}

}  // namespace fairlead

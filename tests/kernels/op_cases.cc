// SPDX-License-Identifier: Apache-2.0
#include "tests/kernels/op_cases.h"

#include <cmath>

#include "kernels/sampling_rng.h"
#include "kernels/strings.h"

namespace fairlead {

std::vector<OpCase> AllOpCases() {
  std::vector<OpCase> cases;
  AddRowCases(cases);
  AddMatmulCases(cases);
  AddExpertCases(cases);
  AddRopeCases(cases);
  AddAttentionCases(cases);
  AddSamplingCases(cases);
  return cases;
}

uint64_t SeedOf(const OpCase& op_case) {
  uint64_t seed = kCaseSeed;
  for (const char c : op_case.name) seed = MixBits(seed ^ static_cast<uint8_t>(c));
  return seed;
}

// float32 rounds no input. precise may round x and w to bf16 (2^-9 each) or x to 12 bits in
// blocks of 32: half a step is max/4064 on each of 32 elements, so 32/4064 < 2^-6 of the sum at
// worst, when one element is all there is. fast may round x to int8 in blocks of 32: half a step is
// max/254 on each of 32 elements, so 32/254 = 2^-3 of the sum at worst, when one element is all
// there is.
double MatmulRounding(Numerics numerics) {
  switch (numerics) {
    case Numerics::kFloat32:
      return 0;
    case Numerics::kPrecise:
      return 0x1p-6;
    case Numerics::kFast:
      return 0x1p-3 + 0x1p-8;
  }
  return 0;
}

// Errors of the products are independent, so their energies add as the products' own do, and the
// ratio is that of one product, whatever k is; all with a factor of 4 of room. float32: each of up
// to 2048 partial sums rounds once, 2048 * 2^-48 / 3 = 2.4e-12. precise: x and w to bf16, uniform
// within 2^-9: 2 * 2^-18 / 3 = 2.5e-6. fast: step max/127, energy step^2 / 12: 32/12/127^2 = 1.7e-4
// of a block that is one outlier; 2e-5 of a normal one.
double MatmulNmse(Numerics numerics) {
  switch (numerics) {
    case Numerics::kFloat32:
      return 1e-11;
    case Numerics::kPrecise:
      return 1e-5;
    case Numerics::kFast:
      return 7e-4;
  }
  return 0;
}

namespace {

std::string CompareOutput(const CaseOutput& got, const CaseOutput& want) {
  if (got.tensor.dtype == DType::kI32) {
    return got.allowed.empty() ? CompareInts(got.ints, want.ints)
                               : CompareChoices(got.ints, got.allowed);
  }
  // Storing the result rounds once more; in f32 the case's own bound has room for that.
  FloatBound bound = got.bound;
  const double rounding = got.tensor.dtype == DType::kF16    ? 0x1p-11
                          : got.tensor.dtype == DType::kBF16 ? 0x1p-8
                                                             : 0;
  for (size_t i = 0; i < bound.max_error.size() && i < want.floats.size(); ++i) {
    if (bound.max_error[i] > 0) bound.max_error[i] += rounding * std::fabs(want.floats[i]);
  }
  if (bound.max_nmse > 0) bound.max_nmse += rounding * rounding;
  return CompareFloats(got.floats, want.floats, bound);
}

}  // namespace

std::vector<std::string> CheckCase(const OpCase& op_case, Device& device, Device& reference) {
  const DType activation = device.info().activation_dtype;
  CaseRun got(device, activation, SeedOf(op_case)), want(reference, activation, SeedOf(op_case));
  op_case.build(got);
  op_case.build(want);
  std::vector<std::string> wrong = got.Finish();
  for (const std::string& w : want.Finish()) wrong.push_back("the reference itself: " + w);
  for (size_t i = 0; i < got.outputs().size(); ++i) {
    const std::string difference = CompareOutput(got.outputs()[i], want.outputs()[i]);
    if (!difference.empty()) {
      wrong.push_back(StrCat(got.outputs()[i].name, ": ", difference));
    }
  }
  return wrong;
}

std::string DifferingBits(const CaseRun& a, const CaseRun& b) {
  for (size_t i = 0; i < a.outputs().size(); ++i) {
    const CaseOutput& x = a.outputs()[i];
    const CaseOutput& y = b.outputs()[i];
    const auto bytes = [](const auto& values) {
      return absl::Span<const std::byte>(reinterpret_cast<const std::byte*>(values.data()),
                                         values.size() * sizeof values[0]);
    };
    for (const std::string& difference : {CompareBytes(bytes(x.floats), bytes(y.floats)),
                                          CompareBytes(bytes(x.ints), bytes(y.ints))}) {
      if (!difference.empty()) return StrCat(x.name, ": ", difference);
    }
  }
  return "";
}

}  // namespace fairlead

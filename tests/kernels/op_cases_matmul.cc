// SPDX-License-Identifier: Apache-2.0
// Matmul in every weight type: sizes around the tiles of any backend, bias, accumulate, a column
// range, stacked parts.
#include <cmath>
#include <vector>

#include "kernels/strings.h"
#include "tests/kernels/op_cases.h"
#include "tests/reference/dequantize.h"

namespace fairlead {
namespace {

constexpr DType kWeightTypes[] = {DType::kF32,   DType::kF16,    DType::kBF16, DType::kQ8_0,
                                  DType::kQ4_0,  DType::kQ4_1,   DType::kQ5_0, DType::kQ5_1,
                                  DType::kQ4_K,  DType::kQ5_K,   DType::kQ6_K, DType::kIQ4_NL,
                                  DType::kMXFP4, DType::kIQ4_XS, DType::kQ3_K, DType::kQ2_K};

struct MatmulCase {
  DType dtype;
  int tokens, n, k;
  bool bias = false, accumulate = false;
  int left = 0, right = 0;  // columns of out on either side that belong to others
  int parts = 1;            // the n rows come in so many pieces
  bool embedding = false;   // a tied head
  bool outlier = false;     // one input feature 100 times the others, as trained models have
  bool zero_row = false;
};

std::string NameOf(const MatmulCase& c) {
  std::string name = StrCat("Matmul_", Info(c.dtype).name, "_t", c.tokens, "_n", c.n, "_k", c.k);
  if (c.bias) name += "_bias";
  if (c.accumulate) name += "_accumulate";
  if (c.left + c.right > 0) StrAppend(&name, "_columns", c.left, "_", c.right);
  if (c.parts > 1) StrAppend(&name, "_parts", c.parts);
  if (c.embedding) name += "_tied";
  if (c.outlier) name += "_outlier";
  if (c.zero_row) name += "_zero";
  return name;
}

struct MatmulData {
  std::vector<float> x, bias, before;
  std::vector<std::vector<std::byte>> parts;
};

MatmulData MakeData(CaseRun& run, const MatmulCase& c) {
  MatmulData data;
  data.x = run.random().Normals(int64_t{c.tokens} * c.k);
  for (int t = 0; t < c.tokens; ++t) {
    if (c.outlier) data.x[t * c.k + c.k / 3] *= 100;
    if (c.zero_row && t % 2 == 0) std::fill_n(data.x.begin() + t * c.k, c.k, 0.0f);
  }
  data.x = run.Rounded(data.x);
  for (int p = 0; p < c.parts; ++p) {
    const int rows = c.n * (p + 1) / c.parts - c.n * p / c.parts;
    data.parts.push_back(RandomWeights(run.random(), c.dtype, int64_t{rows} * c.k,
                                       1 / std::sqrt(static_cast<float>(c.k))));
  }
  if (c.bias) data.bias = run.random().Normals(c.n);
  data.before = run.Rounded(run.random().Normals(int64_t{c.tokens} * (c.left + c.n + c.right)));
  return data;
}

// |fl(sum) - sum| <= (k + 2) u sum |x| |w| for any order of the k products, bias and old value
// (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1), plus what the numerics
// may round of the inputs. Other columns: exact.
FloatBound BoundOf(CaseRun& run, const MatmulCase& c, const MatmulData& data) {
  const double sum_rounding = (c.k + 4) * kFloatRounding;
  const double input_rounding = MatmulRounding(run.info().numerics);
  const int columns = c.left + c.n + c.right;
  FloatBound bound = {std::vector<double>(data.before.size()), MatmulNmse(run.info().numerics)};
  std::vector<float> weight(c.k);
  int n = 0;
  for (const auto& part : data.parts) {
    const int64_t rows = static_cast<int64_t>(part.size() / RowBytes(c.dtype, c.k));
    for (int64_t r = 0; r < rows; ++r, ++n) {
      for (int k = 0; k < c.k; ++k)
        weight[k] = reference::ElementMagnitude(c.dtype, part.data(), r * c.k + k);
      for (int t = 0; t < c.tokens; ++t) {
        double magnitude = 0;
        const float* x = data.x.data() + t * c.k;
        for (int k = 0; k < c.k; ++k) magnitude += std::fabs(double{x[k]}) * weight[k];
        const size_t at = static_cast<size_t>(t) * columns + c.left + n;
        double rest = c.bias ? std::fabs(data.bias[n]) : 0;
        if (c.accumulate) rest += std::fabs(data.before[at]);
        bound.max_error[at] = sum_rounding * (magnitude + rest) + input_rounding * magnitude;
      }
    }
  }
  return bound;
}

void BuildMatmul(CaseRun& run, const MatmulCase& c) {
  const MatmulData data = MakeData(run, c);
  const int columns = c.left + c.n + c.right;
  MatmulArgs args = {
      .x = run.Activations(data.x, {c.tokens, c.k}),
      .weight = run.Weight(c.dtype, c.k, data.parts, c.embedding),
      .out = run.OutputActivations("out", {c.tokens, columns}, BoundOf(run, c, data), data.before),
      .out_column = c.left,
      .accumulate = c.accumulate};
  if (c.bias) args.bias = run.Floats(data.bias, {c.n});
  run.Launch([args](const Ops& ops, Stream& stream) { ops.Matmul(stream, args); });
}

}  // namespace

void AddMatmulCases(std::vector<OpCase>& cases) {
  // k below is for blocks of 32 elements; larger blocks get as many.
  const auto add = [&](MatmulCase c) {
    if (Info(c.dtype).block_elements > 32) c.k *= Info(c.dtype).block_elements / 32;
    cases.push_back({"Matmul", NameOf(c), c.dtype, [c](CaseRun& run) { BuildMatmul(run, c); }});
  };
  for (const DType d : kWeightTypes) {
    for (const int tokens : {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65}) {
      add({.dtype = d, .tokens = tokens, .n = 35, .k = 96});
    }
    for (const int n : {1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 129, 256}) {
      for (const int tokens : {1, 6}) add({.dtype = d, .tokens = tokens, .n = n, .k = 64});
    }
    const bool large_blocks = Info(d).block_elements > 32;
    const std::vector<int> depths = large_blocks
                                        ? std::vector<int>{32, 64, 160, 256}
                                        : std::vector<int>{32, 128, 160, 224, 256, 288, 576, 1056};
    for (const int k : depths) {
      for (const int tokens : {1, 5, 18}) add({.dtype = d, .tokens = tokens, .n = 19, .k = k});
    }
    if (!IsQuantized(d)) {
      for (const int k : {1, 2, 3, 15, 16, 17, 31, 33, 63, 65, 100, 257}) {
        for (const int tokens : {1, 5, 18}) add({.dtype = d, .tokens = tokens, .n = 19, .k = k});
      }
    }
    for (const int tokens : {1, 4, 17}) {
      for (int options = 1; options < 8; ++options) {
        add({.dtype = d,
             .tokens = tokens,
             .n = 33,
             .k = 96,
             .bias = (options & 1) != 0,
             .accumulate = (options & 2) != 0,
             .left = (options & 4) != 0 ? 5 : 0,
             .right = (options & 4) != 0 ? 3 : 0});
      }
      add({.dtype = d, .tokens = tokens, .n = 40, .k = 64, .left = 40});
      add({.dtype = d, .tokens = tokens, .n = 40, .k = 64, .right = 1});
      add({.dtype = d, .tokens = tokens, .n = 50, .k = 64, .bias = true, .parts = 3});
      add({.dtype = d, .tokens = tokens, .n = 33, .k = 64, .embedding = true});
      add({.dtype = d, .tokens = tokens, .n = 33, .k = 128, .outlier = true});
      add({.dtype = d, .tokens = tokens, .n = 33, .k = 64, .zero_row = true});
    }
    add({.dtype = d, .tokens = 70, .n = 130, .k = large_blocks ? 128 : 512, .bias = true});
  }
}

}  // namespace fairlead

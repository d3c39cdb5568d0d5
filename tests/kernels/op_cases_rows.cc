// SPDX-License-Identifier: Apache-2.0
// Embed, RmsNorm, LayerNorm, ActivateAndMul, Scale, GatherRows: ops whose output rows are made of
// one input row. Pool, whose are made of some.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/strings.h"
#include "tests/kernels/op_cases.h"
#include "tests/reference/reference_ops.h"

namespace fairlead {
namespace {

constexpr DType kWeightTypes[] = {DType::kF32,   DType::kF16,    DType::kBF16, DType::kQ8_0,
                                  DType::kQ4_0,  DType::kQ4_1,   DType::kQ5_0, DType::kQ5_1,
                                  DType::kQ4_K,  DType::kQ5_K,   DType::kQ6_K, DType::kIQ4_NL,
                                  DType::kMXFP4, DType::kIQ4_XS, DType::kQ3_K, DType::kQ2_K};

// A bound of `factor` times each value, plus `floor`.
FloatBound Relative(const std::vector<double>& values, double factor, double floor = 0) {
  FloatBound bound;
  for (const double v : values) bound.max_error.push_back(std::fabs(v) * factor + floor);
  return bound;
}

FloatBound Exact(int64_t count) { return {std::vector<double>(static_cast<size_t>(count)), 0}; }

// Every product of an element is exact in float: scale * q has 11 + 8 bits at most, d * scale * q
// 23; subtracting a minimum rounds once, adding to what is there once more.
void BuildEmbed(CaseRun& run, DType dtype, int tokens, int vocab, int hidden, bool accumulate) {
  const auto table = RandomWeights(run.random(), dtype, int64_t{vocab} * hidden, 0.5f);
  std::vector<int32_t> token;
  for (int t = 0; t < tokens; ++t) token.push_back(run.random().Int(0, vocab - 1));
  if (tokens > 1) token[0] = vocab - 1, token[1] = 0;
  const int64_t elements = int64_t{tokens} * hidden;
  const std::vector<float> before =
      accumulate ? run.Rounded(run.random().Normals(elements, 0.5f)) : std::vector<float>();
  const EmbedArgs args = {
      .token = run.Ints(token, {tokens}),
      .table = run.Weight(dtype, hidden, {table}, /*embedding=*/true),
      .out = run.OutputActivations("out", {tokens, hidden}, Exact(elements), before),
      .accumulate = accumulate};
  run.Launch([args](const Ops& ops, Stream& stream) { ops.Embed(stream, args); });
}

struct NormCase {
  int tokens, hidden;
  float scale = 1, epsilon = 1e-5f;
  bool in_place = false, accumulate = false;
  int left = 0, right = 0;  // columns beside the normed ones
};

// The sum of squares has hidden roundings at most, the root halves their relative error, and four
// operations follow. Adding to what is there rounds once more.
void BuildRmsNorm(CaseRun& run, const NormCase& c) {
  const int columns = c.left + c.hidden + c.right;
  const std::vector<float> x =
      run.Rounded(run.random().Normals(int64_t{c.tokens} * columns, c.scale));
  const std::vector<float> weight = run.random().Normals(c.hidden);
  std::vector<double> expected;  // 0 beside the normed columns, which stay as they are
  for (int t = 0; t < c.tokens; ++t) {
    const float* row = x.data() + t * columns + c.left;
    double squares = 0;
    for (int i = 0; i < c.hidden; ++i) squares += std::pow(row[i], 2);
    const double rms = std::sqrt(squares / c.hidden + c.epsilon);
    expected.insert(expected.end(), c.left, 0.0);
    for (int i = 0; i < c.hidden; ++i) expected.push_back(row[i] / rms * weight[i]);
    expected.insert(expected.end(), c.right, 0.0);
  }
  FloatBound bound = Relative(expected, (c.hidden / 2.0 + 8) * kFloatRounding, 1e-37);
  std::vector<float> before = c.in_place || columns > c.hidden ? x : std::vector<float>();
  if (c.accumulate) {
    before = run.Rounded(run.random().Normals(static_cast<int64_t>(x.size())));
    for (size_t i = 0; i < x.size(); ++i) {
      bound.max_error[i] += std::fabs(before[i] + expected[i]) * kFloatRounding;
    }
  }
  const Tensor out = run.OutputActivations("out", {c.tokens, columns}, bound, before);
  const RmsNormArgs args = {.x = c.in_place ? out : run.Activations(x, {c.tokens, columns}),
                            .weight = run.Floats(weight, {c.hidden}),
                            .out = out,
                            .epsilon = c.epsilon,
                            .accumulate = c.accumulate,
                            .column = c.left};
  run.Launch([args](const Ops& ops, Stream& stream) { ops.RmsNorm(stream, args); });
}

struct LayerNormCase {
  int tokens, hidden;
  float mean = 0, scale = 1, epsilon = 1e-5f;
  bool weight = true, bias = true, in_place = false;
};

// The sum of elements has hidden roundings at most, of sums that are no larger than those of
// magnitudes, so a mean is off by d = (hidden + 1) half ulps of their mean; every difference from
// it is, and rounds. Squares of differences from a mean that is off by d have a mean that is off by
// d^2, and by (hidden + 4) half ulps of itself; the root halves that. Five operations follow.
FloatBound LayerNormBound(const LayerNormCase& c, const std::vector<float>& x,
                          const std::vector<float>& weight, const std::vector<float>& bias) {
  FloatBound bound;
  for (int t = 0; t < c.tokens; ++t) {
    const float* row = x.data() + t * c.hidden;
    double mean = 0, magnitude = 0, variance = 0;
    for (int i = 0; i < c.hidden; ++i) mean += row[i] / double(c.hidden);
    for (int i = 0; i < c.hidden; ++i) magnitude += std::fabs(row[i]) / c.hidden;
    for (int i = 0; i < c.hidden; ++i) variance += std::pow(row[i] - mean, 2) / c.hidden;
    const double rms = std::sqrt(variance + c.epsilon);
    const double mean_error = (c.hidden + 1) * kFloatRounding * magnitude;
    const double relative =
        (c.hidden / 2.0 + 8) * kFloatRounding + std::pow(mean_error / rms, 2) / 2;
    for (int i = 0; i < c.hidden; ++i) {
      const double w = c.weight ? std::fabs(weight[i]) : 1, b = c.bias ? std::fabs(bias[i]) : 0;
      const double product = std::fabs(row[i] - mean) / rms * w;
      bound.max_error.push_back(product * relative + mean_error / rms * w * (1 + relative) +
                                (product + b) * kFloatRounding + 1e-37);
    }
  }
  return bound;
}

void BuildLayerNorm(CaseRun& run, const LayerNormCase& c) {
  std::vector<float> x = run.random().Normals(int64_t{c.tokens} * c.hidden, c.scale);
  for (float& v : x) v += c.mean;
  x = run.Rounded(x);
  const std::vector<float> weight = run.random().Normals(c.hidden);
  const std::vector<float> bias = run.random().Normals(c.hidden);
  const Tensor out =
      run.OutputActivations("out", {c.tokens, c.hidden}, LayerNormBound(c, x, weight, bias),
                            c.in_place ? x : std::vector<float>());
  const LayerNormArgs args = {.x = c.in_place ? out : run.Activations(x, {c.tokens, c.hidden}),
                              .weight = c.weight ? run.Floats(weight, {c.hidden}) : Tensor(),
                              .bias = c.bias ? run.Floats(bias, {c.hidden}) : Tensor(),
                              .out = out,
                              .epsilon = c.epsilon};
  run.Launch([args](const Ops& ops, Stream& stream) { ops.LayerNorm(stream, args); });
}

const char* ActivationName(Activation activation) {
  return activation == Activation::kSilu       ? "silu"
         : activation == Activation::kGeluTanh ? "gelu_tanh"
         : activation == Activation::kGelu     ? "gelu"
                                               : "clamped_silu";
}

// exp of a reduced argument is good to a few ulp in any vector library; then an addition, a
// division, a product, or the polynomial of a tail: 32 half ulps. Below 0 the argument of a GELU's
// exp, s, is itself rounded, four times where it is a polynomial's, twice where it is x^2 / 2, and
// the result is off by as much of itself; what is beyond -88 is nothing. The floor: exp(-gate)
// overflows from gate = -88 on, where the true value is below 1e-36. kClampedSilu's argument is
// rounded once.
double ActivationError(Activation activation, double x) {
  double s = 0;
  if (activation == Activation::kGeluTanh) s = 4 * 1.6 * x * (1 + 0.044715 * x * x);
  if (activation == Activation::kGelu) s = -x * x;
  if (activation == Activation::kClampedSilu) s = 1.702 * x;
  return (32 + (x < 0 ? std::min(-s, 4 * 88.0) : 0)) * kFloatRounding;
}

constexpr float kLimit = 7;  // of kClampedSilu

struct GateCase {
  Activation activation;
  int tokens, ffn;
  bool gated = true, in_place = false;
};

void BuildActivateAndMul(CaseRun& run, const GateCase& c) {
  const auto [activation, tokens, ffn, gated, in_place] = c;
  const int columns = gated ? 2 * ffn : ffn;
  std::vector<float> x = run.random().Normals(int64_t{tokens} * columns, 3);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float extremes[] = {0,   -0.0f, 1e-30f, -1e-30f, 20,     -20,     87,     -87, 89, -89,
                            120, -120,  1e10f,  -1e10f,  1e-40f, -1e-40f, -1e25f, 6,   -6, nan};
  for (size_t i = 0; i < std::size(extremes) && static_cast<int>(i) < ffn && tokens > 0; ++i) {
    x[i] = extremes[i];
  }
  x = run.Rounded(x);
  FloatBound bound;
  for (int t = 0; t < tokens; ++t) {
    for (int i = 0; i < ffn; ++i) {
      double gate = x[t * columns + i], up = gated ? x[t * columns + ffn + i] : 1;
      if (activation == Activation::kClampedSilu) {
        gate = gate > kLimit ? kLimit : gate;
        up = std::clamp<double>(up, -kLimit, kLimit) + 1;
      }
      const double expected = reference::Activated(activation, gate) * up;
      bound.max_error.push_back(std::fabs(expected) * ActivationError(activation, gate) + 1e-34);
    }
  }
  const Tensor out =
      run.OutputActivations("out", {tokens, ffn}, bound, in_place ? x : std::vector<float>());
  const ActivateAndMulArgs args = {.x = in_place ? out : run.Activations(x, {tokens, columns}),
                                   .out = out,
                                   .activation = activation,
                                   .limit = kLimit,
                                   .gated = gated};
  run.Launch([args](const Ops& ops, Stream& stream) { ops.ActivateAndMul(stream, args); });
}

// A product; then a division, a tanh that is good to a few ulp (of an argument that is off by two
// roundings, by which it changes no more than in proportion) and another product.
void BuildScale(CaseRun& run, int rows, int columns, const ScaleArgs& c) {
  std::vector<float> x = run.random().Normals(int64_t{rows} * columns, 2);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float extremes[] = {0, -0.0f, 0.24f, 0.26f, -30, 1e10f, -1e30f, nan};
  for (size_t i = 0; i < std::size(extremes) && i < x.size(); ++i) x[i] = extremes[i];
  x = run.Rounded(x);
  std::vector<double> expected;
  for (const float v : x) {
    const double y = double{v} * c.factor;
    expected.push_back(c.soft_cap > 0 ? c.soft_cap * std::tanh(y / c.soft_cap) : y);
  }
  ScaleArgs args = c;
  args.x = run.OutputActivations("x", {rows, columns},
                                 Relative(expected, (c.soft_cap > 0 ? 20 : 1) * kFloatRounding), x);
  run.Launch([args](const Ops& ops, Stream& stream) { ops.Scale(stream, args); });
}

void BuildGatherRows(CaseRun& run, int tokens, int rows, int hidden) {
  std::vector<int32_t> row;
  for (int r = 0; r < rows; ++r) row.push_back(run.random().Int(0, tokens - 1));
  if (rows > 1) row[0] = tokens - 1, row[1] = tokens - 1;  // a row may be asked for twice
  const GatherRowsArgs args = {
      .x = run.Activations(run.random().Normals(int64_t{tokens} * hidden), {tokens, hidden}),
      .row = run.Ints(row, {rows}),
      .out = run.OutputActivations("out", {rows, hidden}, Exact(int64_t{rows} * hidden))};
  run.Launch([args](const Ops& ops, Stream& stream) { ops.GatherRows(stream, args); });
}

struct PoolCase {
  std::vector<int> tokens;  // of each sequence
  int hidden;
  Pooling pooling = Pooling::kMean;
  bool normalize = false;
  float scale = 1;
  bool nan = false;  // in the middle
};

// The error of each element of a mean: as many roundings as tokens of sums that are no larger than
// those of magnitudes, and a division. Normalising divides it by the norm; then the norm's own
// errors count, of the elements together and of the sum of squares, whose root halves them.
FloatBound PoolBound(const PoolCase& c, const std::vector<float>& x) {
  FloatBound bound;
  int begin = 0;
  for (const int tokens : c.tokens) {
    const int first = begin + (c.pooling == Pooling::kLast ? std::max(tokens - 1, 0) : 0);
    const int count = c.pooling == Pooling::kMean ? tokens : std::min(tokens, 1);
    std::vector<double> value(c.hidden), error(c.hidden);
    double squares = 0, squared_errors = 0;
    for (int i = 0; i < c.hidden; ++i) {
      for (int t = first; t < first + count; ++t) {
        value[i] += x[t * c.hidden + i] / double(count);
        error[i] += std::fabs(x[t * c.hidden + i]) / double(count);
      }
      error[i] *= c.pooling == Pooling::kMean ? (count + 2) * kFloatRounding : 0;
      squares += value[i] * value[i];
      squared_errors += error[i] * error[i];
    }
    const double norm = std::max(std::sqrt(squares), 1e-12);
    const double of_norm = std::sqrt(squared_errors) / norm + (c.hidden / 2.0 + 8) * kFloatRounding;
    for (int i = 0; i < c.hidden; ++i) {
      bound.max_error.push_back(
          c.normalize ? error[i] / norm + std::fabs(value[i]) / norm * of_norm + 1e-37 : error[i]);
    }
    begin += tokens;
  }
  return bound;
}

void BuildPool(CaseRun& run, const PoolCase& c) {
  std::vector<int32_t> start = {0};
  for (const int tokens : c.tokens) start.push_back(start.back() + tokens);
  const int tokens = start.back(), seqs = static_cast<int>(c.tokens.size());
  std::vector<float> x = run.Rounded(run.random().Normals(int64_t{tokens} * c.hidden, c.scale));
  if (c.nan) x[x.size() / 2] = std::numeric_limits<float>::quiet_NaN();
  const PoolArgs args = {.x = run.Activations(x, {tokens, c.hidden}),
                         .query_start = run.Ints(start, {seqs + 1}),
                         .out = run.OutputActivations("out", {seqs, c.hidden}, PoolBound(c, x)),
                         .pooling = c.pooling,
                         .normalize = c.normalize};
  run.Launch([args](const Ops& ops, Stream& stream) { ops.Pool(stream, args); });
}

void AddPoolCases(std::vector<OpCase>& cases) {
  const auto add = [&](const std::string& name, const PoolCase& c) {
    for (const Pooling pooling : {Pooling::kMean, Pooling::kFirst, Pooling::kLast}) {
      for (const bool normalize : {false, true}) {
        PoolCase each = c;
        each.pooling = pooling;
        each.normalize = normalize;
        const char* kind = pooling == Pooling::kMean    ? "mean"
                           : pooling == Pooling::kFirst ? "first"
                                                        : "last";
        cases.push_back({"Pool", StrCat("Pool_", name, "_", kind, normalize ? "_normalized" : ""),
                         std::nullopt, [each](CaseRun& run) { BuildPool(run, each); }});
      }
    }
  };
  for (const int hidden : {1, 7, 15, 16, 17, 63, 65, 257, 576}) {
    add(StrCat("h", hidden), {.tokens = {3, 1, 9}, .hidden = hidden});
  }
  add("none", {.tokens = {}, .hidden = 8});
  add("empty", {.tokens = {0, 2, 0, 0, 5, 0}, .hidden = 24});
  add("no_tokens", {.tokens = {0, 0}, .hidden = 24});
  add("long", {.tokens = {8, 700, 17, 16}, .hidden = 40});
  add("tiny", {.tokens = {3, 2}, .hidden = 33, .scale = 1e-14f});
  add("nan", {.tokens = {4, 5, 4}, .hidden = 33, .nan = true});
}

void AddEmbedCases(std::vector<OpCase>& cases) {
  for (const DType dtype : kWeightTypes) {
    // hidden below is for blocks of 32 elements; larger blocks get as many.
    const int scale = std::max(1, Info(dtype).block_elements / 32);
    const auto add = [&](int tokens, int vocab, int hidden, bool accumulate = false) {
      hidden *= scale;
      cases.push_back({"Embed",
                       StrCat("Embed_", Info(dtype).name, "_t", tokens, "_v", vocab, "_h", hidden,
                              accumulate ? "_accumulate" : ""),
                       dtype, [=](CaseRun& run) {
                         BuildEmbed(run, dtype, tokens, vocab, hidden, accumulate);
                       }});
    };
    for (const int tokens : {0, 1, 2, 15, 16, 17, 65}) add(tokens, 33, 64);
    for (const int hidden : {32, 96, 160, 288}) add(3, 5, hidden);
    add(1, 1, 32);
    add(17, 33, 96, true);
    if (!IsQuantized(dtype)) {
      for (const int hidden : {1, 15, 16, 17, 63, 65}) add(3, 7, hidden);
      for (const int hidden : {1, 17, 65}) add(3, 7, hidden, true);
    }
  }
}

void AddLayerNormCases(std::vector<OpCase>& cases) {
  const auto add = [&](std::string suffix, const LayerNormCase& c) {
    cases.push_back({"LayerNorm", StrCat("LayerNorm_t", c.tokens, "_h", c.hidden, suffix),
                     std::nullopt, [c](CaseRun& run) { BuildLayerNorm(run, c); }});
  };
  for (const int hidden : {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 65, 257, 384, 1023, 2048}) {
    add("", {.tokens = 3, .hidden = hidden});
  }
  for (const int tokens : {0, 1, 2, 15, 17, 65}) add("", {.tokens = tokens, .hidden = 48});
  for (const int hidden : {16, 33}) {
    add("_plain", {.tokens = 3, .hidden = hidden, .weight = false, .bias = false});
    add("_weight", {.tokens = 3, .hidden = hidden, .bias = false});
    add("_bias", {.tokens = 3, .hidden = hidden, .weight = false});
    add("_in_place", {.tokens = 5, .hidden = hidden, .in_place = true});
  }
  // Where a variance from sums of squares would be lost, and where epsilon decides.
  add("_far", {.tokens = 4, .hidden = 96, .mean = 1000, .scale = 0.1f});
  add("_tiny", {.tokens = 4, .hidden = 64, .scale = 1e-4f, .epsilon = 1e-6f});
  add("_large", {.tokens = 4, .hidden = 64, .scale = 1e15f});
  add("_equal", {.tokens = 4, .hidden = 64, .mean = 0.5f, .scale = 0});
}

}  // namespace

void AddRowCases(std::vector<OpCase>& cases) {
  AddEmbedCases(cases);
  const auto add_norm = [&](std::string suffix, const NormCase& c) {
    cases.push_back({"RmsNorm", StrCat("RmsNorm_t", c.tokens, "_h", c.hidden, suffix), std::nullopt,
                     [c](CaseRun& run) { BuildRmsNorm(run, c); }});
  };
  for (const int hidden : {1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 576, 1023, 2048}) {
    add_norm("", {.tokens = 3, .hidden = hidden});
  }
  for (const int tokens : {0, 1, 2, 15, 16, 17, 64, 65})
    add_norm("", {.tokens = tokens, .hidden = 48});
  add_norm("_in_place", {.tokens = 5, .hidden = 65, .in_place = true});
  // Inputs so small that epsilon decides, and so large that their squares are near float's end.
  add_norm("_tiny", {.tokens = 4, .hidden = 64, .scale = 1e-4f, .epsilon = 1e-6f});
  add_norm("_large", {.tokens = 4, .hidden = 64, .scale = 1e15f});
  add_norm("_epsilon", {.tokens = 4, .hidden = 64, .scale = 1e-2f, .epsilon = 1e-3f});

  for (const int hidden : {1, 15, 16, 17, 65, 576}) {
    add_norm("_accumulate", {.tokens = 3, .hidden = hidden, .accumulate = true});
  }
  for (const int tokens : {0, 17}) {
    add_norm("_accumulate", {.tokens = tokens, .hidden = 48, .accumulate = true});
  }

  for (const int hidden : {1, 16, 33, 96}) {
    add_norm("_slice",
             {.tokens = 3, .hidden = hidden, .in_place = true, .left = 7, .right = 2 * hidden});
  }

  AddLayerNormCases(cases);

  for (const Activation activation :
       {Activation::kSilu, Activation::kGeluTanh, Activation::kGelu, Activation::kClampedSilu}) {
    const auto add = [&](int tokens, int ffn, bool gated = true, bool in_place = false) {
      const GateCase c = {activation, tokens, ffn, gated, in_place};
      cases.push_back({"ActivateAndMul",
                       StrCat("ActivateAndMul_", ActivationName(activation), "_t", tokens, "_f",
                              ffn, gated ? "" : "_alone", in_place ? "_in_place" : ""),
                       std::nullopt, [=](CaseRun& run) { BuildActivateAndMul(run, c); }});
    };
    for (const int ffn : {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 65, 257, 1536}) add(3, ffn);
    for (const int tokens : {0, 1, 15, 16, 17, 65}) add(tokens, 40);
    if (activation == Activation::kClampedSilu) continue;
    for (const int ffn : {1, 15, 17, 33, 257, 1536}) add(3, ffn, false);
    for (const int tokens : {0, 1, 17}) add(tokens, 40, false, true);
  }

  for (const int columns : {0, 1, 15, 16, 17, 65, 257}) {
    for (const float soft_cap : {0.0f, 30.0f}) {
      const ScaleArgs scale = {.x = {}, .factor = soft_cap > 0 ? 1.0f : 7.7f, .soft_cap = soft_cap};
      cases.push_back({"Scale", StrCat("Scale_h", columns, soft_cap > 0 ? "_capped" : ""),
                       std::nullopt, [=](CaseRun& run) { BuildScale(run, 3, columns, scale); }});
    }
  }
  cases.push_back({"Scale", "Scale_both", std::nullopt, [](CaseRun& run) {
                     BuildScale(run, 2, 40, {.x = {}, .factor = 0.25f, .soft_cap = 5});
                   }});

  const auto add_gather = [&](int tokens, int rows, int hidden) {
    cases.push_back({"GatherRows", StrCat("GatherRows_t", tokens, "_r", rows, "_h", hidden),
                     std::nullopt,
                     [=](CaseRun& run) { BuildGatherRows(run, tokens, rows, hidden); }});
  };
  for (const int rows : {0, 1, 15, 16, 17, 40}) add_gather(20, rows, 24);
  for (const int hidden : {1, 15, 16, 17, 63, 65, 576}) add_gather(9, 5, hidden);
  add_gather(1, 1, 1);
  AddPoolCases(cases);
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// Route, GroupedMatmul in every weight type, CombineExperts: experts with many rows, few or none.
#include <algorithm>
#include <cmath>
#include <limits>
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
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// ---- Route

enum class Router { kNormal, kTied, kFar, kMasked, kUnusable, kLow };

enum class RouterBias { kNone, kNormal, kNaN, kInfinity, kAllInfinite };

struct RouteCase {
  int tokens, experts, slots;
  bool normalize = false;
  Router logits = Router::kNormal;
  bool sigmoid = false;
  RouterBias bias = RouterBias::kNone;
  int groups = 1, chosen_groups = 1, group_scores = 1;
  float scale = 1;
};

std::vector<float> RouterLogits(CaseRun& run, const RouteCase& c) {
  std::vector<float> logits = run.random().Normals(int64_t{c.tokens} * c.experts, 2);
  for (int t = 0; t < c.tokens; ++t) {
    float* row = logits.data() + t * c.experts;
    const int at = run.random().Int(0, c.experts - 1);
    for (int e = 0; e < c.experts; ++e) {
      if (c.logits == Router::kTied) row[e] = static_cast<float>(run.random().Int(-1, 1));
      if (c.logits == Router::kFar) row[e] *= 30;
      if (c.logits == Router::kLow) row[e] -= 55;
      if (c.logits == Router::kMasked && e != at && e % 3 != 0) row[e] = -kInfinity;
      if (c.logits == Router::kUnusable && t % 4 == 3) row[e] = -kInfinity;
    }
    if (c.logits == Router::kTied && t % 2 == 0) row[at] = 0.0f, row[c.experts - 1] = -0.0f;
    const float bad[] = {kNaN, kInfinity, 0.5f, -kInfinity};  // a good row among them
    if (c.logits == Router::kUnusable) row[at] = bad[t % 4];
  }
  return run.Rounded(logits);
}

// Exponentials of a difference that is rounded once, good to a few ulp, their sum in any order, and
// a division. The floor: exp may be 0 from -87 on, where it is 2^-126.
FloatBound RouteBound(const RouteCase& c, const std::vector<float>& logits) {
  FloatBound bound;
  if (c.sigmoid || c.bias != RouterBias::kNone || c.groups > 1) {  // weights are scale at most
    const double error = (c.experts + 132) * kFloatRounding * c.scale + 0x1p-125;
    bound.max_error.assign(static_cast<size_t>(c.tokens) * c.slots, error);
    return bound;
  }
  for (int t = 0; t < c.tokens; ++t) {
    const float* row = logits.data() + t * c.experts;
    std::vector<float> sorted(row, row + c.experts);
    std::sort(sorted.rbegin(), sorted.rend(),
              [](float a, float b) { return std::isnan(b) ? !std::isnan(a) : a < b; });
    double sum = 0;
    const int summed = c.normalize ? c.slots : c.experts;
    for (int e = 0; e < summed; ++e) sum += std::exp(double{sorted[e]} - sorted[0]);
    for (int j = 0; j < c.slots; ++j) {
      const double distance = double{sorted[0]} - sorted[j];
      const double relative = (c.experts + std::min(distance, 100.0) + 32) * kFloatRounding;
      bound.max_error.push_back(c.scale * relative * std::exp(-distance) / sum + 0x1p-125);
    }
  }
  return bound;
}

void BuildRoute(CaseRun& run, const RouteCase& c) {
  const std::vector<float> logits = RouterLogits(run, c);
  RouteArgs args = {
      .logits = run.Activations(logits, {c.tokens, c.experts}),
      .expert = run.OutputInts("expert", {c.tokens, c.slots}),
      .weight = run.OutputFloats("weight", {c.tokens, c.slots}, RouteBound(c, logits)),
      .normalize = c.normalize,
      .scores = c.sigmoid ? RouteArgs::Scores::kSigmoid : RouteArgs::Scores::kSoftmax,
      .groups = c.groups,
      .chosen_groups = c.chosen_groups,
      .group_scores = c.group_scores,
      .scale = c.scale};
  if (c.bias != RouterBias::kNone) {
    // The same for all where experts are to tie.
    std::vector<float> bias(c.experts, 0.25f);
    if (c.logits != Router::kTied) bias = run.random().Normals(c.experts, 0.3f);
    if (c.bias == RouterBias::kNaN) bias[c.experts / 2] = kNaN;
    if (c.bias == RouterBias::kInfinity) bias[c.experts / 2] = kInfinity;
    if (c.bias == RouterBias::kAllInfinite) bias.assign(c.experts, -kInfinity);
    args.bias = run.Floats(bias, {c.experts});
  }
  run.Launch([args](const Ops& ops, Stream& stream) { ops.Route(stream, args); });
}

// Sigmoids, biases, groups of experts, scales; some of DeepSeek's sizes.
template <typename Add>
void AddChoiceCases(const Add& add, bool sigmoid, bool normalize) {
  const std::string kind = sigmoid ? "_sigmoid" : "_softmax";
  const RouteCase base = {
      .tokens = 5, .experts = 0, .slots = 0, .normalize = normalize, .sigmoid = sigmoid};
  const auto add_sizes = [&](const std::string& suffix, int experts, int slots, RouteCase c) {
    c.experts = experts;
    c.slots = slots;
    add((kind + suffix).c_str(), c);
  };
  RouteCase c = base;
  c.scale = 2.5f;
  for (const int experts : {1, 33, 64, 257}) {
    add_sizes("_scale", experts, std::min(experts, 3), c);
    c.bias = RouterBias::kNormal;
    add_sizes("_bias", experts, std::min(experts, 3), c);
    c.bias = RouterBias::kNone;
  }
  for (const Router logits : {Router::kTied, Router::kFar, Router::kMasked, Router::kUnusable}) {
    const std::string name[] = {"", "_tied", "_far", "_masked", "_unusable"};
    c = base;
    c.logits = logits;
    c.tokens = 9;
    c.bias = RouterBias::kNormal;
    add_sizes("_bias" + name[static_cast<int>(logits)], 96, 4, c);
    c.groups = 8;
    c.chosen_groups = 3;
    c.group_scores = 2;
    add_sizes("_bias_groups" + name[static_cast<int>(logits)], 96, 4, c);
    c.bias = RouterBias::kNone;
    c.group_scores = 1;
    add_sizes("_groups" + name[static_cast<int>(logits)], 96, 4, c);
  }
  c = base;
  c.logits = Router::kLow;  // sigmoids near 1e-20
  add_sizes("_low", 40, 4, c);
  c = base;
  c.bias = RouterBias::kNaN;
  add_sizes("_bias_nan", 40, 4, c);
  c.bias = RouterBias::kInfinity;
  add_sizes("_bias_infinity", 40, 4, c);
  c.bias = RouterBias::kAllInfinite;
  add_sizes("_bias_all_infinite", 40, 4, c);
  c.bias = RouterBias::kNormal;
  add_sizes("_bias", RouteArgs::kMaxExperts, RouteArgs::kMaxSlots, c);
  c.groups = 2;
  c.group_scores = 2;
  add_sizes("_groups2", RouteArgs::kMaxExperts, 8, c);
  c = base;
  c.bias = RouterBias::kNormal;
  c.groups = 8;
  c.chosen_groups = 4;
  c.group_scores = 2;
  c.scale = 2.5f;
  add_sizes("_groups8", 256, 8, c);
  c.chosen_groups = 1;
  add_sizes("_groups8_one", 256, 32, c);  // all experts of the best
  c.groups = 32;
  c.chosen_groups = 5;
  c.group_scores = 1;
  add_sizes("_groups32", 32, 5, c);  // of one expert each
  c.bias = RouterBias::kNone;
  c.groups = 3;
  c.chosen_groups = 2;
  add_sizes("_groups3", 21, 6, c);
  c.group_scores = 7;
  add_sizes("_groups3_all_scores", 21, 14, c);
}

void AddRouteCases(std::vector<OpCase>& cases) {
  const auto add = [&](const char* suffix, const RouteCase& c) {
    cases.push_back({"Route",
                     StrCat("Route_t", c.tokens, "_e", c.experts, "_s", c.slots,
                            c.normalize ? "_normalize" : "", suffix),
                     std::nullopt, [c](CaseRun& run) { BuildRoute(run, c); }});
  };
  for (const bool normalize : {false, true}) {
    for (const int experts : {1, 2, 3, 8, 31, 32, 33, 63, 64, 65, 128, 257, 512, 1024}) {
      add("", {3, experts, std::min(experts, 2), normalize});
    }
    for (const int slots : {1, 3, 4, 8, 31, 32}) add("", {2, 60, slots, normalize});
    for (const int experts : {4, 32}) add("", {2, experts, experts, normalize});  // all of them
    for (const int tokens : {0, 1, 7, 8, 9, 70}) add("", {tokens, 16, 2, normalize});
    for (const int experts : {5, 100}) {
      add("_tied", {9, experts, 4, normalize, Router::kTied});
      add("_far", {9, experts, 4, normalize, Router::kFar});
      add("_masked", {9, experts, 3, normalize, Router::kMasked});
      add("_unusable", {9, experts, 3, normalize, Router::kUnusable});
    }
  }
  add("_gate", {.tokens = 17, .experts = 1, .slots = 1, .sigmoid = true});  // a shared expert's
  for (const bool sigmoid : {false, true}) {
    for (const bool normalize : {false, true}) AddChoiceCases(add, sigmoid, normalize);
  }
}

// ---- GroupedMatmul

enum class Choice { kAny, kOne, kOdd };

struct GroupedCase {
  DType dtype;
  int tokens, slots, experts, n, k;
  Choice choice = Choice::kAny;  // kOne: all rows the last expert, kOdd: of the odd ones alone
  bool per_slot = false;         // x has a row a slot
  bool bias = false;
  int parts = 1;         // that the weight's rows come in, wherever experts end
  bool nan_row = false;  // the first row of x has a NaN
};

std::string NameOf(const GroupedCase& c) {
  std::string name = StrCat("GroupedMatmul_", Info(c.dtype).name, "_t", c.tokens, "_s", c.slots,
                            "_e", c.experts, "_n", c.n, "_k", c.k);
  if (c.choice == Choice::kOne) name += "_one";
  if (c.choice == Choice::kOdd) name += "_odd";
  if (c.per_slot) name += "_per_slot";
  if (c.bias) name += "_bias";
  if (c.parts > 1) StrAppend(&name, "_parts", c.parts);
  if (c.nan_row) name += "_nan";
  return name;
}

std::vector<int32_t> ChooseExperts(CaseRun& run, const GroupedCase& c) {
  std::vector<int32_t> expert;
  for (int t = 0; t < c.tokens; ++t) {
    const std::vector<int32_t> order = run.random().Permutation(c.experts);
    for (int j = 0; j < c.slots; ++j) {
      const int e = order[j % c.experts];
      expert.push_back(c.choice == Choice::kOne   ? c.experts - 1
                       : c.choice == Choice::kOdd ? e | 1
                                                  : e);
    }
  }
  return expert;
}

struct GroupedData {
  std::vector<float> x, bias;
  std::vector<int32_t> expert;
  std::vector<std::byte> weight;
};

// As of Matmul, of the chosen expert's rows.
FloatBound BoundOf(CaseRun& run, const GroupedCase& c, const GroupedData& data) {
  const double sum_rounding = (c.k + 4) * kFloatRounding;
  const double input_rounding = MatmulRounding(run.info().numerics);
  FloatBound bound = {{}, MatmulNmse(run.info().numerics)};
  for (int p = 0; p < c.tokens * c.slots; ++p) {
    const float* x = data.x.data() + (c.per_slot ? p : p / c.slots) * c.k;
    for (int n = 0; n < c.n; ++n) {
      const int64_t row = int64_t{data.expert[p]} * c.n + n;
      double magnitude = 0;
      for (int k = 0; k < c.k; ++k) {
        magnitude += std::fabs(double{x[k]}) *
                     reference::ElementMagnitude(c.dtype, data.weight.data(), row * c.k + k);
      }
      const double bias = c.bias ? std::fabs(data.bias[row]) : 0;
      bound.max_error.push_back(sum_rounding * (magnitude + bias) + input_rounding * magnitude);
    }
  }
  if (c.nan_row) bound.max_nmse = 0;  // no ratio of NaN
  return bound;
}

// The rows cut into parts of about as many.
std::vector<std::vector<std::byte>> InParts(const GroupedCase& c,
                                            const std::vector<std::byte>& weight) {
  const int rows = c.experts * c.n;
  const auto row_bytes = static_cast<int64_t>(RowBytes(c.dtype, c.k));
  std::vector<std::vector<std::byte>> parts;
  for (int p = 0; p < c.parts; ++p) {
    parts.emplace_back(weight.begin() + rows * p / c.parts * row_bytes,
                       weight.begin() + rows * (p + 1) / c.parts * row_bytes);
  }
  return parts;
}

void BuildGroupedMatmul(CaseRun& run, const GroupedCase& c) {
  const int x_rows = c.tokens * (c.per_slot ? c.slots : 1), pairs = c.tokens * c.slots;
  GroupedData data;
  data.x = run.Rounded(run.random().Normals(int64_t{x_rows} * c.k));
  data.expert = ChooseExperts(run, c);
  data.weight = RandomWeights(run.random(), c.dtype, int64_t{c.experts} * c.n * c.k,
                              1 / std::sqrt(static_cast<float>(c.k)));
  if (c.bias) data.bias = run.random().Normals(int64_t{c.experts} * c.n);
  const FloatBound bound = BoundOf(run, c, data);
  if (c.nan_row) data.x[c.k / 2] = kNaN;
  GroupedMatmulArgs args = {
      .x = run.Activations(data.x, {x_rows, c.k}),
      .expert = run.Ints(data.expert, {c.tokens, c.slots}),
      .weight = run.Weight(c.dtype, c.k, InParts(c, data.weight), false, c.experts),
      .out = run.OutputActivations("out", {pairs, c.n}, bound)};
  if (c.bias) args.bias = run.Floats(data.bias, {c.experts, c.n});
  run.Launch([args](const Ops& ops, Stream& stream) { ops.GroupedMatmul(stream, args); });
}

void AddGroupedCases(std::vector<OpCase>& cases) {
  // k below is for blocks of 32 elements; larger blocks get as many.
  const auto add = [&](GroupedCase c) {
    if (Info(c.dtype).block_elements > 32) c.k *= Info(c.dtype).block_elements / 32;
    cases.push_back(
        {"GroupedMatmul", NameOf(c), c.dtype, [c](CaseRun& run) { BuildGroupedMatmul(run, c); }});
  };
  for (const DType d : kWeightTypes) {
    for (const int tokens : {0, 1, 3, 17}) add({d, tokens, 2, 5, 19, 64});
    add({d, 1, 8, 16, 33, 96});
    add({d, 1, 1, 1, 16, 32});
    add({.dtype = d, .tokens = 5, .slots = 8, .experts = 8, .n = 17, .k = 64, .per_slot = true});
    add({.dtype = d, .tokens = 17, .slots = 1, .experts = 3, .n = 35, .k = 64, .bias = true});
    add({.dtype = d,
         .tokens = 33,
         .slots = 2,
         .experts = 4,
         .n = 16,
         .k = 96,
         .choice = Choice::kOne});
    add({.dtype = d,
         .tokens = 17,
         .slots = 2,
         .experts = 10,
         .n = 21,
         .k = 32,
         .choice = Choice::kOdd,
         .per_slot = true,
         .bias = true,
         .parts = 3});
    add({.dtype = d,
         .tokens = 2,
         .slots = 2,
         .experts = 4,
         .n = 1,
         .k = 32,
         .choice = Choice::kOdd,
         .bias = true,
         .parts = 4});
    add({.dtype = d, .tokens = 6, .slots = 2, .experts = 2, .n = 20, .k = 64, .nan_row = true});
    add({.dtype = d, .tokens = 40, .slots = 2, .experts = 2, .n = 65, .k = 64});
    if (IsQuantized(d)) continue;
    for (const int k : {1, 33, 100}) {
      add({.dtype = d, .tokens = 1, .slots = 2, .experts = 3, .n = 7, .k = k});
      add({.dtype = d, .tokens = 9, .slots = 2, .experts = 3, .n = 7, .k = k, .per_slot = true});
    }
  }
}

// ---- CombineExperts

struct CombineCase {
  int tokens, slots, hidden;
  bool accumulate = false;
  bool nan_weight = false;  // of the first token
};

// slots products and as many sums, of which each is at most the sum of absolute values.
void BuildCombine(CaseRun& run, const CombineCase& c) {
  const std::vector<float> x =
      run.Rounded(run.random().Normals(int64_t{c.tokens} * c.slots * c.hidden));
  std::vector<float> weight = run.random().Normals(int64_t{c.tokens} * c.slots);
  std::vector<float> before;
  if (c.accumulate) before = run.Rounded(run.random().Normals(int64_t{c.tokens} * c.hidden));
  FloatBound bound;
  for (int t = 0; t < c.tokens; ++t) {
    for (int i = 0; i < c.hidden; ++i) {
      double magnitude = c.accumulate ? std::fabs(before[t * c.hidden + i]) : 0;
      for (int p = t * c.slots; p < (t + 1) * c.slots; ++p) {
        magnitude += std::fabs(double{weight[p]} * x[p * c.hidden + i]);
      }
      bound.max_error.push_back((c.slots + 3) * kFloatRounding * magnitude);
    }
  }
  if (c.nan_weight) weight[c.slots - 1] = kNaN;
  const CombineExpertsArgs args = {
      .x = run.Activations(x, {c.tokens * c.slots, c.hidden}),
      .weight = run.Floats(weight, {c.tokens, c.slots}),
      .out = run.OutputActivations("out", {c.tokens, c.hidden}, bound, before),
      .accumulate = c.accumulate};
  run.Launch([args](const Ops& ops, Stream& stream) { ops.CombineExperts(stream, args); });
}

void AddCombineCases(std::vector<OpCase>& cases) {
  const auto add = [&](const CombineCase& c) {
    cases.push_back({"CombineExperts",
                     StrCat("CombineExperts_t", c.tokens, "_s", c.slots, "_h", c.hidden,
                            c.accumulate ? "_accumulate" : "", c.nan_weight ? "_nan" : ""),
                     std::nullopt, [c](CaseRun& run) { BuildCombine(run, c); }});
  };
  for (const bool accumulate : {false, true}) {
    for (const int hidden : {1, 2, 15, 17, 255, 257, 513, 1100}) add({3, 2, hidden, accumulate});
    for (const int slots : {1, 3, 8, 32}) add({2, slots, 33, accumulate});
    for (const int tokens : {0, 1, 17, 65}) add({tokens, 4, 40, accumulate});
    add({4, 3, 24, accumulate, true});
  }
}

}  // namespace

void AddExpertCases(std::vector<OpCase>& cases) {
  AddRouteCases(cases);
  AddGroupedCases(cases);
  AddCombineCases(cases);
}

}  // namespace fairlead

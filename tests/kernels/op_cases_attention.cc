// SPDX-License-Identifier: Apache-2.0
// RopeAndWriteKv and Attention. The cache's layout belongs to the device, so what was written there
// is checked by attending to it: with one key the result is the value itself, with several the keys
// decide the weights.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/strings.h"
#include "tests/kernels/op_cases.h"

namespace fairlead {
namespace {

// Half an ulp of 1 in the cache's dtype; in f16 where that is exact, as numerics may take it for
// other values.
double HalfRounding(DType kv_dtype) {
  return kv_dtype == DType::kF8_E4M3 ? 0x1p-4 : kv_dtype == DType::kBF16 ? 0x1p-8 : 0x1p-11;
}

// [positions, rotary_dim]: cosines, then sines, of the usual frequencies.
std::vector<float> CosSin(int positions, int rotary_dim) {
  std::vector<float> table(static_cast<size_t>(positions) * rotary_dim);
  for (int p = 0; p < positions; ++p) {
    for (int i = 0; i < rotary_dim / 2; ++i) {
      const double angle = p * std::pow(10000.0, -2.0 * i / rotary_dim);
      table[p * rotary_dim + i] = static_cast<float>(std::cos(angle));
      table[p * rotary_dim + rotary_dim / 2 + i] = static_cast<float>(std::sin(angle));
    }
  }
  return table;
}

constexpr float kNormEpsilon = 1e-5f;

// Of the elements of a head's norm, relative: its squares are summed by head_dim roundings, whose
// error the root halves, four operations follow, and the reference stores it.
double NormError(int head_dim) { return (head_dim / 2.0 + 8) * kFloatRounding; }

std::vector<float> NormWeight(CaseRun& run, int head_dim) {
  std::vector<float> weight = run.random().Normals(head_dim, 0.3f);
  for (float& w : weight) w += 1;
  return weight;
}

// x / rms * weight; without a weight as it is.
std::vector<double> Normed(const float* x, const std::vector<float>& weight, int head_dim) {
  std::vector<double> y(x, x + head_dim);
  if (weight.empty()) return y;
  double squares = 0;
  for (const double v : y) squares += v * v;
  const double rms = std::sqrt(squares / head_dim + kNormEpsilon);
  for (int i = 0; i < head_dim; ++i) y[i] *= weight[i] / rms;
  return y;
}

struct RopeCase {
  int tokens, heads, kv_heads, head_dim, rotary_dim;
  RopePairing pairing;
  bool norm = false;
};

// q: two products and a sum round at most 3 times relative to |a cos| + |b sin|, of what a norm may
// have rounded; elements that do not rotate and v keep their value; k is unspecified.
FloatBound RopeBound(const RopeCase& c, const std::vector<float>& qkv,
                     const std::vector<int32_t>& position, const std::vector<float>& cos_sin,
                     const std::vector<float>& q_norm) {
  FloatBound bound = {std::vector<double>(qkv.size()), 0};
  const double norm_error = c.norm ? NormError(c.head_dim) : 0;
  const int half = c.rotary_dim / 2;
  size_t at = 0;
  for (int t = 0; t < c.tokens; ++t) {
    const float* row = cos_sin.data() + position[t] * c.rotary_dim;
    for (int h = 0; h < c.heads + 2 * c.kv_heads; ++h, at += c.head_dim) {
      double* out = bound.max_error.data() + at;
      if (h >= c.heads && h < c.heads + c.kv_heads) {
        std::fill_n(out, c.head_dim, std::numeric_limits<double>::infinity());
      }
      if (h >= c.heads) continue;
      const std::vector<double> q = Normed(qkv.data() + at, q_norm, c.head_dim);
      for (int i = c.rotary_dim; i < c.head_dim; ++i) out[i] = norm_error * std::fabs(q[i]);
      for (int i = 0; i < half; ++i) {
        const int a = c.pairing == RopePairing::kHalves ? i : 2 * i;
        const int b = c.pairing == RopePairing::kHalves ? i + half : 2 * i + 1;
        const double x = std::fabs(q[a]), y = std::fabs(q[b]);
        const double cos = std::fabs(row[i]), sin = std::fabs(row[half + i]);
        out[a] = (3 * kFloatRounding + norm_error) * (x * cos + y * sin);
        out[b] = (3 * kFloatRounding + norm_error) * (y * cos + x * sin);
      }
    }
  }
  return bound;
}

void BuildRope(CaseRun& run, const RopeCase& c) {
  constexpr int kPositions = 300;
  const int all_heads = c.heads + 2 * c.kv_heads;
  const KvShape shape = {c.kv_heads, c.head_dim, 16};
  const int num_blocks = c.tokens / 16 + 2;
  const std::vector<float> cos_sin = CosSin(kPositions, c.rotary_dim);
  const std::vector<float> qkv =
      run.Rounded(run.random().Normals(int64_t{c.tokens} * all_heads * c.head_dim));
  std::vector<int32_t> position, slot = run.random().Permutation(num_blocks * 16);
  slot.resize(c.tokens);
  for (int t = 0; t < c.tokens; ++t) position.push_back(run.random().Int(0, kPositions - 1));
  if (c.tokens > 2) position[0] = 0, position[1] = kPositions - 1, slot[2] = -1;
  std::vector<float> q_norm;
  if (c.norm) q_norm = NormWeight(run, c.head_dim);
  RopeAndWriteKvArgs args = {
      .qkv = run.OutputActivations("qkv", {c.tokens, all_heads, c.head_dim},
                                   RopeBound(c, qkv, position, cos_sin, q_norm), qkv),
      .position = run.Ints(position, {c.tokens}),
      .kv_slot = run.Ints(slot, {c.tokens}),
      .cos_sin = run.Floats(cos_sin, {kPositions, c.rotary_dim}),
      .kv = run.Kv(shape, num_blocks),
      .heads = c.heads,
      .pairing = c.pairing};
  if (c.norm) {
    args.q_norm = run.Floats(q_norm, {c.head_dim});
    args.k_norm = run.Floats(NormWeight(run, c.head_dim), {c.head_dim});
    args.norm_epsilon = kNormEpsilon;
  }
  run.Launch([args](const Ops& ops, Stream& stream) { ops.RopeAndWriteKv(stream, args); });
}

struct Row {
  int context, queries;
};

struct AttentionCase {
  std::string name;
  int heads, kv_heads, head_dim, block_tokens;
  std::vector<Row> seqs;
  RopePairing pairing = RopePairing::kHalves;
  int rotary_dim = 0;   // 0: head_dim
  float sharpness = 1;  // scale * sqrt(head_dim)
  bool poison = false;  // slots beyond each context hold NaN, as a reused block may
  int window = 0;
  float soft_cap = 0;
  bool sinks = false;
  bool norm = false;  // of q's and k's heads
  bool causal = true;
};

// Cache blocks of every sequence, shuffled; unused table entries are -1.
struct Layout {
  int max_blocks = 1, num_blocks = 0;
  std::vector<int32_t> table;  // [seqs, max_blocks]
  std::vector<int> gone;       // of a sequence, leading blocks that no row sees

  int64_t Slot(const AttentionCase& c, size_t seq, int position) const {
    return int64_t{table[seq * max_blocks + position / c.block_tokens]} * c.block_tokens +
           position % c.block_tokens;
  }
};

Layout MakeLayout(CaseRun& run, const AttentionCase& c) {
  Layout layout;
  int used = 0;
  for (const Row& row : c.seqs) {
    const int blocks = (row.context + c.block_tokens - 1) / c.block_tokens;
    layout.max_blocks = std::max(layout.max_blocks, blocks + 1);
    used += blocks;
  }
  layout.num_blocks = used + 2;
  const std::vector<int32_t> order = run.random().Permutation(layout.num_blocks);
  layout.table.assign(c.seqs.size() * layout.max_blocks, -1);
  int next = 0;
  for (size_t s = 0; s < c.seqs.size(); ++s) {
    const int blocks = (c.seqs[s].context + c.block_tokens - 1) / c.block_tokens;
    // Blocks that lie before every row's window may be given back.
    const int first_seen = c.seqs[s].context - c.seqs[s].queries - c.window + 1;
    const int gone = c.window > 0 ? std::max(0, first_seen / c.block_tokens) : 0;
    for (int b = 0; b < blocks; ++b) layout.table[s * layout.max_blocks + b] = order[next++];
    layout.gone.push_back(gone);
  }
  return layout;
}

class AttentionBuilder {
 public:
  AttentionBuilder(CaseRun& run, const AttentionCase& c)
      : run_(run),
        c_(c),
        layout_(MakeLayout(run, c)),
        kv_(run.Kv({c.kv_heads, c.head_dim, c.block_tokens}, layout_.num_blocks)) {
    for (const Row& row : c.seqs) positions_ = std::max(positions_, row.context);
    const int rotary_dim = c.rotary_dim > 0 ? c.rotary_dim : c.head_dim;
    cos_sin_ = run.Floats(CosSin(positions_, rotary_dim), {positions_, rotary_dim});
    if (c.norm) {
      q_norm_ = NormWeight(run, c.head_dim);
      k_norm_ = NormWeight(run, c.head_dim);
    }
  }

  void Build() {
    if (c_.poison) WriteEverySlot(std::numeric_limits<float>::quiet_NaN());
    WriteTokens(/*earlier=*/true);
    const Tensor qkv = WriteTokens(/*earlier=*/false);
    if (c_.poison) WriteNowhere(std::numeric_limits<float>::quiet_NaN());
    const int tokens = static_cast<int>(qkv.dim[0]), seqs = static_cast<int>(c_.seqs.size());
    std::vector<int32_t> query_start = {0}, context;
    for (const Row& row : c_.seqs) {
      query_start.push_back(query_start.back() + row.queries);
      context.push_back(row.context);
    }
    const AttentionArgs args = {
        .qkv = qkv,
        .out = run_.OutputActivations("out", {tokens, int64_t{c_.heads} * c_.head_dim},
                                      Bound(int64_t{tokens} * c_.heads * c_.head_dim)),
        .kv = kv_,
        .query_start = run_.Ints(query_start, {seqs + 1}),
        .context_tokens = run_.Ints(context, {seqs}),
        .block_table = run_.Ints(SeenBlocks(), {seqs, layout_.max_blocks}),
        .heads = c_.heads,
        .scale = Scale(),
        .window = c_.window,
        .causal = c_.causal,
        .soft_cap = c_.soft_cap,
        .sinks = c_.sinks ? run_.Floats(run_.random().Normals(c_.heads, 2), {c_.heads}) : Tensor()};
    run_.Launch([args](const Ops& ops, Stream& stream) { ops.Attention(stream, args); });
  }

 private:
  // The table without those that are gone.
  std::vector<int32_t> SeenBlocks() const {
    std::vector<int32_t> table = layout_.table;
    for (size_t s = 0; s < c_.seqs.size(); ++s) {
      std::fill_n(table.begin() + s * layout_.max_blocks, layout_.gone[s], -1);
    }
    return table;
  }

  float Scale() const { return c_.sharpness / std::sqrt(static_cast<float>(c_.head_dim)); }

  // Rotates q and k and writes the cache; the tensor keeps the rotated q.
  Tensor Write(const std::vector<float>& qkv, const std::vector<int32_t>& position,
               const std::vector<int32_t>& slot) {
    const int tokens = static_cast<int>(slot.size());
    RopeAndWriteKvArgs args = {
        .qkv = run_.OutputActivations(
            "qkv", {tokens, c_.heads + 2 * c_.kv_heads, c_.head_dim},
            {std::vector<double>(qkv.size(), std::numeric_limits<double>::infinity()), 0}, qkv),
        .position = run_.Ints(position, {tokens}),
        .kv_slot = run_.Ints(slot, {tokens}),
        .cos_sin = cos_sin_,
        .kv = kv_,
        .heads = c_.heads,
        .pairing = c_.pairing};
    if (c_.norm) {
      args.q_norm = run_.Floats(q_norm_, {c_.head_dim});
      args.k_norm = run_.Floats(k_norm_, {c_.head_dim});
      args.norm_epsilon = kNormEpsilon;
    }
    run_.Now([&args](const Ops& ops, Stream& stream) { ops.RopeAndWriteKv(stream, args); });
    return args.qkv;
  }

  void WriteEverySlot(float value) {
    const int tokens = layout_.num_blocks * c_.block_tokens;
    std::vector<int32_t> slot;
    for (int i = 0; i < tokens; ++i) slot.push_back(i);
    Write(std::vector<float>(int64_t{tokens} * RowElements(), value),
          std::vector<int32_t>(tokens, 0), slot);
  }

  void WriteNowhere(float value) {
    Write(std::vector<float>(3 * RowElements(), value), {0, 0, 0}, {-1, -1, -1});
  }

  Tensor WriteTokens(bool earlier) {
    std::vector<int32_t> position, slot;
    for (size_t s = 0; s < c_.seqs.size(); ++s) {
      const int first = c_.seqs[s].context - c_.seqs[s].queries;
      for (int p = earlier ? 0 : first; p < (earlier ? first : c_.seqs[s].context); ++p) {
        position.push_back(p);
        slot.push_back(static_cast<int32_t>(layout_.Slot(c_, s, p)));
      }
    }
    const std::vector<float> qkv =
        run_.Rounded(run_.random().Normals(static_cast<int64_t>(slot.size()) * RowElements()));
    for (size_t at = 0; at < qkv.size(); at += c_.head_dim) {
      for (const std::vector<float>& weight : {q_norm_, k_norm_}) {
        double squares = 0;
        for (const double v : Normed(qkv.data() + at, weight, c_.head_dim)) squares += v * v;
        largest_norm_ = std::max(largest_norm_, std::sqrt(squares));
      }
    }
    for (const float v : qkv) largest_value_ = std::max<double>(largest_value_, std::fabs(v));
    return Write(qkv, position, slot);
  }

  // A soft cap c adds the errors of a quotient, a hyperbolic tangent (3 ulp) and a product, c at
  // most. A score is at most S = scale * |q| * |k|; its error d moves a weight by a factor of exp(2
  // d) (numerator and sum) and the result by 2 d * the largest value. Scores: head_dim products,
  // f16 keys where the device and the reference round a rotated key apart, and f16 q and weights
  // that numerics other than float32 may use; norms round q and k before. Then the weighted sum.
  FloatBound Bound(int64_t elements) const {
    const bool exact = run_.info().numerics == Numerics::kFloat32;
    const double half = exact ? 0 : HalfRounding(run_.info().kv_dtype);
    const double largest_score = Scale() * largest_norm_ * largest_norm_;
    double score_error = largest_score * ((c_.head_dim + 8) * kFloatRounding + 2 * half);
    score_error += c_.soft_cap * 8 * kFloatRounding;
    if (c_.norm) score_error += largest_score * 2 * NormError(c_.head_dim);
    const double sum_error = (positions_ + 32) * kFloatRounding + 2 * half;
    const double max_error = largest_value_ * (2 * score_error + sum_error);
    // The errors of a typical score are the square root of head_dim below the largest one's, and
    // independent.
    const double rounding = half + (c_.norm ? NormError(c_.head_dim) : 4 * kFloatRounding);
    const double typical = largest_score / std::sqrt(c_.head_dim) * rounding;
    const double max_nmse = 4 * typical * typical + (exact ? 1e-11 : 4 * half * half);
    return {std::vector<double>(static_cast<size_t>(elements), max_error), max_nmse};
  }

  int64_t RowElements() const { return int64_t{c_.heads + 2 * c_.kv_heads} * c_.head_dim; }

  CaseRun& run_;
  const AttentionCase& c_;
  Layout layout_;
  PagedKv kv_;
  Tensor cos_sin_;
  std::vector<float> q_norm_, k_norm_;
  int positions_ = 1;
  double largest_norm_ = 0, largest_value_ = 0;
};

std::vector<AttentionCase> ShapeCases() {
  std::vector<AttentionCase> list;
  const std::vector<Row> mixed = {{33, 1}, {17, 17}, {1, 1}, {50, 9}};
  int group = 1;
  for (const int head_dim : {16, 20, 32, 48, 64, 80, 96, 112, 128, 192, 256}) {
    for (const int kv_heads : {1, 2}) {
      list.push_back({StrCat("d", head_dim, "_h", group * kv_heads, "_kv", kv_heads),
                      group * kv_heads, kv_heads, head_dim, 16, mixed});
      group = group % 8 + 1;
    }
  }
  for (int g = 1; g <= 8; ++g) {
    list.push_back({StrCat("group", g), 3 * g, 3, 64, 16, {{40, 1}, {21, 4}}});
  }
  for (const int g : {9, 12, 16}) {
    list.push_back({StrCat("group", g), 2 * g, 2, g == 12 ? 256 : 32, 16, {{300, 1}, {21, 4}}});
  }
  for (const int context :
       {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 513, 1025}) {
    list.push_back({StrCat("decode", context), 4, 2, 32, 16, {{context, 1}}});
  }
  for (const int tokens : {1, 2, 15, 16, 17, 31, 33, 64, 65, 130}) {
    list.push_back({StrCat("prefill", tokens), 4, 2, 32, 16, {{tokens, tokens}}});
    list.push_back({StrCat("chunk", tokens), 4, 2, 32, 16, {{tokens + 37, tokens}}});
  }
  for (const int block_tokens : {16, 32, 48, 64, 128}) {
    list.push_back({StrCat("block", block_tokens),
                    4,
                    2,
                    32,
                    block_tokens,
                    {{block_tokens - 1, 1}, {block_tokens, 1}, {block_tokens + 1, 3}, {150, 5}}});
  }
  return list;
}

void AddOtherCases(std::vector<AttentionCase>& list) {
  list.push_back({"no_seqs", 4, 2, 32, 16, {}});
  list.push_back({"no_queries", 4, 2, 32, 16, {{20, 1}, {5, 0}, {33, 2}, {16, 0}}});
  std::vector<Row> many;
  for (int s = 0; s < 33; ++s) many.push_back({1 + 5 * s % 67, 1});
  list.push_back({"many_decodes", 6, 2, 48, 16, many});
  list.push_back(
      {"ragged", 8, 2, 64, 16, {{90, 1}, {40, 40}, {17, 1}, {16, 16}, {100, 33}, {1, 1}, {15, 2}}});
  list.push_back({"poison", 4, 2, 64, 16, {{1, 1}, {17, 1}, {15, 15}, {40, 7}}});
  list.back().poison = true;
  for (const RopePairing pairing : {RopePairing::kHalves, RopePairing::kAdjacent}) {
    const std::string suffix = pairing == RopePairing::kHalves ? "halves" : "adjacent";
    for (const int rotary_dim : {64, 48, 32, 2}) {
      list.push_back({StrCat("rotary", rotary_dim, "_", suffix),
                      4,
                      2,
                      64,
                      16,
                      {{50, 3}, {20, 20}},
                      pairing,
                      rotary_dim});
    }
  }
  for (const float sharpness : {0.0f, 0.1f, 8.0f, 60.0f}) {
    list.push_back(
        {StrCat("sharpness", static_cast<int>(10 * sharpness)), 4, 2, 64, 16, {{80, 3}, {20, 20}}});
    list.back().sharpness = sharpness;
  }
}

void AddMaskAndScoreCases(std::vector<AttentionCase>& list) {
  const std::vector<Row> mixed = {{300, 1}, {150, 20}, {5, 5}, {270, 3}, {1, 1}};
  for (const int window : {1, 2, 16, 31, 128, 129, 255, 299, 300, 1000}) {
    list.push_back({StrCat("window", window), 4, 2, 32, 16, mixed});
    list.back().window = window;
    list.back().poison = window == 31;
  }
  for (const float cap : {0.5f, 5.0f, 50.0f}) {
    list.push_back({StrCat("soft_cap", static_cast<int>(10 * cap)), 4, 2, 64, 16, mixed});
    list.back().soft_cap = cap;
    list.back().sharpness = 4;
  }
  for (const int head_dim : {32, 192}) {
    list.push_back({StrCat("sinks_d", head_dim), 6, 2, head_dim, 32, mixed});
    list.back().sinks = true;
  }
  const std::vector<Row> few = {{33, 1}, {17, 17}, {5, 5}};
  for (const int head_dim : {20, 64, 80, 256}) {
    for (const RopePairing pairing : {RopePairing::kHalves, RopePairing::kAdjacent}) {
      const char* suffix = pairing == RopePairing::kHalves ? "_halves" : "_adjacent";
      list.push_back({StrCat("norm_d", head_dim, suffix), 4, 2, head_dim, 16, few, pairing});
      list.back().rotary_dim = head_dim / 4 * 2;
      list.back().norm = true;
      list.back().poison = head_dim == 80;
    }
  }
  list.push_back({"window_soft_cap_sinks", 16, 2, 64, 16, mixed});
  list.back().window = 140;
  list.back().soft_cap = 30;
  list.back().sinks = true;
}

void AddBidirectionalCases(std::vector<AttentionCase>& list) {
  const auto add = [&](const std::string& suffix, int heads, int head_dim, std::vector<Row> seqs) {
    list.push_back({StrCat("bidirectional_", suffix), heads, 2, head_dim, 16, std::move(seqs)});
    list.back().causal = false;
  };
  const std::vector<Row> whole = {{33, 33}, {1, 1}, {17, 17}, {140, 140}, {4, 4}};
  for (const int head_dim : {20, 32, 64, 128, 192}) add(StrCat("d", head_dim), 4, head_dim, whole);
  for (const int tokens : {1, 2, 8, 9, 48, 49, 128, 129, 256, 257, 300}) {
    add(StrCat("t", tokens), 4, 32, {{tokens, tokens}});
  }
  // Some rows of what a sequence has: a split's border before, among and after them.
  add("some_rows", 6, 48, {{270, 3}, {300, 20}, {256, 1}, {129, 2}, {600, 9}, {20, 0}});
  add("poison", 4, 64, {{1, 1}, {15, 15}, {17, 17}, {40, 7}});
  list.back().poison = true;
  add("soft_cap_sinks", 16, 64, {{260, 260}, {5, 5}});
  list.back().soft_cap = 5;
  list.back().sinks = true;
}

}  // namespace

void AddRopeCases(std::vector<OpCase>& cases) {
  const auto add = [&](const RopeCase& c) {
    const bool halves = c.pairing == RopePairing::kHalves;
    cases.push_back(
        {"RopeAndWriteKv",
         StrCat("RopeAndWriteKv_t", c.tokens, "_h", c.heads, "_kv", c.kv_heads, "_d", c.head_dim,
                "_r", c.rotary_dim, halves ? "_halves" : "_adjacent", c.norm ? "_norm" : ""),
         std::nullopt, [c](CaseRun& run) { BuildRope(run, c); }});
  };
  for (const RopePairing pairing : {RopePairing::kHalves, RopePairing::kAdjacent}) {
    for (const int d : {16, 20, 32, 48, 64, 80, 96, 112, 128, 192, 256}) {
      add({5, 3, 1, d, d, pairing});
      add({3, 4, 2, d, d / 4 * 2, pairing});
      add({3, 2, 2, d, 2, pairing});
      add({3, 2, 1, d, 0, pairing});
    }
    for (const int tokens : {0, 1, 15, 16, 17, 65}) add({tokens, 4, 2, 32, 32, pairing});
    for (int group = 1; group <= 8; ++group) add({4, 2 * group, 2, 32, 24, pairing});
    for (const int d : {2, 16, 20, 48, 64, 80, 128, 192, 254, 256}) {
      add({5, 3, 1, d, d, pairing, true});
      add({3, 4, 2, d, std::max(d / 4 * 2, 2), pairing, true});
    }
    for (const int tokens : {0, 1, 17}) add({tokens, 14, 2, 64, 62, pairing, true});
  }
}

void AddAttentionCases(std::vector<OpCase>& cases) {
  std::vector<AttentionCase> list = ShapeCases();
  AddOtherCases(list);
  AddMaskAndScoreCases(list);
  AddBidirectionalCases(list);
  for (const AttentionCase& c : list) {
    cases.push_back({"Attention", "Attention_" + c.name, std::nullopt,
                     [c](CaseRun& run) { AttentionBuilder(run, c).Build(); }});
  }
}

}  // namespace fairlead

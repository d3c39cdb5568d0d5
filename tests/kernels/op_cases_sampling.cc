// SPDX-License-Identifier: Apache-2.0
// Sample and Logprobs: every parameter alone and together, edits, masks, ties, and rows that cannot
// be sampled.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/strings.h"
#include "tests/kernels/op_cases.h"
#include "tests/reference/reference_sampling.h"

namespace fairlead {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Params {
  float temperature = 1;
  int top_k = 0;
  float top_p = 1, min_p = 0;
};

enum class Logits { kNormal, kFlat, kPeaked, kTied, kMasked, kUnusable };

struct SampleCase {
  std::string name;
  int rows, vocab;
  std::vector<Params> params;  // row r has params[r % size]
  Logits logits = Logits::kNormal;
  int edits_per_row = 0;  // rows alternate between this many and none
  bool masks = false;
};

std::vector<float> MakeLogits(CaseRun& run, Logits kind, int rows, int vocab) {
  std::vector<float> l = run.random().Normals(int64_t{rows} * vocab, 3);
  for (int r = 0; r < rows; ++r) {
    float* row = l.data() + r * vocab;
    const int at = run.random().Int(0, vocab - 1);
    switch (kind) {
      case Logits::kNormal:
        break;
      case Logits::kFlat:
        std::fill_n(row, vocab, -2.5f);
        break;
      case Logits::kPeaked:
        row[at] += 40;
        break;
      case Logits::kTied:  // few distinct values, so that every cut falls among equals
        for (int i = 0; i < vocab; ++i) row[i] = static_cast<float>(run.random().Int(-2, 2));
        break;
      case Logits::kMasked:
        for (int i = 0; i < vocab; ++i) {
          if (i != at && run.random().Int(0, 3) > 0) row[i] = -kInfinity;
        }
        break;
      case Logits::kUnusable: {
        const float bad[] = {kNaN, kInfinity, -kNaN};
        if (r % 4 == 3)
          std::fill_n(row, vocab, -kInfinity);
        else
          row[r % 2 == 0 ? at : vocab - 1] = bad[r % 4];
        if (r % 8 == 4) std::fill_n(row, vocab, 1.0f);  // a good one among them
        break;
      }
    }
  }
  return l;
}

struct EditData {
  std::vector<int32_t> start = {0}, token;
  std::vector<float> repetition, add;
};

EditData MakeEdits(CaseRun& run, const SampleCase& c) {
  EditData edits;
  for (int r = 0; r < c.rows; ++r) {
    const std::vector<int32_t> order = run.random().Permutation(c.vocab);
    const int count = r % 2 == 0 ? std::min(c.edits_per_row, c.vocab) : 0;
    for (int e = 0; e < count; ++e) {
      const float repetitions[] = {1, 1.3f, 0.7f, 2};
      edits.token.push_back(order[e]);
      edits.repetition.push_back(repetitions[run.random().Int(0, 3)]);
      edits.add.push_back(run.random().Int(0, 5) == 0 ? -kInfinity : 2 * run.random().Normal());
    }
    edits.start.push_back(static_cast<int32_t>(edits.token.size()));
  }
  return edits;
}

struct MaskData {
  std::vector<int32_t> allowed, row;
};

// Of all tokens in turn: about a half, one in 32, one, none, all; and rows without a mask. Bits
// after the last token mean nothing.
MaskData MakeMasks(CaseRun& run, const SampleCase& c) {
  constexpr int kMasks = 5;
  const int words = (c.vocab + 31) / 32;
  MaskData masks;
  const int one = run.random().Int(0, c.vocab - 1);
  for (int m = 0; m < kMasks; ++m) {
    for (int w = 0; w < words; ++w) {
      const auto half = static_cast<uint32_t>(run.random().Next());
      const uint32_t kinds[] = {half, uint32_t{1} << half % 32,
                                one / 32 == w ? uint32_t{1} << one % 32 : 0, 0, ~uint32_t{0}};
      uint32_t word = kinds[m];
      if (w == words - 1 && c.vocab % 32 != 0 && m != 4) word |= ~uint32_t{0} << c.vocab % 32;
      masks.allowed.push_back(static_cast<int32_t>(word));
    }
  }
  for (int r = 0; r < c.rows; ++r) masks.row.push_back(r % (kMasks + 1) - 1);
  return masks;
}

// The args of a Sample, either as tensors of the device or as views of the host's own vectors.
struct SampleData {
  std::vector<float> logits, temperature, top_p, min_p;
  std::vector<int32_t> top_k, seed, position;
  EditData edits;
  MaskData masks;

  template <typename Floats, typename Ints>
  SampleArgs Args(const SampleCase& c, Floats&& floats, Ints&& ints) {
    SampleArgs args = {.logits = floats(logits, {c.rows, c.vocab}),
                       .temperature = floats(temperature, {c.rows}),
                       .top_k = ints(top_k, {c.rows}),
                       .top_p = floats(top_p, {c.rows}),
                       .min_p = floats(min_p, {c.rows}),
                       .seed = ints(seed, {c.rows, 2}),
                       .position = ints(position, {c.rows}),
                       .out = {}};
    if (c.edits_per_row > 0) {
      const int64_t entries = static_cast<int64_t>(edits.token.size());
      args.edits = {.start = ints(edits.start, {c.rows + 1}),
                    .token = ints(edits.token, {entries}),
                    .repetition = floats(edits.repetition, {entries}),
                    .add = floats(edits.add, {entries})};
    }
    if (c.masks) {
      const int64_t words = (c.vocab + 31) / 32;
      const int64_t count = static_cast<int64_t>(masks.allowed.size()) / words;
      args.allowed = ints(masks.allowed, {count, words});
      args.allowed_row = ints(masks.row, {c.rows});
    }
    return args;
  }
};

SampleData MakeSampleData(CaseRun& run, const SampleCase& c) {
  SampleData data;
  data.logits = MakeLogits(run, c.logits, c.rows, c.vocab);
  for (int r = 0; r < c.rows; ++r) {
    const Params& p = c.params[r % c.params.size()];
    data.temperature.push_back(p.temperature);
    data.top_k.push_back(p.top_k);
    data.top_p.push_back(p.top_p);
    data.min_p.push_back(p.min_p);
    data.seed.push_back(static_cast<int32_t>(run.random().Next()));
    data.seed.push_back(static_cast<int32_t>(run.random().Next()));
    data.position.push_back(run.random().Int(0, 4000));
  }
  data.edits = MakeEdits(run, c);
  if (c.masks) data.masks = MakeMasks(run, c);
  return data;
}

void BuildSample(CaseRun& run, const SampleCase& c) {
  SampleData data = MakeSampleData(run, c);
  using Dims = std::initializer_list<int64_t>;
  const SampleArgs host = data.Args(
      c, [](std::vector<float>& v, Dims d) { return Tensor(v.data(), DType::kF32, d); },
      [](std::vector<int32_t>& v, Dims d) { return Tensor(v.data(), DType::kI32, d); });
  // A running sum of vocab floats rounds vocab times; exp and the division a few times more.
  const double slack = (c.vocab + 64) * kFloatRounding;
  std::vector<std::vector<int32_t>> allowed;
  for (int r = 0; r < c.rows; ++r) {
    allowed.push_back(reference::AcceptableTokens(reference::ReadSamplingRow(host, r), slack));
  }
  SampleArgs args = data.Args(
      c, [&](const std::vector<float>& v, Dims d) { return run.Floats(v, d); },
      [&](const std::vector<int32_t>& v, Dims d) { return run.Ints(v, d); });
  args.out = run.OutputInts("out", {c.rows}, std::move(allowed));
  run.Launch([args](const Ops& ops, Stream& stream) { ops.Sample(stream, args); });
}

struct LogprobsCase {
  std::string name;
  int rows, vocab, n;
  Logits logits = Logits::kNormal;
};

// The sum rounds vocab times, relative to the logprob it is an absolute error; the difference of
// two floats and the subtraction of the logarithm round relative to the logits (up to 45 here).
void BuildLogprobs(CaseRun& run, const LogprobsCase& c) {
  const double max_error = (c.vocab + 4 * 64 + 64) * kFloatRounding;
  const auto bound = [&](int64_t count) {
    return FloatBound{std::vector<double>(static_cast<size_t>(count), max_error), 0};
  };
  const std::vector<float> logits = MakeLogits(run, c.logits, c.rows, c.vocab);
  std::vector<int32_t> target;
  const int32_t outside[] = {-1, c.vocab, std::numeric_limits<int32_t>::max(),
                             std::numeric_limits<int32_t>::min()};
  for (int r = 0; r < c.rows; ++r) {
    target.push_back(r % 5 == 4 ? outside[r / 5 % 4] : run.random().Int(0, c.vocab - 1));
  }
  LogprobsArgs args = {.logits = run.Floats(logits, {c.rows, c.vocab}),
                       .target = run.Ints(target, {c.rows}),
                       .out_logprob = run.OutputFloats("out_logprob", {c.rows}, bound(c.rows)),
                       .out_rank = run.OutputInts("out_rank", {c.rows})};
  if (c.n > 0) {
    args.top_token = run.OutputInts("top_token", {c.rows, c.n});
    args.top_logprob = run.OutputFloats("top_logprob", {c.rows, c.n}, bound(int64_t{c.rows} * c.n));
  }
  run.Launch([args](const Ops& ops, Stream& stream) { ops.Logprobs(stream, args); });
}

std::vector<SampleCase> SampleCases() {
  const std::vector<Params> greedy = {{.temperature = 0}};
  const std::vector<Params> every = {
      {.temperature = 0},
      {.temperature = 1},
      {.temperature = 0.6f, .top_k = 5},
      {.temperature = 1.5f, .top_p = 0.9f},
      {.temperature = 1, .min_p = 0.05f},
      {.temperature = 0.8f, .top_k = 20, .top_p = 0.95f, .min_p = 0.02f},
      {.temperature = 2, .top_k = 1},
      {.temperature = 1, .top_k = 1 << 30, .top_p = 0.5f},
      {.temperature = 1, .top_p = 0},
      {.temperature = 1, .min_p = 1},
      {.temperature = 1e-4f},
      {.temperature = 100, .top_p = 0.3f, .min_p = 0.5f}};
  std::vector<SampleCase> list;
  for (const int vocab : {1, 2, 3, 7, 8, 15, 16, 17, 63, 64, 65, 257, 1000, 5003}) {
    list.push_back({StrCat("greedy_v", vocab), 3, vocab, greedy});
    list.push_back({StrCat("all_v", vocab), 36, vocab, every});
  }
  for (const int rows : {0, 1, 15, 16, 17, 33}) {
    list.push_back({StrCat("all_r", rows), rows, 129, every});
  }
  const std::pair<const char*, Logits> kinds[] = {{"flat", Logits::kFlat},
                                                  {"peaked", Logits::kPeaked},
                                                  {"tied", Logits::kTied},
                                                  {"masked", Logits::kMasked},
                                                  {"unusable", Logits::kUnusable}};
  for (const auto& [name, kind] : kinds) {
    for (const int vocab : {2, 17, 300}) {
      list.push_back({StrCat(name, "_greedy_v", vocab), 9, vocab, greedy, kind});
      list.push_back({StrCat(name, "_v", vocab), 48, vocab, every, kind});
    }
    list.push_back({StrCat(name, "_edits"), 48, 130, every, kind, 20});
  }
  for (const int edits : {1, 16, 17, 130}) {
    list.push_back({StrCat("greedy_edits", edits), 17, 130, greedy, Logits::kNormal, edits});
    list.push_back({StrCat("all_edits", edits), 48, 130, every, Logits::kNormal, edits});
  }
  for (const int vocab : {1, 31, 32, 33, 64, 65, 130, 1000}) {
    list.push_back({StrCat("grammar_greedy_v", vocab), 12, vocab, greedy});
    list.back().masks = true;
    list.push_back({StrCat("grammar_v", vocab), 72, vocab, every});
    list.back().masks = true;
    list.push_back({StrCat("grammar_edits_v", vocab), 72, vocab, every, Logits::kNormal, 20});
    list.back().masks = true;
  }
  list.push_back({"grammar_r0", 0, 40, greedy});
  list.back().masks = true;
  for (const auto& [name, kind] : kinds) {
    list.push_back({StrCat("grammar_", name), 72, 130, every, kind, 20});
    list.back().masks = true;
  }
  // Each parameter alone, many draws.
  for (size_t i = 0; i < every.size(); ++i) {
    list.push_back({StrCat("params", i), 200, 50, {every[i]}});
  }
  return list;
}

}  // namespace

void BuildSelectTokens(CaseRun& run, int tokens, bool in_place) {
  const std::vector<int32_t> drawn = {7, -1, 0, 123456};
  std::vector<int32_t> token, source;
  std::vector<std::vector<int32_t>> expected;
  for (int t = 0; t < tokens; ++t) {
    token.push_back(run.random().Int(0, 1000));
    source.push_back(t % 5 == 4 ? -run.random().Int(1, 3) : run.random().Int(0, 3));
    expected.push_back({source[t] < 0 ? token[t] : std::max(drawn[source[t]], 0)});
  }
  const Tensor out = run.OutputInts("out", {tokens}, expected);
  SelectTokensArgs args = {.token = in_place ? out : run.Ints(token, {tokens}),
                           .source = run.Ints(source, {tokens}),
                           .drawn = run.Ints(drawn, {4}),
                           .out = out};
  if (in_place) {
    const Tensor from = run.Ints(token, {tokens}),
                 none = run.Ints(std::vector<int32_t>(tokens, -1), {tokens});
    run.Now([=](const Ops& ops, Stream& stream) {
      ops.SelectTokens(stream, {.token = from, .source = none, .drawn = args.drawn, .out = out});
    });
  }
  run.Launch([args](const Ops& ops, Stream& stream) { ops.SelectTokens(stream, args); });
}

void AddSelectTokensCases(std::vector<OpCase>& cases) {
  for (const int tokens : {0, 1, 5, 31, 33, 257, 1025}) {
    for (const bool in_place : {false, true}) {
      cases.push_back({"SelectTokens",
                       StrCat("SelectTokens_t", tokens, in_place ? "_in_place" : ""), std::nullopt,
                       [=](CaseRun& run) { BuildSelectTokens(run, tokens, in_place); }});
    }
  }
}

void AddSamplingCases(std::vector<OpCase>& cases) {
  AddSelectTokensCases(cases);
  for (const SampleCase& c : SampleCases()) {
    cases.push_back(
        {"Sample", "Sample_" + c.name, std::nullopt, [c](CaseRun& run) { BuildSample(run, c); }});
  }
  std::vector<LogprobsCase> list;
  for (const int vocab : {1, 2, 7, 15, 16, 17, 64, 65, 257, 1000, 5003}) {
    for (const int n : {0, 1, 5, 20}) {
      if (n <= vocab) list.push_back({StrCat("v", vocab, "_n", n), 11, vocab, n});
    }
    list.push_back({StrCat("v", vocab, "_all"), 3, vocab, vocab});
  }
  for (const int rows : {0, 1, 15, 16, 17, 33}) {
    list.push_back({StrCat("r", rows), rows, 100, 3});
  }
  list.push_back({"flat", 20, 100, 7, Logits::kFlat});
  list.push_back({"tied", 20, 100, 30, Logits::kTied});
  list.push_back({"peaked", 20, 100, 7, Logits::kPeaked});
  list.push_back({"masked", 20, 100, 60, Logits::kMasked});
  for (const LogprobsCase& c : list) {
    cases.push_back({"Logprobs", "Logprobs_" + c.name, std::nullopt,
                     [c](CaseRun& run) { BuildLogprobs(run, c); }});
  }
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// Sample and Logprobs on the SIMT executor, every access checked, against the reference. Weights
// are floats in the kernel and doubles in the reference, so a draw or a cut within kSlack of a
// boundary may go either way; everything else is demanded exactly.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/gpu/kernels.h"
#include "tests/reference/reference_ops.h"
#include "tests/reference/reference_sampling.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Of the mass of a row. A weight exp(-a) is off by its own rounding and that of a: at most
// (a + 4) 2^-24 of itself, which is below 2^-20 for every weight above a min_p of 1e-5.
constexpr double kSlack = 0x1p-20;

// Exactly so much memory that kernels may touch.
template <typename T>
class Global {
 public:
  explicit Global(const std::vector<T>& values)
      : size_(values.size()), data_(static_cast<T*>(simt::AllocateGlobal(size_ * sizeof(T)))) {
    std::copy(values.begin(), values.end(), data_);
  }
  ~Global() { simt::FreeGlobal(data_); }
  Global(const Global&) = delete;
  Global& operator=(const Global&) = delete;

  Tensor As(DType dtype, std::initializer_list<int64_t> dims) const {
    return Tensor(data_, dtype, dims);
  }
  std::vector<T> Values() const { return {data_, data_ + size_}; }
  bool Holds(const std::vector<T>& values) const {
    return size_ == 0 || std::memcmp(data_, values.data(), size_ * sizeof(T)) == 0;
  }

 private:
  size_t size_;
  T* data_;
};

struct Edit {
  int token;
  float repetition;
  float add;
};

struct Row {
  std::vector<float> logits;
  float temperature = 1;
  int top_k = 0;
  float top_p = 1;
  float min_p = 0;
  uint64_t seed = 0;
  int position = 0;
  std::vector<Edit> edits = {};
  std::vector<uint32_t> allowed = {};  // empty: no mask
};

struct Columns {
  std::vector<float> logits, temperature, top_p, min_p, repetition, add;
  std::vector<int32_t> top_k, seed, position, token, start = {0}, allowed_row;
  std::vector<uint32_t> allowed;

  explicit Columns(const std::vector<Row>& rows) {
    for (const Row& row : rows) {
      logits.insert(logits.end(), row.logits.begin(), row.logits.end());
      temperature.push_back(row.temperature);
      top_k.push_back(row.top_k);
      top_p.push_back(row.top_p);
      min_p.push_back(row.min_p);
      seed.push_back(static_cast<int32_t>(row.seed));
      seed.push_back(static_cast<int32_t>(row.seed >> 32));
      position.push_back(row.position);
      for (const Edit& edit : row.edits) {
        token.push_back(edit.token);
        repetition.push_back(edit.repetition);
        add.push_back(edit.add);
      }
      start.push_back(static_cast<int32_t>(token.size()));
      const size_t words = (row.logits.size() + 31) / 32;
      allowed_row.push_back(row.allowed.empty() ? -1
                                                : static_cast<int32_t>(allowed.size() / words));
      allowed.insert(allowed.end(), row.allowed.begin(), row.allowed.end());
    }
  }
};

struct Sampled {
  std::vector<int32_t> token;
  std::vector<reference::SamplingRow> row;  // as the reference reads them
};

Sampled Sample(const std::vector<Row>& rows, int64_t vocab) {
  const Columns columns(rows);
  const auto n = static_cast<int64_t>(rows.size());
  const auto entries = static_cast<int64_t>(columns.token.size());
  const Global logits(columns.logits), temperature(columns.temperature), top_p(columns.top_p),
      min_p(columns.min_p), repetition(columns.repetition), add(columns.add);
  const Global top_k(columns.top_k), seed(columns.seed), position(columns.position),
      token(columns.token), start(columns.start), allowed_row(columns.allowed_row),
      out(std::vector<int32_t>(rows.size(), -99));
  const Global allowed(columns.allowed);
  SampleArgs args = {.logits = logits.As(DType::kF32, {n, vocab}),
                     .temperature = temperature.As(DType::kF32, {n}),
                     .top_k = top_k.As(DType::kI32, {n}),
                     .top_p = top_p.As(DType::kF32, {n}),
                     .min_p = min_p.As(DType::kF32, {n}),
                     .seed = seed.As(DType::kI32, {n, 2}),
                     .position = position.As(DType::kI32, {n}),
                     .out = out.As(DType::kI32, {n})};
  if (entries > 0) {
    args.edits = {.start = start.As(DType::kI32, {n + 1}),
                  .token = token.As(DType::kI32, {entries}),
                  .repetition = repetition.As(DType::kF32, {entries}),
                  .add = add.As(DType::kF32, {entries})};
  }
  if (!columns.allowed.empty()) {
    const int64_t words = (vocab + 31) / 32;
    const int64_t masks = static_cast<int64_t>(columns.allowed.size()) / words;
    args.allowed = allowed.As(DType::kI32, {masks, words});
    args.allowed_row = allowed_row.As(DType::kI32, {n});
  }
  LaunchSample(StreamHandle{}, args);
  EXPECT_TRUE(logits.Holds(columns.logits)) << "logits were changed";
  Sampled result = {out.Values(), {}};
  for (int64_t r = 0; r < n; ++r) result.row.push_back(reference::ReadSamplingRow(args, r));
  return result;
}

std::vector<int32_t> Tokens(const std::vector<Row>& rows) {
  return Sample(rows, static_cast<int64_t>(rows[0].logits.size())).token;
}

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  int Below(int n) { return static_cast<int>(engine_() % static_cast<unsigned>(n)); }
  float Normal() { return normal_(engine_); }
  uint64_t Bits() { return uint64_t{engine_()} << 32 | engine_(); }
  template <typename T>
  T Of(std::initializer_list<T> values) {
    return values.begin()[Below(static_cast<int>(values.size()))];
  }

  enum Kind { kNormal, kTied, kMasked, kFlat, kPeaked, kZeros, kWide, kNumKinds };
  std::vector<float> Logits(Kind kind, int vocab) {
    std::vector<float> logits(vocab);
    for (float& x : logits) {
      x = 3 * Normal();
      if (kind == kTied) x = static_cast<float>(Below(5) - 2);
      if (kind == kMasked && Below(4) > 0) x = -kInf;
      if (kind == kFlat) x = -2.5f;
      if (kind == kZeros) x = Of({0.0f, -0.0f, -1e-40f});
      if (kind == kWide) x *= Of({1e-30f, 1.0f, 1e37f});
    }
    if (kind == kPeaked) logits[Below(vocab)] += 40;
    if (kind == kMasked) logits[Below(vocab)] = 1.5f;
    return logits;
  }
  std::vector<Edit> Edits(int vocab, int count) {
    std::vector<int> ids(vocab);
    for (int i = 0; i < vocab; ++i) ids[i] = i;
    std::shuffle(ids.begin(), ids.end(), engine_);
    std::vector<Edit> edits;
    for (int i = 0; i < std::min(count, vocab); ++i) {
      edits.push_back({ids[i], Of({1.0f, 1.3f, 0.7f, 2.0f}),
                       Below(6) == 0 ? -kInf : Of({0.0f, 1.0f, 5.0f}) * Normal()});
    }
    return edits;
  }
  // About one token in `rare`, or none. Bits after the last token mean nothing.
  std::vector<uint32_t> Mask(int vocab, int rare) {
    std::vector<uint32_t> allowed((vocab + 31) / 32);
    for (int id = 0; id < vocab && rare > 0; ++id) {
      if (Below(rare) == 0) allowed[id / 32] |= uint32_t{1} << id % 32;
    }
    if (vocab % 32 != 0) allowed.back() |= ~uint32_t{0} << vocab % 32;
    return allowed;
  }
  void Params(Row& row) {
    const int vocab = static_cast<int>(row.logits.size());
    row.temperature = Of({0.0f, 1e-4f, 0.1f, 0.7f, 1.0f, 1.0f, 3.0f, 100.0f});
    row.top_k = Of({0, 0, 1, 2, 5, 40, 200, vocab - 1, vocab, 2 * vocab, 1 << 30});
    row.top_p = Of({1.0f, 1.0f, 0.0f, 1e-6f, 0.3f, 0.9f, 0.999f});
    row.min_p = Of({0.0f, 0.0f, 0.02f, 0.5f, 1.0f});
    row.seed = Bits();
    row.position = Below(100000);
  }

 private:
  std::mt19937 engine_;
  std::normal_distribution<float> normal_;
};

// Compares each row; returns how many had one answer only.
int ExpectAcceptable(const std::vector<Row>& rows, int64_t vocab) {
  const Sampled sampled = Sample(rows, vocab);
  int decided = 0;
  for (size_t r = 0; r < rows.size(); ++r) {
    const std::vector<int32_t> allowed = reference::AcceptableTokens(sampled.row[r], kSlack);
    decided += allowed.size() == 1;
    EXPECT_TRUE(std::count(allowed.begin(), allowed.end(), sampled.token[r]))
        << "row " << r << " of vocab " << vocab << ": " << sampled.token[r] << ", the reference "
        << reference::SampleRow(sampled.row[r]) << "; temperature " << rows[r].temperature
        << " top_k " << rows[r].top_k << " top_p " << rows[r].top_p << " min_p " << rows[r].min_p
        << " edits " << rows[r].edits.size();
  }
  return decided;
}

TEST(GpuSample, NoRows) { EXPECT_TRUE(Sample({}, 7).token.empty()); }

TEST(GpuSample, GreedyTakesTheLowestIdOfALargestLogit) {
  for (const int vocab : {1, 2, 31, 33, 64, 511, 512, 513, 1000, 5000}) {
    std::vector<Row> rows;
    for (int i = 0; i < 8; ++i) {
      const int best = vocab * i / 8;
      rows.push_back({.logits = std::vector<float>(vocab, -3.0f), .temperature = 0});
      rows.back().logits[best] = rows.back().logits[vocab - 1] = 2.0f;
    }
    const std::vector<int32_t> tokens = Tokens(rows);
    for (int i = 0; i < 8; ++i) EXPECT_EQ(tokens[i], vocab * i / 8) << vocab;
  }
  EXPECT_EQ(Tokens({{.logits = {-0.0f, 0.0f}, .temperature = 0}})[0], 0);
  EXPECT_EQ(Tokens({{.logits = {-kInf, -5e37f, -kInf}, .temperature = 0}})[0], 1);
}

TEST(GpuSample, RowsThatAreNotNumbersGiveMinusOne) {
  for (const int vocab : {1, 3, 64, 700}) {
    std::vector<Row> rows;
    std::vector<int32_t> want;
    for (const float temperature : {0.0f, 1.0f}) {
      for (const float bad : {kNan, -kNan, kInf, 1.0f}) {
        for (const int at : {0, vocab / 2, vocab - 1}) {
          rows.push_back({.logits = std::vector<float>(vocab, -1.0f), .temperature = temperature});
          rows.back().logits[at] = bad;
          // An edit does not heal it, and one may break a row.
          if (at == 0) rows.back().edits = {{.token = 0, .repetition = 1.5f, .add = -1.0f}};
          if (bad == 1.0f) rows.back().edits = {{.token = at, .repetition = 1, .add = kNan}};
          want.push_back(-1);
        }
      }
      rows.push_back({.logits = std::vector<float>(vocab, -kInf), .temperature = temperature});
      want.push_back(-1);
      rows.push_back({.logits = std::vector<float>(vocab, 1.0f), .temperature = temperature});
      for (int i = 0; i < vocab; ++i) rows.back().edits.push_back({i, 1, -kInf});
      want.push_back(-1);
      rows.push_back({.logits = std::vector<float>(vocab, 1.0f), .temperature = temperature});
      for (int i = 0; i + 1 < vocab; ++i) rows.back().edits.push_back({i, 1, -kInf});
      want.push_back(vocab - 1);  // a good one among them
    }
    EXPECT_EQ(Tokens(rows), want) << vocab;
  }
}

TEST(GpuSample, AgreesWithTheReference) {
  Random random(20261126);
  int rows_in_all = 0, decided = 0;
  for (const int vocab : {1, 2, 31, 33, 64, 65, 300, 511, 513, 1000}) {
    std::vector<Row> rows;
    for (int i = 0; i < 20 * Random::kNumKinds; ++i) {
      rows.push_back({.logits = random.Logits(Random::Kind(i % Random::kNumKinds), vocab)});
      random.Params(rows.back());
      if (i % 3 == 0) rows.back().edits = random.Edits(vocab, random.Of({1, 20, 150, vocab}));
    }
    rows_in_all += static_cast<int>(rows.size());
    decided += ExpectAcceptable(rows, vocab);
  }
  EXPECT_GT(decided, rows_in_all * 9 / 10);
}

TEST(GpuSample, MasksAgreeWithTheReference) {
  Random random(20261128);
  int rows_in_all = 0, decided = 0;
  for (const int vocab : {1, 31, 32, 33, 64, 65, 300, 513, 1000}) {
    std::vector<Row> rows;
    for (int i = 0; i < 15 * Random::kNumKinds; ++i) {
      rows.push_back({.logits = random.Logits(Random::Kind(i % Random::kNumKinds), vocab)});
      Row& row = rows.back();
      random.Params(row);
      if (i % 2 == 0) row.edits = random.Edits(vocab, random.Of({1, 20, 150, vocab}));
      if (i % 4 == 3) continue;  // a row without a mask among them
      row.allowed = random.Mask(vocab, random.Of({1, 2, 2, 20, vocab, 0}));
      for (int id = 0; id < vocab; ++id) {  // never looked at
        if ((row.allowed[id / 32] >> id % 32 & 1) == 0)
          row.logits[id] = random.Of({kNan, kInf, 50.f});
      }
    }
    rows_in_all += static_cast<int>(rows.size());
    decided += ExpectAcceptable(rows, vocab);
  }
  EXPECT_GT(decided, rows_in_all * 9 / 10);
}

TEST(GpuSample, LargeVocabularies) {
  Random random(7);
  for (const int vocab : {49152, 1 << 18, (1 << 18) + 4097}) {
    std::vector<Row> rows;
    for (int i = 0; i < 4; ++i) {
      rows.push_back({.logits = random.Logits(i == 2 ? Random::kTied : Random::kNormal, vocab),
                      .temperature = 1,
                      .seed = random.Bits()});
    }
    rows[1].top_k = 40;
    rows[1].top_p = 0.95f;
    rows[2].top_k = 12345;
    rows[3].top_p = 0.9f;
    rows[3].edits = random.Edits(vocab, 3000);
    rows.push_back(rows[3]);
    rows[4].allowed = random.Mask(vocab, 3);
    ExpectAcceptable(rows, vocab);
  }
}

// Cuts among equals, where the answer is a matter of counting: each id that is left is as likely.
TEST(GpuSample, TiesGoToTheLowerIds) {
  for (const int vocab : {5, 64, 1000}) {
    std::vector<Row> rows;
    for (int i = 0; i < 40; ++i) {
      Row row = {.logits = std::vector<float>(vocab, 0.5f), .position = i};
      for (int id = 0; id < vocab / 2; id += 2) row.logits[id] = -1;
      if (i % 2 == 0) {
        row.top_k = 2;
      } else {
        row.top_k = 2 * vocab / 3;
        row.top_p = 1e-5f;
      }
      rows.push_back(row);
    }
    const int first = 1, second = vocab == 5 ? 2 : 3;
    const std::vector<int32_t> tokens = Tokens(rows);
    int seconds = 0;
    for (int i = 0; i < 40; ++i) {
      if (i % 2 == 0) {
        EXPECT_TRUE(tokens[i] == first || tokens[i] == second) << tokens[i];
        seconds += tokens[i] == second;
      } else {
        EXPECT_EQ(tokens[i], first);
      }
    }
    EXPECT_GT(seconds, 0);
    EXPECT_LT(seconds, 20);
  }
}

// The best tokens of the row as it stands are those with edits, more than a thread or a warp has.
TEST(GpuSample, EditsOfTheBestTokens) {
  constexpr int kVocab = 2000;
  Random random(3);
  std::vector<Row> rows;
  for (int i = 0; i < 12; ++i) {
    Row row = {.logits = random.Logits(Random::kNormal, kVocab)};
    random.Params(row);
    if (i < 4) row.temperature = 0;
    for (int id = 0; id < kVocab; ++id) {
      if (id % 512 == 5 || id % 3 == 0) row.logits[id] += 100;
      if (row.logits[id] > 50) row.edits.push_back({id, 1, i % 2 == 0 ? -kInf : -100.0f});
    }
    std::reverse(row.edits.begin(), row.edits.end());
    rows.push_back(row);
  }
  ExpectAcceptable(rows, kVocab);
}

TEST(GpuSample, ARowAloneAndInABatchGetsTheSameToken) {
  Random random(11);
  std::vector<Row> rows;
  for (int i = 0; i < 24; ++i) {
    rows.push_back({.logits = random.Logits(Random::Kind(i % Random::kNumKinds), 777)});
    random.Params(rows.back());
    if (i % 2 == 0) rows.back().edits = random.Edits(777, 33);
  }
  const std::vector<int32_t> together = Tokens(rows);
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(Tokens({rows[i]})[0], together[i]) << i;
}

TEST(GpuSample, DrawsByProbability) {
  const std::vector<double> share = {0.5, 0.0, 0.3, 0.2};
  std::vector<float> logits;
  for (const double p : share) logits.push_back(static_cast<float>(std::log(p)));
  constexpr int kDraws = 600;
  std::vector<Row> rows;
  for (int i = 0; i < kDraws; ++i) rows.push_back({.logits = logits, .seed = 5, .position = i});
  std::vector<int> count(share.size());
  for (const int32_t token : Tokens(rows)) ++count.at(static_cast<size_t>(token));
  for (size_t i = 0; i < share.size(); ++i) {
    const double deviation = std::sqrt(kDraws * share[i] * (1 - share[i]));
    EXPECT_NEAR(count[i], kDraws * share[i], 4 * deviation) << i;
  }
}

// ---- Logprobs

class NoStream : public Stream {
 public:
  void CopyToDevice(void*, const void*, size_t) override {}
  void CopyToHost(void*, const void*, size_t) override {}
  void Wait() override {}
};

struct Ranked {
  std::vector<float> logprob, top_logprob;
  std::vector<int32_t> rank, top_token;
};

template <typename Run>
Ranked Logprobs(const std::vector<float>& logits, const std::vector<int32_t>& target, int64_t n,
                Run run) {
  const auto rows = static_cast<int64_t>(target.size());
  const int64_t vocab = static_cast<int64_t>(logits.size()) / std::max<int64_t>(rows, 1);
  const Global logits_in(logits), logprob(std::vector<float>(rows, -99)),
      top_logprob(std::vector<float>(rows * n, -99));
  const Global target_in(target), rank(std::vector<int32_t>(rows, -99)),
      top_token(std::vector<int32_t>(rows * n, -99));
  LogprobsArgs args = {.logits = logits_in.As(DType::kF32, {rows, vocab}),
                       .target = target_in.As(DType::kI32, {rows}),
                       .out_logprob = logprob.As(DType::kF32, {rows}),
                       .out_rank = rank.As(DType::kI32, {rows})};
  if (n > 0) {
    args.top_token = top_token.As(DType::kI32, {rows, n});
    args.top_logprob = top_logprob.As(DType::kF32, {rows, n});
  }
  run(args);
  return {logprob.Values(), top_logprob.Values(), rank.Values(), top_token.Values()};
}

Ranked GpuLogprobs(const std::vector<float>& logits, const std::vector<int32_t>& target,
                   int64_t n) {
  return Logprobs(logits, target, n,
                  [](const LogprobsArgs& args) { LaunchLogprobs(StreamHandle{}, args); });
}

// A logprob is the rounding of a double whose sum is off by 2^-22 at most.
void ExpectLogprobs(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isinf(want[i])) {
      EXPECT_EQ(got[i], want[i]) << i;
    } else {
      EXPECT_NEAR(got[i], want[i], 0x1p-21 + 0x1p-22 * std::abs(want[i])) << i;
    }
  }
}

TEST(GpuLogprobs, AgreesWithTheReference) {
  Random random(42);
  NoStream stream;
  const reference::ReferenceOps reference(DType::kF32);
  for (const int vocab : {1, 2, 31, 33, 64, 300, 512, 513, 1000, 49152}) {
    for (const int n : {0, 1, 5, 20, 300}) {
      if (n > vocab || (vocab > 1000 && n != 20) || (n == 300 && vocab != 300)) continue;
      std::vector<float> logits;
      std::vector<int32_t> target;
      for (int r = 0; r < 2 * Random::kNumKinds; ++r) {
        const auto kind = Random::Kind(r % Random::kNumKinds);
        const std::vector<float> row = random.Logits(kind, vocab);
        logits.insert(logits.end(), row.begin(), row.end());
        target.push_back(r % 5 == 4 ? random.Of({-1, vocab, INT32_MAX, INT32_MIN})
                                    : random.Below(vocab));
      }
      const Ranked got = GpuLogprobs(logits, target, n);
      const Ranked want = Logprobs(
          logits, target, n, [&](const LogprobsArgs& args) { reference.Logprobs(stream, args); });
      EXPECT_EQ(got.rank, want.rank) << vocab << " " << n;
      EXPECT_EQ(got.top_token, want.top_token) << vocab << " " << n;
      ExpectLogprobs(got.logprob, want.logprob);
      ExpectLogprobs(got.top_logprob, want.top_logprob);
    }
  }
}

TEST(GpuLogprobs, RowsThatAreNotNumbers) {
  constexpr int kVocab = 40;
  for (const float bad : {kNan, kInf, -kInf}) {
    std::vector<float> logits(2 * kVocab, bad == -kInf ? -kInf : 1.0f);
    logits[3] = logits[kVocab + 3] = bad;
    const Ranked got = GpuLogprobs(logits, {2, -1}, 2);
    EXPECT_TRUE(std::isnan(got.logprob[0]));
    EXPECT_EQ(got.logprob[1], 0);
    EXPECT_EQ(got.rank, (std::vector<int32_t>{0, 0}));
    EXPECT_EQ(got.top_token, std::vector<int32_t>(4, -1));
    for (const float logprob : got.top_logprob) EXPECT_TRUE(std::isnan(logprob));
  }
  EXPECT_TRUE(GpuLogprobs({}, {}, 3).rank.empty());
}

TEST(GpuLogprobs, ARowAloneAndInABatchIsTheSame) {
  Random random(8);
  constexpr int kVocab = 600, kRows = 6;
  std::vector<float> logits;
  for (int r = 0; r < kRows; ++r) {
    const std::vector<float> row = random.Logits(Random::kNormal, kVocab);
    logits.insert(logits.end(), row.begin(), row.end());
  }
  const Ranked together = GpuLogprobs(logits, std::vector<int32_t>(kRows, 17), 4);
  for (int r = 0; r < kRows; ++r) {
    const Ranked alone =
        GpuLogprobs({logits.begin() + r * kVocab, logits.begin() + (r + 1) * kVocab}, {17}, 4);
    EXPECT_EQ(alone.logprob[0], together.logprob[r]);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(alone.top_logprob[i], together.top_logprob[4 * r + i]);
  }
}

}  // namespace
}  // namespace fairlead::FAIRLEAD_GPU

// SPDX-License-Identifier: Apache-2.0
// A query row's attention must have the same bits however its sequence was cut into chunks,
// whatever else is in the batch, wherever its blocks lie and however many threads work; and it must
// be right. Caches start as NaN in every byte, so a slot that was never written shows when it is
// read.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "kernels/cpu/simd_matmul.h"
#include "kernels/device.h"
#include "kernels/half.h"
#include "kernels/ops.h"
#include "tests/kernels/simd_targets_for_test.h"
#include "tests/sanitized.h"

namespace fairlead {
namespace {

struct Shape {
  int heads = 6;
  int kv_heads = 2;
  int head_dim = 64;
  int block_tokens = 16;
  int qkv_heads() const { return heads + 2 * kv_heads; }
  int row() const { return qkv_heads() * head_dim; }
};

struct RunOptions {
  DType kv_dtype = DType::kF16;
  int threads = 1;
  uint32_t block_order = 1;  // seed of the permutation of physical blocks
  int window = 0;
  float soft_cap = 0;
  bool sinks = false;
  bool causal = true;
  bool fast = false;  // numerics, with the cache that they choose
};

using Rows = std::vector<float>;     // of one sequence, in order
using Step = std::map<size_t, int>;  // sequence -> rows of it in this batch
using Sequences = std::vector<Rows>;

Rows RandomRows(const Shape& shape, int tokens, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Rows rows(int64_t{tokens} * shape.row());
  for (float& x : rows) x = normal(random);
  return rows;
}

// A cache and the progress of some sequences through it.
class Runner {
 public:
  Runner(const Shape& shape, const RunOptions& options, const Sequences& sequences)
      : shape_(shape),
        options_(options),
        sinks_(shape.heads, 0.75f),
        sequences_(sequences),
        done_(sequences.size()),
        out_(sequences.size()) {
    DeviceOptions device = {.threads = options.threads};
    if (options.fast) {
      device.numerics = Numerics::kFast;
    } else {
      device.kv_dtype = options.kv_dtype;
    }
    device_ = *OpenDevice("cpu", device);
    stream_ = device_->NewStream();
    for (const Rows& rows : sequences) {
      const int tokens = static_cast<int>(rows.size()) / shape.row();
      max_blocks_ = std::max(max_blocks_, (tokens + shape.block_tokens - 1) / shape.block_tokens);
    }
    const int num_blocks = max_blocks_ * static_cast<int>(sequences.size());
    blocks_.resize(num_blocks);
    for (int i = 0; i < num_blocks; ++i) blocks_[i] = i;
    std::shuffle(blocks_.begin(), blocks_.end(), std::mt19937(options.block_order));
    const KvShape kv = {shape.kv_heads, shape.head_dim, shape.block_tokens};
    cache_ = *device_->Allocate(num_blocks * device_->KvBlockBytes(kv));
    std::memset(cache_.data(), 0xff, cache_.bytes());
    kv_ = {.data = cache_.data(), .num_blocks = num_blocks, .shape = kv};
  }

  void Run(const Step& step);
  const std::vector<Rows>& out() const { return out_; }

 private:
  const Shape shape_;
  const RunOptions options_;
  Rows sinks_;
  const Sequences& sequences_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
  std::vector<int> done_;
  std::vector<Rows> out_;  // [heads * head_dim] a row
  std::vector<int> blocks_;
  int max_blocks_ = 0;
  Buffer cache_;
  PagedKv kv_;
};

void Runner::Run(const Step& step) {
  Rows qkv;
  std::vector<int> slot, query_start = {0}, context, table;
  for (const auto& [seq, rows] : step) {
    const int* blocks = blocks_.data() + seq * max_blocks_;
    const float* begin = sequences_[seq].data() + int64_t{done_[seq]} * shape_.row();
    qkv.insert(qkv.end(), begin, begin + int64_t{rows} * shape_.row());
    for (int i = done_[seq]; i < done_[seq] + rows; ++i) {
      slot.push_back(blocks[i / shape_.block_tokens] * shape_.block_tokens +
                     i % shape_.block_tokens);
    }
    done_[seq] += rows;
    query_start.push_back(query_start.back() + rows);
    context.push_back(done_[seq]);
    table.insert(table.end(), blocks, blocks + max_blocks_);
  }
  const int tokens = query_start.back();
  const int seqs = static_cast<int>(step.size());
  std::vector<int> position(tokens, 0);
  float no_rotation[] = {1.0f, 0.0f};
  const Tensor qkv_tensor(qkv.data(), DType::kF32, {tokens, shape_.qkv_heads(), shape_.head_dim});
  device_->ops().RopeAndWriteKv(*stream_,
                                {.qkv = qkv_tensor,
                                 .position = Tensor(position.data(), DType::kI32, {tokens}),
                                 .kv_slot = Tensor(slot.data(), DType::kI32, {tokens}),
                                 .cos_sin = Tensor(no_rotation, DType::kF32, {1, 2}),
                                 .kv = kv_,
                                 .heads = shape_.heads,
                                 .pairing = RopePairing::kHalves});
  const int out_row = shape_.heads * shape_.head_dim;
  Rows out(int64_t{tokens} * out_row, -12345.0f);
  device_->ops().Attention(
      *stream_,
      {.qkv = qkv_tensor,
       .out = Tensor(out.data(), DType::kF32, {tokens, out_row}),
       .kv = kv_,
       .query_start = Tensor(query_start.data(), DType::kI32, {seqs + 1}),
       .context_tokens = Tensor(context.data(), DType::kI32, {seqs}),
       .block_table = Tensor(table.data(), DType::kI32, {seqs, max_blocks_}),
       .heads = shape_.heads,
       .scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)),
       .window = options_.window,
       .causal = options_.causal,
       .soft_cap = options_.soft_cap,
       .sinks = options_.sinks ? Tensor(sinks_.data(), DType::kF32, {shape_.heads}) : Tensor()});
  stream_->Wait();
  int row = 0;
  for (const auto& [seq, rows] : step) {
    out_[seq].insert(out_[seq].end(), out.begin() + int64_t{row} * out_row,
                     out.begin() + int64_t{row + rows} * out_row);
    row += rows;
  }
}

int NumTokens(const Shape& shape, const Rows& rows) {
  return static_cast<int>(rows.size()) / shape.row();
}

Rows InChunks(const Shape& shape, const RunOptions& options, const Rows& rows, int chunk) {
  const Sequences sequences = {rows};
  Runner runner(shape, options, sequences);
  const int tokens = NumTokens(shape, rows);
  for (int i = 0; i < tokens; i += chunk) runner.Run({{0, std::min(chunk, tokens - i)}});
  return runner.out()[0];
}

void ExpectSameBits(const Rows& a, const Rows& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(a[i]), std::bit_cast<uint32_t>(b[i]))
        << "element " << i << ": " << a[i] << " and " << b[i];
  }
}

// What a head of k or v is in a cache, `count` of its dimensions from a multiple of 32 on.
void RoundAsCached(DType kv_dtype, const float* x, int count, double* out) {
  float largest = 0;
  for (int i = 0; i < count; ++i) largest = std::max(largest, std::abs(x[i]));
  const float scale = F16ToF32(F32ToF16(largest / 127));
  for (int i = 0; i < count; ++i) {
    if (kv_dtype == DType::kQ8_0) {
      out[i] = scale * std::min(127.0, std::nearbyint(double{x[i] * (1 / scale)}));
    } else if (kv_dtype == DType::kF8_E4M3) {
      const int code = F32ToF8E4M3(x[i]), exponent = code >> 3 & 15, mantissa = code & 7;
      const double magnitude =
          exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
      out[i] = code < 128 ? magnitude : -magnitude;
    } else if (kv_dtype == DType::kBF16) {
      out[i] = BF16ToF32(F32ToBF16(x[i]));
    } else {
      out[i] = kv_dtype == DType::kF32 ? x[i] : F16ToF32(F32ToF16(x[i]));
    }
  }
}

// All heads of all rows.
std::vector<double> AsCached(const Shape& shape, DType kv_dtype, const Rows& rows) {
  std::vector<double> cached(rows.size());
  for (size_t head = 0; head < rows.size(); head += shape.head_dim) {
    for (int dim = 0; dim < shape.head_dim; dim += 32) {
      RoundAsCached(kv_dtype, &rows[head + dim], std::min(32, shape.head_dim - dim),
                    &cached[head + dim]);
    }
  }
  return cached;
}

// Compares with double arithmetic on the values the cache holds. With u = 2^-24 and a dot product
// of head_dim + 1 terms (the scaling of q rounds once), a score is off by at most d = (head_dim +
// 2) u scale sum|q k|. A weight relative to the sum of weights is then off by 2 d + 2 exp errors (2
// ulp each), and the two sums by (256 + splits) u each: together less than (2 d + 1000 u) max|v|
// for up to 4 splits. `half_step`: what q and the weights are rounded by, besides, relative to
// themselves: a score is off by half_step scale sum|q k|, a weight by half_step.
void ExpectNearDouble(const Shape& shape, DType kv_dtype, const Rows& rows, const Rows& out,
                      double half_step = 0) {
  constexpr double kU = 0x1p-24;
  const int dim = shape.head_dim;
  const double scale = 1.0 / std::sqrt(static_cast<double>(dim));
  const int tokens = NumTokens(shape, rows);
  ASSERT_EQ(out.size(), size_t{1} * tokens * shape.heads * dim);
  std::vector<double> score(tokens);
  std::vector<double> expected(dim);
  const std::vector<double> cached = AsCached(shape, kv_dtype, rows);
  constexpr int kRowStep = kSanitized ? 13 : 1;
  for (int row = 0; row < tokens; row += kRowStep) {
    for (int head = 0; head < shape.heads; ++head) {
      const float* q = rows.data() + int64_t{row} * shape.row() + head * dim;
      const int kv_head = head / (shape.heads / shape.kv_heads);
      const int k_offset = (shape.heads + kv_head) * dim;
      const int v_offset = k_offset + shape.kv_heads * dim;
      double max = -1e300, largest_sum = 0, largest_v = 0, total = 0;
      for (int key = 0; key <= row; ++key) {
        const double* k = cached.data() + int64_t{key} * shape.row() + k_offset;
        double sum = 0, magnitude = 0;
        for (int d = 0; d < dim; ++d) {
          const double product = q[d] * k[d];
          sum += product;
          magnitude += std::abs(product);
        }
        score[key] = sum * scale;
        max = std::max(max, score[key]);
        largest_sum = std::max(largest_sum, magnitude * scale);
      }
      std::fill(expected.begin(), expected.end(), 0.0);
      for (int key = 0; key <= row; ++key) {
        const double weight = std::exp(score[key] - max);
        const double* v = cached.data() + int64_t{key} * shape.row() + v_offset;
        total += weight;
        for (int d = 0; d < dim; ++d) {
          expected[d] += weight * v[d];
          largest_v = std::max(largest_v, std::abs(v[d]));
        }
      }
      const double of_weights = 2 * ((dim + 2) * kU + half_step) * largest_sum + half_step;
      const double bound = (of_weights * (1 + of_weights) + 1000 * kU) * largest_v;
      const float* got = out.data() + (int64_t{row} * shape.heads + head) * dim;
      for (int d = 0; d < dim; ++d) {
        ASSERT_NEAR(got[d], expected[d] / total, bound)
            << "row " << row << " head " << head << " dimension " << d;
      }
    }
  }
}

std::vector<int> Some(std::vector<int> values, std::vector<int> when_sanitized) {
  return kSanitized ? std::move(when_sanitized) : std::move(values);
}

constexpr DType kCaches[] = {DType::kF16, DType::kF32, DType::kQ8_0, DType::kBF16, DType::kF8_E4M3};

TEST(AttentionInvariance, ChunksGiveTheSameBitsForAllHeadDims) {
  for (const int head_dim :
       Some({2, 16, 20, 32, 48, 64, 80, 96, 112, 128, 256}, {2, 20, 64, 112, 256})) {
    const Shape shape = {.heads = 6, .kv_heads = 2, .head_dim = head_dim};
    const Rows rows = RandomRows(shape, 290, head_dim);  // the second split has 34 keys
    for (const DType kv_dtype : kCaches) {
      SCOPED_TRACE(testing::Message() << "head_dim " << head_dim << ", " << Info(kv_dtype).name);
      const Rows whole = InChunks(shape, {.kv_dtype = kv_dtype}, rows, 290);
      ExpectNearDouble(shape, kv_dtype, rows, whole);
      for (const int chunk : Some({1, 7, 13, 16, 64}, {1, 13})) {
        SCOPED_TRACE(testing::Message() << "chunk " << chunk);
        ExpectSameBits(whole, InChunks(shape, {.kv_dtype = kv_dtype}, rows, chunk));
      }
    }
  }
}

// With fused multiply-add, all instruction sets give the same bits too.
TEST(AttentionInvariance, AllInstructionSets) {
  const Shape shape = {.heads = 9, .kv_heads = 3, .head_dim = 80};
  const Rows rows = RandomRows(shape, 300, 7);
  std::map<DType, Rows> fused;
  ForEachSimdTarget([&] {
    for (const DType kv_dtype : kCaches) {
      const Rows whole = InChunks(shape, {.kv_dtype = kv_dtype}, rows, 300);
      if (SimdHasFma()) {
        ExpectSameBits(fused.try_emplace(kv_dtype, whole).first->second, whole);
      }
      ExpectNearDouble(shape, kv_dtype, rows, whole);
      for (const int chunk : {1, 13, 64}) {
        ExpectSameBits(whole, InChunks(shape, {.kv_dtype = kv_dtype, .threads = 2}, rows, chunk));
      }
    }
  });
}

TEST(AttentionInvariance, ThreadsAndBlockTables) {
  const Shape shape = {.heads = 9, .kv_heads = 3, .head_dim = 64};
  const Rows rows = RandomRows(shape, 800, 3);  // four splits: a lone decode is spread over threads
  for (const DType kv_dtype : kCaches) {
    const Rows alone = InChunks(shape, {.kv_dtype = kv_dtype}, rows, 800);
    ExpectNearDouble(shape, kv_dtype, rows, alone);
    for (const int threads : {2, 3}) {
      for (const int chunk : Some({1, 5, 200, 800}, {threads == 2 ? 1 : 800, 200})) {
        SCOPED_TRACE(testing::Message() << threads << " threads, chunk " << chunk);
        const RunOptions options = {
            .kv_dtype = kv_dtype, .threads = threads, .block_order = uint32_t(chunk)};
        ExpectSameBits(alone, InChunks(shape, options, rows, chunk));
      }
    }
  }
}

TEST(AttentionInvariance, BlockSizesAndGroups) {
  for (const auto& [heads, kv_heads] : {std::pair{1, 1}, {4, 4}, {5, 1}, {71, 1}, {14, 2}}) {
    Rows first;
    for (const int block_tokens : {16, 32, 48, 256}) {
      SCOPED_TRACE(testing::Message() << heads << "/" << kv_heads << ", " << block_tokens);
      const Shape shape = {heads, kv_heads, 32, block_tokens};
      const Rows rows = RandomRows(shape, 270, heads);
      const Rows whole = InChunks(shape, {}, rows, 270);
      ExpectSameBits(whole, InChunks(shape, {.threads = 3}, rows, 7));
      if (first.empty()) {
        ExpectNearDouble(shape, DType::kF16, rows, whole);
        first = whole;
      }
      ExpectSameBits(first, whole);
    }
  }
}

TEST(AttentionInvariance, RaggedBatchesGiveTheBitsOfEachSequenceAlone) {
  const Shape shape = {.heads = 6, .kv_heads = 2, .head_dim = 48};
  const std::vector<int> tokens = {1, 17, 300, 16, 555, 33};
  Sequences sequences;
  for (const int n : tokens) sequences.push_back(RandomRows(shape, n, 100 + n));
  for (const DType kv_dtype : kCaches) {
    for (const int threads : {1, 2, 3}) {
      Runner runner(shape, {.kv_dtype = kv_dtype, .threads = threads, .block_order = 9}, sequences);
      std::mt19937 random(threads);
      std::vector<int> left = tokens;
      while (std::any_of(left.begin(), left.end(), [](int n) { return n > 0; })) {
        Step step;
        for (size_t seq = 0; seq < left.size(); ++seq) {
          const int rows = std::min<int>(left[seq], random() % 3 == 0 ? 1 : random() % 70);
          if (rows == 0) continue;
          step[seq] = rows;
          left[seq] -= rows;
        }
        if (!step.empty()) runner.Run(step);
      }
      for (size_t seq = 0; seq < sequences.size(); ++seq) {
        SCOPED_TRACE(testing::Message() << "sequence " << seq << ", " << threads << " threads");
        ExpectSameBits(InChunks(shape, {.kv_dtype = kv_dtype}, sequences[seq], tokens[seq]),
                       runner.out()[seq]);
      }
    }
  }
}

void WindowsSoftCapsAndSinks(bool fast) {
  const Shape shape = {.heads = 6, .kv_heads = 2, .head_dim = 32};
  const Rows rows = RandomRows(shape, 600, 11);  // three splits
  const Rows whole = InChunks(shape, {.fast = fast}, rows, 600);
  for (RunOptions options : {RunOptions{.window = 1},
                             {.window = 37},
                             {.window = 256},
                             {.window = 300},
                             {.window = 600},
                             {.soft_cap = 2},
                             {.sinks = true},
                             {.window = 290, .soft_cap = 3, .sinks = true}}) {
    SCOPED_TRACE(testing::Message()
                 << options.window << " " << options.soft_cap << " " << options.sinks);
    options.fast = fast;
    const Rows all = InChunks(shape, options, rows, 600);
    for (const int chunk : {1, 7, 100}) {
      options.threads = chunk % 3 + 1;
      ExpectSameBits(all, InChunks(shape, options, rows, chunk));
    }
    const bool everything = options.window == 600 && options.soft_cap == 0 && !options.sinks;
    EXPECT_EQ(all == whole, everything);
  }
}

TEST(AttentionInvariance, WindowsSoftCapsAndSinks) { WindowsSoftCapsAndSinks(false); }
TEST(AttentionInvariance, FastWindowsSoftCapsAndSinks) { WindowsSoftCapsAndSinks(true); }

// The last `rows` rows of all.
Rows Last(const Shape& shape, const Rows& out, int rows) {
  return {out.end() - int64_t{rows} * shape.heads * shape.head_dim, out.end()};
}

// Without causal a row sees all keys, so the last one is a causal one's, and a row's bits are the
// same whichever other rows of the sequence are asked for.
void BidirectionalRows(bool fast) {
  const Shape shape = {.heads = 6, .kv_heads = 2, .head_dim = 48};
  for (const DType kv_dtype : {DType::kF16, DType::kQ8_0}) {
    const RunOptions options = {.kv_dtype = kv_dtype, .causal = false, .fast = fast};
    Sequences sequences;
    for (const int n : {5, 256, 257, 600, 49}) sequences.push_back(RandomRows(shape, n, n));
    std::vector<Rows> alone;
    for (const Rows& rows : sequences) {
      const int tokens = NumTokens(shape, rows);
      alone.push_back(InChunks(shape, options, rows, tokens));
      RunOptions other = options;
      other.causal = true;
      ExpectSameBits(Last(shape, alone.back(), 1),
                     Last(shape, InChunks(shape, other, rows, tokens), 1));
      other = {.kv_dtype = kv_dtype, .threads = 3, .block_order = 5, .causal = false, .fast = fast};
      for (const int last : {1, 3}) {
        const Sequences one = {rows};
        Runner runner(shape, other, one);
        runner.Run({{0, tokens - last}});
        runner.Run({{0, last}});
        ExpectSameBits(Last(shape, alone.back(), last), Last(shape, runner.out()[0], last));
      }
    }
    for (const int threads : {1, 3}) {
      RunOptions together = options;
      together.threads = threads;
      Runner runner(shape, together, sequences);
      runner.Run({{0, 5}, {1, 256}, {2, 257}, {3, 600}, {4, 49}});
      for (size_t seq = 0; seq < sequences.size(); ++seq) {
        SCOPED_TRACE(testing::Message() << "sequence " << seq << ", " << threads << " threads");
        ExpectSameBits(alone[seq], runner.out()[seq]);
      }
    }
  }
}

TEST(AttentionInvariance, BidirectionalRows) { BidirectionalRows(false); }
TEST(AttentionInvariance, FastBidirectionalRows) { BidirectionalRows(true); }

// Of Numerics::kFast: on AMX its caches are bf16, and q and the weights are rounded to it.
void ExpectNearDoubleFast(const Shape& shape, const Rows& rows, const Rows& out) {
  const DType cache = (*OpenDevice("cpu", {.numerics = Numerics::kFast}))->info().kv_dtype;
  ExpectNearDouble(shape, cache, rows, out, cache == DType::kBF16 ? 0x1p-8 : 0);
}

TEST(AttentionInvariance, FastNumerics) {
  for (const int head_dim : Some({2, 20, 32, 64, 80, 112, 128, 256}, {20, 64})) {
    SCOPED_TRACE(head_dim);
    const Shape shape = {.heads = 6, .kv_heads = 2, .head_dim = head_dim};
    const Rows rows = RandomRows(shape, 290, head_dim);
    const Rows whole = InChunks(shape, {.fast = true}, rows, 290);
    ExpectNearDoubleFast(shape, rows, whole);
    for (const int chunk : Some({1, 7, 16, 64}, {1, 13})) {
      const RunOptions options = {
          .threads = chunk % 3 + 1, .block_order = uint32_t(chunk), .fast = true};
      ExpectSameBits(whole, InChunks(shape, options, rows, chunk));
    }
  }
}

TEST(AttentionInvariance, FastNumericsOfBlockSizesAndGroups) {
  for (const auto& [heads, kv_heads] : {std::pair{1, 1}, {5, 1}, {71, 1}, {14, 2}}) {
    Rows first;
    for (const int block_tokens : {16, 32, 48}) {
      SCOPED_TRACE(testing::Message() << heads << "/" << kv_heads << ", " << block_tokens);
      const Shape shape = {heads, kv_heads, 32, block_tokens};
      const Rows rows = RandomRows(shape, 270, heads);
      const Rows whole = InChunks(shape, {.fast = true}, rows, 270);
      ExpectSameBits(whole, InChunks(shape, {.threads = 3, .fast = true}, rows, 7));
      if (first.empty()) {
        ExpectNearDoubleFast(shape, rows, whole);
        first = whole;
      }
      ExpectSameBits(first, whole);
    }
  }
}

// Row 20's value is infinite and its key NaN: rows before it must not notice, rows from it on must.
TEST(AttentionInvariance, LaterKeysDoNotLeak) {
  const Shape shape = {.heads = 4, .kv_heads = 1, .head_dim = 32};
  const Rows clean = RandomRows(shape, 40, 5);
  Rows dirty = clean;
  float* row = dirty.data() + 20 * shape.row();
  row[4 * 32] = std::nanf("");
  row[5 * 32] = std::numeric_limits<float>::infinity();
  const auto split = 20 * shape.heads * shape.head_dim;
  for (const bool fast : {false, true}) {
    const RunOptions options = {.fast = fast};
    const Rows expected = InChunks(shape, options, clean, 40);
    const Rows got = InChunks(shape, options, dirty, 40);
    ExpectSameBits(got, InChunks(shape, options, dirty, 1));
    ExpectSameBits(Rows(expected.begin(), expected.begin() + split),
                   Rows(got.begin(), got.begin() + split));
    for (size_t i = split; i < got.size(); ++i) ASSERT_TRUE(std::isnan(got[i])) << i;
  }
}

}  // namespace
}  // namespace fairlead

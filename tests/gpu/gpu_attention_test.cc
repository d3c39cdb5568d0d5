// SPDX-License-Identifier: Apache-2.0
// A row's attention has the same bits whichever kernel computes it, in whatever tile, with its
// splits in one block or spread over several; and elements of the KV cache are rounded to the
// nearest. Compiled for both warp sizes, every access looked at. That the values are right is what
// gpu_op_test shows.
#include <gtest/gtest.h>

#include <bit>
#include <climits>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/gpu/kernels.h"
#include "kernels/gpu/kv_formats.h"
#include "kernels/gpu/kv_layout.h"
#include "kernels/half.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

// Memory that kernels may use, with a copy of `values`.
template <typename T>
class GlobalArray {
 public:
  explicit GlobalArray(const std::vector<T>& values)
      : data_(static_cast<T*>(simt::AllocateGlobal(values.size() * sizeof(T)))) {
    if (!values.empty()) std::memcpy(data_, values.data(), values.size() * sizeof(T));
  }
  ~GlobalArray() { simt::FreeGlobal(data_); }
  GlobalArray(const GlobalArray&) = delete;
  GlobalArray& operator=(const GlobalArray&) = delete;

  T* data() { return data_; }

 private:
  T* data_;
};

struct Shape {
  int heads, kv_heads, head_dim, block_tokens;
  int qkv_heads() const { return heads + 2 * kv_heads; }
  int row() const { return qkv_heads() * head_dim; }
};

struct Options {
  DType kv_dtype = DType::kF16;
  int window = 0;
  float soft_cap = 0;
  bool sinks = false;
  bool causal = true;
};

struct Part {  // of a batch: rows [first, first + rows) of a sequence
  int seq, first, rows;
};

// How a batch is computed: the choice of a kernel, and whether there is memory to spread splits.
struct Path {
  const char* name;
  AttentionChoice choice;
  size_t memory_bytes;
};
constexpr int kAlways = INT_MAX;
constexpr Path kPaths[] = {
    {"as a GPU would", {}, size_t{1} << 22},
    {"few rows, a block each", {.few_rows = kAlways, .enough_tiles = 0}, size_t{1} << 22},
    {"few rows, no memory", {.few_rows = kAlways}, 0},
    {"few rows, spread", {.few_rows = kAlways, .enough_tiles = kAlways}, size_t{1} << 22},
    {"few rows, spread, blocks take turns",
     {.few_rows = kAlways, .enough_tiles = kAlways, .max_blocks = 3},
     size_t{1} << 22},
    {"tiles, no memory", {.few_rows = 0}, 0},
    {"tiles, spread", {.few_rows = 0, .enough_tiles = kAlways}, size_t{1} << 22},
    {"tiles, spread, blocks take turns",
     {.few_rows = 0, .enough_tiles = kAlways, .max_blocks = 3},
     size_t{1} << 22},
};

// Sequences of random rows whose keys and values are in the cache; other slots are NaN.
class Cache {
 public:
  Cache(const Shape& shape, const Options& options, const std::vector<int>& tokens)
      : shape_(shape), options_(options) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    int longest = 0;
    for (const int n : tokens) {
      rows_.emplace_back(int64_t{n} * shape.row());
      for (float& x : rows_.back()) x = normal(random);
      longest = std::max(longest, n);
    }
    max_blocks_ = (longest + shape.block_tokens - 1) / shape.block_tokens;
    sinks_ = std::make_unique<GlobalArray<float>>(std::vector<float>(shape.heads, 1.25f));
    const KvShape kv = {shape.kv_heads, shape.head_dim, shape.block_tokens};
    const int blocks = max_blocks_ * static_cast<int>(tokens.size());
    kv_ = std::make_unique<GlobalArray<uint8_t>>(
        std::vector<uint8_t>(blocks * KvLayout(kv, options.kv_dtype).block_bytes(), uint8_t{0xff}));
    paged_ = {.data = kv_->data(), .num_blocks = blocks, .shape = kv};
    for (int seq = 0; seq < static_cast<int>(tokens.size()); ++seq) Write(seq, tokens[seq]);
  }

  // The rows' results, in the order of the parts.
  std::vector<float> Attend(const std::vector<Part>& parts, const Path& path) {
    std::vector<float> qkv;
    std::vector<int> query_start = {0}, context, table;
    for (const Part& part : parts) {
      const float* begin = rows_[part.seq].data() + int64_t{part.first} * shape_.row();
      qkv.insert(qkv.end(), begin, begin + int64_t{part.rows} * shape_.row());
      query_start.push_back(query_start.back() + part.rows);
      context.push_back(part.first + part.rows);
      for (int b = 0; b < max_blocks_; ++b) table.push_back(Block(part.seq, b));
    }
    const int tokens = query_start.back(), seqs = static_cast<int>(parts.size());
    std::vector<float> result(int64_t{tokens} * shape_.heads * shape_.head_dim, -12345.0f);
    GlobalArray<float> x(qkv), out(result);
    GlobalArray<int> starts(query_start), contexts(context), blocks(table);
    GlobalArray<float> memory(std::vector<float>(path.memory_bytes / sizeof(float), NAN));
    LaunchAttention(
        StreamHandle{},
        {.qkv = Tensor(x.data(), DType::kF32, {tokens, shape_.qkv_heads(), shape_.head_dim}),
         .out = Tensor(out.data(), DType::kF32, {tokens, shape_.heads * shape_.head_dim}),
         .kv = paged_,
         .query_start = Tensor(starts.data(), DType::kI32, {seqs + 1}),
         .context_tokens = Tensor(contexts.data(), DType::kI32, {seqs}),
         .block_table = Tensor(blocks.data(), DType::kI32, {seqs, max_blocks_}),
         .heads = shape_.heads,
         .scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)),
         .window = options_.window,
         .causal = options_.causal,
         .soft_cap = options_.soft_cap,
         .sinks = options_.sinks ? Tensor(sinks_->data(), DType::kF32, {shape_.heads}) : Tensor()},
        options_.kv_dtype, {memory.data(), path.memory_bytes}, path.choice);
    std::memcpy(result.data(), out.data(), result.size() * sizeof(float));
    return result;
  }

 private:
  int Block(int seq, int index) const {  // not in order
    return (seq * max_blocks_ + index) * 7 % paged_.num_blocks;
  }

  void Write(int seq, int tokens) {
    std::vector<int> slot;
    for (int i = 0; i < tokens; ++i) {
      slot.push_back(Block(seq, i / shape_.block_tokens) * shape_.block_tokens +
                     i % shape_.block_tokens);
    }
    GlobalArray<float> x(rows_[seq]), no_rotation({1.0f, 0.0f});
    GlobalArray<int> positions(std::vector<int>(tokens, 0)), slots(slot);
    LaunchRopeAndWriteKv(
        StreamHandle{},
        {.qkv = Tensor(x.data(), DType::kF32, {tokens, shape_.qkv_heads(), shape_.head_dim}),
         .position = Tensor(positions.data(), DType::kI32, {tokens}),
         .kv_slot = Tensor(slots.data(), DType::kI32, {tokens}),
         .cos_sin = Tensor(no_rotation.data(), DType::kF32, {1, 2}),
         .kv = paged_,
         .heads = shape_.heads,
         .pairing = RopePairing::kHalves},
        options_.kv_dtype);
  }

  const Shape shape_;
  const Options options_;
  std::vector<std::vector<float>> rows_;
  int max_blocks_ = 0;
  std::unique_ptr<GlobalArray<float>> sinks_;
  std::unique_ptr<GlobalArray<uint8_t>> kv_;
  PagedKv paged_;
};

std::string Difference(const std::vector<float>& a, const std::vector<float>& b, int row) {
  if (a.size() != b.size()) return "sizes differ";
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i])) {
      return "row " + std::to_string(i / row) + ", element " + std::to_string(i % row) + ": " +
             std::to_string(a[i]) + " and " + std::to_string(b[i]);
    }
  }
  return "";
}

// A chunk across a split's border, a few rows and a decode; by every path, together and row by row.
void ExpectSameBits(const Shape& shape, const Options& options) {
  Cache cache(shape, options, {275, 40, 140});
  const std::vector<Part> batch = {{0, 250, 25}, {1, 37, 3}, {2, 139, 1}};
  const int row = shape.heads * shape.head_dim;
  const std::vector<float> expected = cache.Attend(batch, kPaths[0]);
  for (const float x : expected) ASSERT_TRUE(std::isfinite(x));
  for (const Path& path : kPaths) {
    EXPECT_EQ(Difference(expected, cache.Attend(batch, path), row), "") << path.name;
  }
  for (const Path& path : {kPaths[0], kPaths[2], kPaths[3], kPaths[6]}) {
    std::vector<float> rows;
    for (const int position : {250, 255, 256, 274}) {
      const std::vector<float> one = cache.Attend({{0, position, 1}}, path);
      rows.insert(rows.end(), one.begin(), one.end());
    }
    std::vector<float> want;
    for (const int at : {0, 5, 6, 24}) {
      want.insert(want.end(), expected.begin() + at * row, expected.begin() + (at + 1) * row);
    }
    EXPECT_EQ(Difference(want, rows, row), "") << path.name << ", rows alone";
  }
}

// Without causal a row sees all keys: the last one is a causal one's, and others are the same with
// fewer rows beside them.
void ExpectSameBidirectionalBits(const Shape& shape, Options options) {
  const std::vector<Part> batch = {{0, 250, 25}, {1, 0, 40}, {2, 137, 3}};
  const int row = shape.heads * shape.head_dim;
  Cache causal(shape, options, {275, 40, 140});
  options.causal = false;
  Cache cache(shape, options, {275, 40, 140});
  const std::vector<float> expected = cache.Attend(batch, kPaths[0]);
  for (const float x : expected) ASSERT_TRUE(std::isfinite(x));
  for (const Path& path : kPaths) {
    EXPECT_EQ(Difference(expected, cache.Attend(batch, path), row), "") << path.name;
  }
  const std::vector<Part> last = {{0, 274, 1}, {1, 39, 1}, {2, 139, 1}};
  std::vector<float> want;
  for (const int at : {24, 64, 67}) {
    want.insert(want.end(), expected.begin() + at * row, expected.begin() + (at + 1) * row);
  }
  for (const Path& path : kPaths) {
    EXPECT_EQ(Difference(want, causal.Attend(last, path), row), "") << path.name << ", causal";
  }
  const std::vector<float> rows = cache.Attend({{0, 268, 7}}, kPaths[6]);
  EXPECT_EQ(Difference({expected.begin() + 18 * row, expected.begin() + 25 * row}, rows, row), "");
}

class GpuAttention : public testing::TestWithParam<DType> {};

TEST_P(GpuAttention, EveryPathGivesTheSameBits) {
  for (const int head_dim : {20, GetParam() == DType::kF16 ? 256 : 80}) {
    SCOPED_TRACE(head_dim);
    ExpectSameBits({6, 2, head_dim, 16}, {.kv_dtype = GetParam()});
  }
}

TEST_P(GpuAttention, WindowsSoftCapsAndSinksToo) {
  for (const int window : {1, 130}) {
    SCOPED_TRACE(window);
    ExpectSameBits({4, 1, 48, 32}, {.kv_dtype = GetParam(), .window = window});
  }
  ExpectSameBits({4, 1, 48, 48}, {.kv_dtype = GetParam(), .soft_cap = 2, .sinks = true});
}

TEST_P(GpuAttention, BidirectionalRowsToo) {
  ExpectSameBidirectionalBits({4, 2, 48, 16}, {.kv_dtype = GetParam()});
}

INSTANTIATE_TEST_SUITE_P(Caches, GpuAttention,
                         testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0,
                                         DType::kF8_E4M3),
                         [](const auto& info) { return std::string(Info(info.param).name); });

TEST(GpuAttentionGroups, EveryPathGivesTheSameBits) {
  for (const auto& [heads, kv_heads] : {std::pair{2, 2}, {8, 1}, {40, 1}}) {
    SCOPED_TRACE(testing::Message() << heads << "/" << kv_heads);
    ExpectSameBits({heads, kv_heads, 32, 16}, {});
  }
}

// More sequences than a block has threads: their places are found in several rounds.
TEST(GpuAttentionGroups, ManySequences) {
  const Shape shape = {1, 1, 16, 16};
  Cache cache(shape, {}, {140, 135});
  std::vector<Part> batch;
  for (int i = 0; i < 300; ++i) batch.push_back({i % 2, 128 + i % 3, i % 50 == 7 ? 4 : i % 2});
  const std::vector<float> expected = cache.Attend(batch, kPaths[0]);
  for (const float x : expected) ASSERT_TRUE(std::isfinite(x));
  for (const Path& path : {kPaths[2], kPaths[4], kPaths[5], kPaths[7]}) {
    EXPECT_EQ(Difference(expected, cache.Attend(batch, path), shape.head_dim), "") << path.name;
  }
}

double F8Value(int code) {
  const int exponent = (code & 0x7f) >> 3, mantissa = code & 7;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return code < 128 ? magnitude : -magnitude;
}

TEST(KvFormats, F8IsTheNearest) {
  for (int code = 0; code < 256; ++code) {
    const uint32_t word = static_cast<uint32_t>(code) * 0x01010101u;
    float value[16];
    KvF8::Decode({{word, 0x38u << 8 * (code % 4), word, 0}}, value);
    if ((code & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value[0]) && std::isnan(value[11]));
      EXPECT_EQ(KvF8::Encode(value[0]) & 0x7f, 0x7f);
      continue;
    }
    for (const int i : {0, 1, 2, 3, 8}) EXPECT_EQ(value[i], F8Value(code)) << code;
    EXPECT_EQ(value[4 + code % 4], 1.0f);
    EXPECT_EQ(std::signbit(value[0]), code >= 128);
    EXPECT_EQ(KvF8::Encode(value[0]), code);
    if ((code & 0x7f) >= 0x7e) continue;
    const auto middle = static_cast<float>((F8Value(code) + F8Value(code + 1)) / 2);
    const float next = static_cast<float>(F8Value(code + 1));
    EXPECT_EQ(KvF8::Encode(middle), code % 2 == 0 ? code : code + 1) << code;
    EXPECT_EQ(KvF8::Encode(std::nextafter(middle, value[0])), code);
    EXPECT_EQ(KvF8::Encode(std::nextafter(middle, next)), code + 1);
  }
  for (const float large : {449.0f, 464.0f, 1e30f, INFINITY}) {
    EXPECT_EQ(KvF8::Encode(large), 0x7e);
    EXPECT_EQ(KvF8::Encode(-large), 0xfe);
  }
}

TEST(KvFormats, SixteenBits) {
  for (int code = 0; code < 65536; ++code) {
    const auto bits = static_cast<uint16_t>(code);
    const uint32_t word = bits | static_cast<uint32_t>(bits ^ 0x8000u) << 16;
    float half[8], brain[8];
    KvF16::Decode({{word, word, 0, 0x3c003c00u}}, half);
    KvBF16::Decode({{word, word, 0, 0}}, brain);
    const float want = F16ToF32(bits);
    if (std::isnan(want)) {
      EXPECT_TRUE(std::isnan(half[0]) && std::isnan(half[1]));
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>(half[0]), std::bit_cast<uint32_t>(want));
      EXPECT_EQ(std::bit_cast<uint32_t>(half[3]), std::bit_cast<uint32_t>(-want));
    }
    EXPECT_EQ(half[7], 1.0f);
    EXPECT_EQ(std::bit_cast<uint32_t>(brain[0]), uint32_t{bits} << 16);
    EXPECT_EQ(std::bit_cast<uint32_t>(brain[3]), uint32_t{bits} << 16 ^ 0x80000000u);
    for (const uint32_t low : {0x0u, 0x7fffu, 0x8000u, 0x8001u}) {
      const float value = std::bit_cast<float>(uint32_t{bits} << 16 | low);
      EXPECT_EQ(KvBF16::Encode(value), F32ToBF16(value));
    }
  }
}

TEST(KvFormats, Q8IsTheInteger) {
  for (int q = -128; q < 128; ++q) {
    float value[16];
    const auto byte = static_cast<uint32_t>(q) & 0xffu;
    KvQ8::Decode({{byte, byte << 8, byte << 16, byte << 24}}, value);
    for (const int i : {0, 5, 10, 15}) EXPECT_EQ(value[i], static_cast<float>(q));
    EXPECT_EQ(value[1], 0.0f);
  }
}

}  // namespace
}  // namespace fairlead::FAIRLEAD_GPU

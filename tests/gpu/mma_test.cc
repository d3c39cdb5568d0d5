// SPDX-License-Identifier: Apache-2.0
// Tile products of the SIMT executor's tensor cores against plain loops, in both layouts, and the
// arithmetic on pairs of f16 that fragments are made with.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "kernels/gpu/mma.h"
#include "kernels/half.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

struct TileCall {
  const uint16_t* rows;    // f16 [warps, 16, 16]
  const uint16_t* tokens;  // f16 [warps, kMmaTokens, 16]
  float* sums;             // [warps, 16, kMmaTokens]
};

uint32_t PairAt(const uint16_t* from) { return from[0] | static_cast<uint32_t>(from[1]) << 16; }

void MultiplyTile(TileCall call) {
  const int lane = LaneId();
  const uint16_t* rows = call.rows + WarpId() * kMmaRows * 16;
  const uint16_t* tokens = call.tokens + WarpId() * kMmaTokens * 16;
  float* all = call.sums + WarpId() * kMmaRows * kMmaTokens;
  RowFragment row_fragment;
  for (int r = 0; r < RowFragment::kRows; ++r) {
    for (int q = 0; q < RowFragment::kQuads; ++q) {
      const uint16_t* quad = rows + RowFragment::Row(lane, r) * 16 + 4 * RowFragment::Quad(lane, q);
      row_fragment.Set(r, q, PairAt(quad), PairAt(quad + 2));
    }
  }
  TokenFragment token_fragment;
  for (int q = 0; q < TokenFragment::kQuads; ++q) {
    const uint16_t* quad =
        tokens + TokenFragment::Token(lane) * 16 + 4 * TokenFragment::Quad(lane, q);
    token_fragment.pair[2 * q] = PairAt(quad);
    token_fragment.pair[2 * q + 1] = PairAt(quad + 2);
  }
  const auto at = [&](int i) {
    return TileSums::Row(lane, i) * kMmaTokens + TileSums::Token(lane, i);
  };
  TileSums sums;
  for (int i = 0; i < TileSums::kValues; ++i) sums.value[i] = all[at(i)];
  Mma(row_fragment, token_fragment, &sums);
  for (int i = 0; i < TileSums::kValues; ++i) all[at(i)] = sums.value[i];
}

constexpr int kWarps = 2;

// Runs two warps, each on its own tile.
std::vector<float> Products(const std::vector<uint16_t>& rows, const std::vector<uint16_t>& tokens,
                            std::vector<float> sums) {
  const simt::GlobalRange a(rows.data(), rows.size() * 2), b(tokens.data(), tokens.size() * 2),
      c(sums.data(), sums.size() * 4);
  const TileCall call = {rows.data(), tokens.data(), sums.data()};
  GPU_LAUNCH(StreamHandle{}, Grid{1}, kWarps * kWarp, 0, MultiplyTile, call);
  return sums;
}

std::vector<uint16_t> Halves(int count, std::mt19937* random) {
  std::normal_distribution<float> normal;
  std::vector<uint16_t> halves(count);
  for (uint16_t& half : halves) half = F32ToF16(normal(*random));
  return halves;
}

// Ascending k, each a fused multiply-add: the bits, not about.
TEST(MmaTest, EqualsPlainLoops) {
  std::mt19937 random(1);
  const auto rows = Halves(kWarps * 16 * 16, &random);
  const auto tokens = Halves(kWarps * kMmaTokens * 16, &random);
  std::vector<float> sums(kWarps * 16 * kMmaTokens);
  for (float& sum : sums) sum = std::normal_distribution<float>()(random);
  const std::vector<float> got = Products(rows, tokens, sums);
  for (int warp = 0; warp < kWarps; ++warp) {
    for (int row = 0; row < 16; ++row) {
      for (int token = 0; token < kMmaTokens; ++token) {
        const int at = (warp * 16 + row) * kMmaTokens + token;
        float sum = sums[at];
        for (int k = 0; k < 16; ++k) {
          sum = std::fmaf(F16ToF32(rows[(warp * 16 + row) * 16 + k]),
                          F16ToF32(tokens[(warp * kMmaTokens + token) * 16 + k]), sum);
        }
        ASSERT_EQ(got[at], sum) << "warp " << warp << ", row " << row << ", token " << token;
      }
    }
  }
}

TEST(MmaTest, NanStaysInItsToken) {
  std::mt19937 random(2);
  const auto rows = Halves(kWarps * 16 * 16, &random);
  auto tokens = Halves(kWarps * kMmaTokens * 16, &random);
  tokens[3 * 16 + 7] = 0x7e00;
  const std::vector<float> got =
      Products(rows, tokens, std::vector<float>(kWarps * 16 * kMmaTokens));
  for (size_t i = 0; i < got.size(); ++i) {
    const bool is_nan = i < size_t{16} * kMmaTokens && i % kMmaTokens == 3;
    ASSERT_EQ(std::isnan(got[i]), is_nan) << i;
  }
}

TEST(MmaTest, LanesCoverTheTile) {
  std::set<std::pair<int, int>> rows, tokens, sums;
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int r = 0; r < RowFragment::kRows; ++r) {
      for (int q = 0; q < RowFragment::kQuads; ++q) {
        rows.emplace(RowFragment::Row(lane, r), RowFragment::Quad(lane, q));
      }
    }
    for (int q = 0; q < TokenFragment::kQuads; ++q) {
      tokens.emplace(TokenFragment::Token(lane), TokenFragment::Quad(lane, q));
    }
    for (int i = 0; i < TileSums::kValues; ++i) {
      const bool added = sums.emplace(TileSums::Row(lane, i), TileSums::Token(lane, i)).second;
      EXPECT_TRUE(added) << "lane " << lane << ", value " << i;
    }
  }
  EXPECT_EQ(rows.size(), size_t{16 * 4});
  EXPECT_EQ(tokens.size(), size_t{kMmaTokens} * 4);
  EXPECT_EQ(sums.size(), size_t{16} * kMmaTokens);
}

// Lanes that come to different products, or not at all.
void DivergentTile(TileCall call) {
  if (LaneId() == 5) return;
  MultiplyTile(call);
}

TEST(MmaTest, AMissingLaneIsAFault) {
  const std::vector<uint16_t> halves(1024);
  std::vector<float> sums(1024);
  const simt::GlobalRange a(halves.data(), halves.size() * 2), b(sums.data(), sums.size() * 4);
  const KernelCall<TileCall> body = {&DivergentTile, {halves.data(), halves.data(), sums.data()}};
  const simt::GlobalRange parameters(&body, sizeof(body));
  const simt::LaunchArgs launch = {
      .kernel = "tile", .grid = {}, .threads = kWarp, .shared_bytes = 0, .warp = kWarp};
  const auto fault = simt::TryLaunch(launch, body);
  ASSERT_TRUE(fault.has_value());
  EXPECT_EQ(fault->kind, simt::FaultKind::kDivergentWarp);
}

TEST(MmaTest, PairsAreRoundedToNearestEven) {
  EXPECT_EQ(PackPair(1.0f, -2.0f), 0xc0003c00u);
  EXPECT_EQ(PackPair(1.0f + 0x1p-11f, 1.0f + 0x3p-11f), 0x3c023c00u);  // ties
  EXPECT_EQ(PairLow(0xc0003c00u), 1.0f);
  EXPECT_EQ(PairHigh(0xc0003c00u), -2.0f);
  EXPECT_EQ(PairSub(PackPair(1027.0f, 1024.0f), PackPair(1024.0f, 1032.0f)), PackPair(3.0f, -8.0f));
  // The product 1 + 2^-9 + 2^-20 alone would lose its last bit.
  const uint32_t a = PackPair(1.0f + 0x1p-10f, 3.0f);
  EXPECT_EQ(PairFma(a, a, PackPair(-1.0f, 0.5f)), PackPair(0x1p-9f + 0x1p-20f, 9.5f));
}

TEST(MmaTest, RaisedBytes) {
  EXPECT_EQ(RaisedPair(0xff0a8007u, 0), PackPair(1024.0f + 7, 1024.0f + 128));
  EXPECT_EQ(RaisedPair(0xff0a8007u, 1), PackPair(1024.0f + 10, 1024.0f + 255));
}

}  // namespace
}  // namespace fairlead::FAIRLEAD_GPU

// SPDX-License-Identifier: Apache-2.0
// What the op cases do not ask of norms, gates and pooling: the accuracy of activations on every
// instruction set, bits that two ways must share, and bits that the batch must not change.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cpu/simd_elementwise.h"
#include "tests/kernels/case_run.h"
#include "tests/kernels/simd_targets_for_test.h"
#include "tests/reference/reference_ops.h"

namespace fairlead {
namespace {

std::vector<float> Activate(Activation activation, const std::vector<float>& x) {
  const int n = static_cast<int>(x.size());
  std::vector<float> out(n);
  SimdActivateAndMulRow(activation, 0, x.data(), nullptr, n, out.data());
  return out;
}

// In half ulps of the exact value, over floats of [low, high): the largest error.
double LargestError(Activation activation, float low, float high) {
  double worst = 0;
  std::vector<float> x;
  for (int64_t i = 0; i <= 400000; ++i) {
    x.push_back(low + (high - low) * static_cast<float>(i) / 400001);
  }
  const std::vector<float> got = Activate(activation, x);
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = reference::Activated(activation, x[i]);
    if (exact == 0) continue;
    const double error = std::fabs(got[i] / exact - 1) * 0x1p24;
    if (!(error <= worst)) worst = error;  // a NaN, too
  }
  return worst;
}

// Instruction sets without fused multiply-adds lose a little more. Below -4, exp's argument is up
// to 49, and its rounding is that of a result of 1e-20.
TEST(Activations, AreGoodToAFewUlpWhereTheyMatter) {
  ForEachSimdTarget([] {
    for (const Activation activation :
         {Activation::kSilu, Activation::kGeluTanh, Activation::kGelu}) {
      EXPECT_LT(LargestError(activation, 0, 12), 10) << static_cast<int>(activation);
      EXPECT_LT(LargestError(activation, -2, 0), 12) << static_cast<int>(activation);
      EXPECT_LT(LargestError(activation, -4, -2), 32) << static_cast<int>(activation);
      EXPECT_LT(LargestError(activation, -8, -4), 160) << static_cast<int>(activation);
    }
  });
}

class RowOps : public testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Device> device_ = *OpenDevice(GetParam(), {.threads = 2});

  // The one output of what `build` launches.
  std::vector<float> Run(const std::function<void(CaseRun&)>& build) {
    CaseRun run(*device_, DType::kF32, 1);
    build(run);
    EXPECT_EQ(run.Finish(), std::vector<std::string>());
    return run.outputs().back().floats;
  }
  static FloatBound Any(int64_t count) {
    return {std::vector<double>(static_cast<size_t>(count), INFINITY), 0};
  }
  static std::vector<float> Rows(const std::vector<float>& x, int64_t first, int64_t last,
                                 int64_t columns) {
    return {x.begin() + first * columns, x.begin() + last * columns};
  }
  static std::vector<float> Normals(int64_t count) { return CaseRandom(7).Normals(count); }
};

TEST_P(RowOps, AnAddedNormIsRoundedFirst) {
  constexpr int kTokens = 3;
  for (const int hidden : {1, 17, 64, 257}) {
    const std::vector<float> x = Normals(kTokens * hidden), weight = Normals(hidden);
    std::vector<float> before = x;
    std::reverse(before.begin(), before.end());
    const auto norm = [&](bool accumulate) {
      return Run([&](CaseRun& run) {
        const RmsNormArgs args = {
            .x = run.Activations(x, {kTokens, hidden}),
            .weight = run.Floats(weight, {hidden}),
            .out = run.OutputActivations("out", {kTokens, hidden}, Any(kTokens * hidden), before),
            .epsilon = 1e-5f,
            .accumulate = accumulate};
        run.Launch([args](const Ops& ops, Stream& stream) { ops.RmsNorm(stream, args); });
      });
    };
    const std::vector<float> alone = norm(false), added = norm(true);
    for (size_t i = 0; i < x.size(); ++i) {
      const float sum = before[i] + alone[i];
      ASSERT_EQ(added[i], sum) << hidden << " " << i;
    }
  }
}

TEST_P(RowOps, ARowHasTheSameLayerNormAlone) {
  constexpr int kTokens = 70;  // more than a worker takes at once
  for (const int hidden : {1, 17, 384}) {
    const std::vector<float> x = Normals(kTokens * hidden), factors = Normals(hidden);
    const auto norm = [&](const std::vector<float>& rows) {
      return Run([&](CaseRun& run) {
        const auto tokens = static_cast<int64_t>(rows.size()) / hidden;
        const LayerNormArgs args = {
            .x = run.Activations(rows, {tokens, hidden}),
            .weight = run.Floats(factors, {hidden}),
            .bias = run.Floats(factors, {hidden}),
            .out = run.OutputActivations("out", {tokens, hidden}, Any(tokens * hidden)),
            .epsilon = 1e-5f};
        run.Launch([args](const Ops& ops, Stream& stream) { ops.LayerNorm(stream, args); });
      });
    };
    const std::vector<float> together = norm(x);
    for (const int t : {0, 1, 33, kTokens - 1}) {
      EXPECT_EQ(norm(Rows(x, t, t + 1, hidden)), Rows(together, t, t + 1, hidden)) << t;
    }
  }
}

// With a factor of 1 or none at all, in a row of its own or not.
TEST_P(RowOps, AnActivationAloneIsOneTimes1) {
  constexpr int kN = 300;
  const std::vector<float> x = Normals(kN);
  std::vector<float> gated = x;
  gated.resize(2 * kN, 1.0f);
  for (const Activation activation :
       {Activation::kSilu, Activation::kGeluTanh, Activation::kGelu}) {
    const auto activate = [&](const std::vector<float>& rows, bool with_factor) {
      return Run([&](CaseRun& run) {
        const ActivateAndMulArgs args = {
            .x = run.Activations(rows, {1, static_cast<int64_t>(rows.size())}),
            .out = run.OutputActivations("out", {1, kN}, Any(kN)),
            .activation = activation,
            .gated = with_factor};
        run.Launch([args](const Ops& ops, Stream& stream) { ops.ActivateAndMul(stream, args); });
      });
    };
    EXPECT_EQ(activate(x, false), activate(gated, true));
  }
}

// The vector code's, which AreGoodToAFewUlpWhereTheyMatter looks at.
TEST_P(RowOps, GelusHaveTheSameBitsOnAllDevices) {
  std::vector<float> x = Normals(4096);
  const float extremes[] = {0.0f, -0.0f, 1e20f, -1e20f, 1e-30f, -1e-30f, INFINITY, 88.0f, -88.0f};
  std::copy(std::begin(extremes), std::end(extremes), x.begin() + 100);
  for (const Activation activation : {Activation::kGeluTanh, Activation::kGelu}) {
    const std::vector<float> got = Run([&](CaseRun& run) {
      const ActivateAndMulArgs args = {.x = run.Activations(x, {1, 4096}),
                                       .out = run.OutputActivations("out", {1, 2048}, Any(2048)),
                                       .activation = activation};
      run.Launch([args](const Ops& ops, Stream& stream) { ops.ActivateAndMul(stream, args); });
    });
    std::vector<float> want(2048);
    SimdActivateAndMulRow(activation, 0, x.data(), x.data() + 2048, 2048, want.data());
    EXPECT_EQ(got, want);
  }
}

TEST_P(RowOps, ASequenceIsPooledAsIfAlone) {
  constexpr int kHidden = 130;
  const std::vector<int32_t> start = {0, 5, 5, 300, 301, 340};
  const std::vector<float> x = Normals(int64_t{start.back()} * kHidden);
  const auto pool = [&](const std::vector<float>& rows, const std::vector<int32_t>& starts,
                        Pooling pooling, bool normalize) {
    return Run([&](CaseRun& run) {
      const auto seqs = static_cast<int64_t>(starts.size()) - 1;
      const PoolArgs args = {
          .x = run.Activations(rows, {static_cast<int64_t>(rows.size()) / kHidden, kHidden}),
          .query_start = run.Ints(starts, {seqs + 1}),
          .out = run.OutputActivations("out", {seqs, kHidden}, Any(seqs * kHidden)),
          .pooling = pooling,
          .normalize = normalize};
      run.Launch([args](const Ops& ops, Stream& stream) { ops.Pool(stream, args); });
    });
  };
  for (const Pooling pooling : {Pooling::kMean, Pooling::kFirst, Pooling::kLast}) {
    for (const bool normalize : {false, true}) {
      const std::vector<float> together = pool(x, start, pooling, normalize);
      for (size_t s = 0; s + 1 < start.size(); ++s) {
        const std::vector<float> alone = pool(Rows(x, start[s], start[s + 1], kHidden),
                                              {0, start[s + 1] - start[s]}, pooling, normalize);
        EXPECT_EQ(alone, Rows(together, s, s + 1, kHidden)) << s;
      }
    }
  }
}

TEST_P(RowOps, ATokensHeadsAreNormedAsIfAlone) {
  constexpr int kTokens = 9, kHeads = 5, kHeadDim = 48, kRow = (kHeads + 2) * kHeadDim;
  const std::vector<float> x = Normals(kTokens * kRow);
  const auto rope = [&](const std::vector<float>& rows) {
    return Run([&](CaseRun& run) {
      const auto tokens = static_cast<int64_t>(rows.size()) / kRow;
      std::vector<int32_t> slot;
      for (int t = 0; t < tokens; ++t) slot.push_back(t);
      const RopeAndWriteKvArgs args = {
          .qkv = run.OutputActivations("qkv", {tokens, kHeads + 2, kHeadDim}, Any(tokens * kRow),
                                       rows),
          .position = run.Ints(std::vector<int32_t>(tokens, 1), {tokens}),
          .kv_slot = run.Ints(slot, {tokens}),
          .cos_sin = run.Floats(Normals(2 * 32), {2, 32}),
          .kv = run.Kv({1, kHeadDim, 16}, 1),
          .heads = kHeads,
          .pairing = RopePairing::kHalves,
          .q_norm = run.Floats(Normals(kHeadDim), {kHeadDim}),
          .k_norm = run.Floats(Normals(kHeadDim), {kHeadDim}),
          .norm_epsilon = 1e-6f};
      run.Launch([args](const Ops& ops, Stream& stream) { ops.RopeAndWriteKv(stream, args); });
    });
  };
  const std::vector<float> together = rope(x);
  for (int t = 0; t < kTokens; ++t) {
    const std::vector<float> alone = rope(Rows(x, t, t + 1, kRow));
    for (int i = 0; i < kHeads * kHeadDim; ++i) ASSERT_EQ(alone[i], together[t * kRow + i]) << t;
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, RowOps, testing::Values("cpu", "host-simt:32", "host-simt:64"),
                         [](const auto& info) {
                           const std::string name = info.param;
                           return name == "cpu" ? name : "simt" + name.substr(name.size() - 2);
                         });

}  // namespace
}  // namespace fairlead

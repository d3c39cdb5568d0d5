// SPDX-License-Identifier: Apache-2.0
// Every field of every op: a wrong shape, dtype, pointer or scalar aborts with the op's and the
// field's name; right arguments, empty ones included, reach the target once.
#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <string>

#include "kernels/ops.h"

namespace fairlead {
namespace {

class CountingOps : public Ops {
 public:
#define FAIRLEAD_COUNTING_OP(name) \
  void name(Stream&, const name##Args&) const override { ++calls; }
  FAIRLEAD_OPS(FAIRLEAD_COUNTING_OP)
#undef FAIRLEAD_COUNTING_OP
  mutable int calls = 0;
};

class IdleStream : public Stream {
 public:
  void CopyToDevice(void*, const void*, size_t) override {}
  void CopyToHost(void*, const void*, size_t) override {}
  void Wait() override {}
};

class EmptyWeight : public PackedWeight {
 public:
  using PackedWeight::PackedWeight;
  size_t bytes() const override { return 0; }
};

constexpr DType F = DType::kF32, I = DType::kI32;

class CheckedOpsTest : public testing::Test {
 protected:
  // Memory that nobody reads: each tensor gets its own 64 KiB of address space.
  Tensor T(DType dtype, std::initializer_list<int64_t> dims) {
    next_ += 1 << 16;
    return Tensor(reinterpret_cast<void*>(next_), dtype, dims);
  }
  PagedKv Kv() { return {T(F, {1}).data, 4, {.kv_heads = 2, .head_dim = 8, .block_tokens = 16}}; }

  EmbedArgs Embed() { return {.token = T(I, {3}), .table = &weight_, .out = T(F, {3, 32})}; }
  RmsNormArgs RmsNorm() {
    return {.x = T(F, {3, 32}), .weight = T(F, {32}), .out = T(F, {3, 32}), .epsilon = 1e-5f};
  }
  LayerNormArgs LayerNorm() {
    return {.x = T(F, {3, 32}),
            .weight = T(F, {32}),
            .bias = T(F, {32}),
            .out = T(F, {3, 32}),
            .epsilon = 1e-5f};
  }
  MatmulArgs Matmul() {
    return {.x = T(F, {3, 32}),
            .weight = &weight_,
            .out = T(F, {3, 9}),
            .bias = T(F, {7}),
            .out_column = 2};
  }
  RopeAndWriteKvArgs Rope() {
    return {.qkv = T(F, {3, 8, 8}),
            .position = T(I, {3}),
            .kv_slot = T(I, {3}),
            .cos_sin = T(F, {20, 6}),
            .kv = Kv(),
            .heads = 4,
            .pairing = RopePairing::kHalves,
            .q_norm = T(F, {8}),
            .k_norm = T(F, {8}),
            .norm_epsilon = 1e-6f};
  }
  AttentionArgs Attention() {
    return {.qkv = T(F, {3, 8, 8}),
            .out = T(F, {3, 32}),
            .kv = Kv(),
            .query_start = T(I, {3}),
            .context_tokens = T(I, {2}),
            .block_table = T(I, {2, 5}),
            .heads = 4,
            .scale = 0.3f};
  }
  ActivateAndMulArgs Gate() {
    return {.x = T(F, {3, 10}), .out = T(F, {3, 5}), .activation = Activation::kGelu};
  }
  GatherRowsArgs Gather() { return {.x = T(F, {3, 32}), .row = T(I, {2}), .out = T(F, {2, 32})}; }
  SelectTokensArgs Select() {
    return {.token = T(I, {5}), .source = T(I, {5}), .drawn = T(I, {3}), .out = T(I, {5})};
  }
  PoolArgs Pool() {
    return {.x = T(F, {7, 32}),
            .query_start = T(I, {4}),
            .out = T(F, {3, 32}),
            .pooling = Pooling::kMean};
  }
  RouteArgs Route() {
    return {
        .logits = T(F, {3, 8}), .expert = T(I, {3, 2}), .weight = T(F, {3, 2}), .normalize = true};
  }
  RouteArgs RouteOfGroups() {  // 2 of 4, of 2 experts each
    RouteArgs args = Route();
    args.scores = RouteArgs::Scores::kSigmoid;
    args.bias = T(F, {8});
    args.groups = 4;
    args.chosen_groups = 2;
    args.group_scores = 2;
    return args;
  }
  GroupedMatmulArgs Grouped() {
    return {.x = T(F, {3, 32}),
            .expert = T(I, {3, 2}),
            .weight = &experts_,
            .out = T(F, {6, 7}),
            .bias = T(F, {4, 7})};
  }
  CombineExpertsArgs Combine() {
    return {.x = T(F, {6, 5}), .weight = T(F, {3, 2}), .out = T(F, {3, 5})};
  }
  SampleArgs Sample() {
    return {.logits = T(F, {3, 50}),
            .temperature = T(F, {3}),
            .top_k = T(I, {3}),
            .top_p = T(F, {3}),
            .min_p = T(F, {3}),
            .seed = T(I, {3, 2}),
            .position = T(I, {3}),
            .edits = {.start = T(I, {4}),
                      .token = T(I, {9}),
                      .repetition = T(F, {9}),
                      .add = T(F, {9})},
            .allowed = T(I, {5, 2}),
            .allowed_row = T(I, {3}),
            .out = T(I, {3})};
  }
  LogprobsArgs Logprobs() {
    return {.logits = T(F, {3, 50}),
            .target = T(I, {3}),
            .out_logprob = T(F, {3}),
            .out_rank = T(I, {3}),
            .top_token = T(I, {3, 4}),
            .top_logprob = T(F, {3, 4})};
  }

  uintptr_t next_ = 1 << 20;
  EmptyWeight weight_{DType::kQ4_0, 7, 32};
  EmptyWeight experts_{DType::kQ4_0, 28, 32, 4};
  CountingOps target_;
  std::unique_ptr<Ops> ops_ = MakeCheckedOps(target_);
  IdleStream stream_;
};

using CheckedOpsDeathTest = CheckedOpsTest;

// Dies naming the field, for args made by `make` and spoilt by the statement.
#define EXPECT_REFUSED(make, op, spoil, message) \
  do {                                           \
    auto a = make;                               \
    spoil;                                       \
    EXPECT_DEATH(ops_->op(stream_, a), message); \
  } while (false)

TEST_F(CheckedOpsTest, RightArgumentsPass) {
  ops_->Embed(stream_, Embed());
  ops_->RmsNorm(stream_, RmsNorm());
  ops_->LayerNorm(stream_, LayerNorm());
  ops_->Matmul(stream_, Matmul());
  ops_->RopeAndWriteKv(stream_, Rope());
  ops_->Attention(stream_, Attention());
  ops_->ActivateAndMul(stream_, Gate());
  ops_->GatherRows(stream_, Gather());
  ops_->Scale(stream_, {.x = T(F, {3, 5})});
  ops_->SelectTokens(stream_, Select());
  ops_->Pool(stream_, Pool());
  ops_->Route(stream_, Route());
  ops_->GroupedMatmul(stream_, Grouped());
  ops_->CombineExperts(stream_, Combine());
  ops_->Sample(stream_, Sample());
  ops_->Logprobs(stream_, Logprobs());
  EXPECT_EQ(target_.calls, 16);

  RmsNormArgs in_place = RmsNorm();
  in_place.out = in_place.x;
  ops_->RmsNorm(stream_, in_place);
  MatmulArgs no_bias = Matmul();
  no_bias.bias = {};
  ops_->Matmul(stream_, no_bias);
  SampleArgs no_edits = Sample();
  no_edits.edits = {};
  ops_->Sample(stream_, no_edits);
  SampleArgs no_masks = Sample();
  no_masks.allowed = no_masks.allowed_row = {};
  ops_->Sample(stream_, no_masks);
  RopeAndWriteKvArgs no_norms = Rope();
  no_norms.q_norm = no_norms.k_norm = {};
  ops_->RopeAndWriteKv(stream_, no_norms);
  RmsNormArgs accumulate = RmsNorm();
  accumulate.accumulate = true;
  ops_->RmsNorm(stream_, accumulate);
  RmsNormArgs slice = in_place;
  slice.weight = T(F, {20});
  slice.column = 12;
  ops_->RmsNorm(stream_, slice);
  LogprobsArgs no_top = Logprobs();
  no_top.top_token = no_top.top_logprob = {};
  ops_->Logprobs(stream_, no_top);
  GroupedMatmulArgs row_per_slot = Grouped();
  row_per_slot.x = T(F, {6, 32});
  row_per_slot.bias = {};
  ops_->GroupedMatmul(stream_, row_per_slot);
  EXPECT_EQ(target_.calls, 25);
}

TEST_F(CheckedOpsTest, OptionsPass) {
  EmbedArgs added = Embed();
  added.accumulate = true;
  ops_->Embed(stream_, added);
  LayerNormArgs plain = LayerNorm();
  plain.weight = plain.bias = {};
  plain.out = plain.x;
  ops_->LayerNorm(stream_, plain);
  AttentionArgs bidirectional = Attention();
  bidirectional.causal = false;
  ops_->Attention(stream_, bidirectional);
  ActivateAndMulArgs alone = Gate();
  alone.x.dim[1] = 5;
  alone.gated = false;
  ops_->ActivateAndMul(stream_, alone);
  alone.out = alone.x;
  ops_->ActivateAndMul(stream_, alone);
  RouteArgs groups = RouteOfGroups();
  ops_->Route(stream_, groups);
  groups.expert = T(I, {3, 4});
  groups.weight = T(F, {3, 4});
  groups.bias = {};
  ops_->Route(stream_, groups);
  EXPECT_EQ(target_.calls, 7);
}

TEST_F(CheckedOpsTest, EmptyTensorsNeedNoData) {
  ops_->Embed(stream_,
              {.token = {nullptr, I, {0}}, .table = &weight_, .out = {nullptr, F, {0, 32}}});
  ops_->ActivateAndMul(
      stream_,
      {.x = {nullptr, F, {0, 10}}, .out = {nullptr, F, {0, 5}}, .activation = Activation::kSilu});
  PoolArgs no_seqs = Pool();
  no_seqs.x = {nullptr, F, {0, 32}};
  no_seqs.query_start.dim[0] = 1;
  no_seqs.out = {nullptr, F, {0, 32}};
  ops_->Pool(stream_, no_seqs);
  SampleArgs no_entries = Sample();
  no_entries.edits.token = {nullptr, I, {0}};
  no_entries.edits.repetition = no_entries.edits.add = {nullptr, F, {0}};
  no_entries.allowed = {nullptr, I, {0, 2}};  // all rows may have -1
  ops_->Sample(stream_, no_entries);
  EXPECT_EQ(target_.calls, 4);
}

TEST_F(CheckedOpsDeathTest, Embed) {
  EXPECT_REFUSED(Embed(), Embed, a.token.dtype = F, "Embed.token must be i32");
  EXPECT_REFUSED(Embed(), Embed, a.token.rank = 2, "Embed.token");
  EXPECT_REFUSED(Embed(), Embed, a.token.data = nullptr, "Embed.token .* has no data");
  EXPECT_REFUSED(Embed(), Embed, a.table = nullptr, "Embed.table must be set");
  EXPECT_REFUSED(Embed(), Embed, a.out.dim[1] = 31,
                 "Embed.out must be f32 .3, 32., got f32 .3, 31.");
  EXPECT_REFUSED(Embed(), Embed, a.out.dim[0] = 4, "Embed.out");
  EXPECT_REFUSED(Embed(), Embed, a.out.dtype = DType::kQ4_0, "Embed.out must be f32, f16 or bf16");
  EXPECT_REFUSED(Embed(), Embed, a.out.data = a.token.data, "Embed.out .* overlaps token");
}

TEST_F(CheckedOpsDeathTest, RmsNorm) {
  EXPECT_REFUSED(RmsNorm(), RmsNorm, a.x.dtype = I, "RmsNorm.x");
  EXPECT_REFUSED(RmsNorm(), RmsNorm, a.weight.dim[0] = 0, "RmsNorm.weight must be of 1 to 32");
  EXPECT_REFUSED(RmsNorm(), RmsNorm, a.weight.dim[0] = 33, "RmsNorm.weight must be .* got 33");
  EXPECT_REFUSED(RmsNorm(), RmsNorm, a.column = 1, "RmsNorm.weight must be .* from column 1");
  EXPECT_REFUSED(RmsNorm(), RmsNorm, a.column = -1, "RmsNorm.weight must be .* from column -1");
  EXPECT_REFUSED(RmsNorm(), RmsNorm, a.weight.dtype = DType::kF16, "RmsNorm.weight");
  EXPECT_REFUSED(RmsNorm(), RmsNorm, a.out.dtype = DType::kF16, "RmsNorm.out");
  EXPECT_REFUSED(RmsNorm(), RmsNorm, a.out.dim[0] = 2, "RmsNorm.out");
  EXPECT_REFUSED(RmsNorm(), RmsNorm, a.out.data = a.x.As<char>() + 128,
                 "RmsNorm.out .* overlaps x");
  EXPECT_REFUSED(RmsNorm(), RmsNorm, (a.out.data = a.x.data, a.accumulate = true),
                 "RmsNorm.out .* overlaps x");
  EXPECT_REFUSED(RmsNorm(), RmsNorm, a.x.data = a.x.As<char>() + 2, "RmsNorm.x is not aligned");
  EXPECT_REFUSED(RmsNorm(), RmsNorm, a.epsilon = -1e-5f, "RmsNorm.epsilon .* got -1e-05");
  EXPECT_REFUSED(RmsNorm(), RmsNorm, a.epsilon = std::numeric_limits<float>::quiet_NaN(),
                 "RmsNorm.epsilon");
}

TEST_F(CheckedOpsDeathTest, LayerNorm) {
  EXPECT_REFUSED(LayerNorm(), LayerNorm, a.x.dtype = I, "LayerNorm.x");
  EXPECT_REFUSED(LayerNorm(), LayerNorm, a.x.dim[1] = 0, "LayerNorm.x must have columns");
  EXPECT_REFUSED(LayerNorm(), LayerNorm, a.weight.dim[0] = 31, "LayerNorm.weight must be f32 .32.");
  EXPECT_REFUSED(LayerNorm(), LayerNorm, a.weight.data = nullptr, "LayerNorm.weight .* no data");
  EXPECT_REFUSED(LayerNorm(), LayerNorm, a.bias.dtype = DType::kF16, "LayerNorm.bias");
  EXPECT_REFUSED(LayerNorm(), LayerNorm, a.out.dim[0] = 2, "LayerNorm.out");
  EXPECT_REFUSED(LayerNorm(), LayerNorm, a.out.data = a.x.As<char>() + 128,
                 "LayerNorm.out .* overlaps x");
  EXPECT_REFUSED(LayerNorm(), LayerNorm, a.bias.data = a.out.data,
                 "LayerNorm.out .* overlaps bias");
  EXPECT_REFUSED(LayerNorm(), LayerNorm, a.epsilon = -1e-5f, "LayerNorm.epsilon .* got -1e-05");
}

TEST_F(CheckedOpsDeathTest, Matmul) {
  EXPECT_REFUSED(Matmul(), Matmul, a.x.dim[1] = 33,
                 "Matmul.x must be f32 .any, 32., got f32 .3, 33.");
  EXPECT_REFUSED(Matmul(), Matmul, a.x.dtype = I, "Matmul.x");
  EXPECT_REFUSED(Matmul(), Matmul, a.weight = nullptr, "Matmul.weight");
  EXPECT_REFUSED(Matmul(), Matmul, a.out.dim[0] = 4, "Matmul.out");
  EXPECT_REFUSED(Matmul(), Matmul, a.out.dtype = DType::kBF16, "Matmul.out");
  EXPECT_REFUSED(Matmul(), Matmul, a.out_column = 3, "Matmul.out_column 3 . 7 .* 9 columns");
  EXPECT_REFUSED(Matmul(), Matmul, a.out_column = -1, "Matmul.out_column -1");
  EXPECT_REFUSED(Matmul(), Matmul, a.out.dim[1] = 6, "Matmul.out_column");
  EXPECT_REFUSED(Matmul(), Matmul, a.bias.dim[0] = 8, "Matmul.bias");
  EXPECT_REFUSED(Matmul(), Matmul, a.bias.data = nullptr, "Matmul.bias");
  EXPECT_REFUSED(Matmul(), Matmul, a.out.data = a.x.data, "Matmul.out .* overlaps x");
}

TEST_F(CheckedOpsDeathTest, RopeAndWriteKv) {
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.qkv.dim[1] = 7,
                 "RopeAndWriteKv.qkv must be .tokens, 8, 8.");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.qkv.dim[2] = 16, "RopeAndWriteKv.qkv");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.qkv.rank = 2, "RopeAndWriteKv.qkv");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.position.dim[0] = 2, "RopeAndWriteKv.position");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.kv_slot.dtype = F, "RopeAndWriteKv.kv_slot");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.cos_sin.dim[1] = 5, "RopeAndWriteKv.cos_sin .* got 5");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.cos_sin.dim[1] = 10, "RopeAndWriteKv.cos_sin .* got 10");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.cos_sin.dim[0] = 0, "RopeAndWriteKv.cos_sin");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.heads = 3, "RopeAndWriteKv.heads .* kv_heads 2, got 3");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.heads = 6, "RopeAndWriteKv.qkv");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.kv.data = nullptr, "RopeAndWriteKv.kv must have data");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.kv.num_blocks = 0, "RopeAndWriteKv.kv .* got 0 blocks");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.kv.shape.block_tokens = 0, "RopeAndWriteKv.kv");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.kv.shape.block_tokens = 24,
                 "multiples of 16, got 8 and 24");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.kv.shape.head_dim = 257, "at most 256 .* got 257");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.pairing = static_cast<RopePairing>(2),
                 "RopeAndWriteKv.pairing must be kHalves or kAdjacent, got 2");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.position.data = a.qkv.data, "overlaps position");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.q_norm = {}, "k_norm and q_norm must both");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.k_norm = {}, "k_norm and q_norm must both");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.q_norm.dim[0] = 6, "q_norm must be f32 .8.");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.k_norm.dtype = DType::kF16, "k_norm must be f32 .8.");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.k_norm.data = a.qkv.data, "overlaps k_norm");
  EXPECT_REFUSED(Rope(), RopeAndWriteKv, a.norm_epsilon = -1, "norm_epsilon .* got -1");
}

TEST_F(CheckedOpsDeathTest, Attention) {
  EXPECT_REFUSED(Attention(), Attention, a.qkv.dim[1] = 9, "Attention.qkv");
  EXPECT_REFUSED(Attention(), Attention, a.out.dim[1] = 64, "Attention.out");
  EXPECT_REFUSED(Attention(), Attention, a.out.rank = 3, "Attention.out");
  EXPECT_REFUSED(Attention(), Attention, a.query_start.dim[0] = 2, "Attention.query_start");
  EXPECT_REFUSED(Attention(), Attention, a.context_tokens.dtype = F, "Attention.context_tokens");
  EXPECT_REFUSED(Attention(), Attention, a.block_table.dim[0] = 3, "Attention.block_table");
  EXPECT_REFUSED(Attention(), Attention, a.heads = 0, "Attention.heads");
  EXPECT_REFUSED(Attention(), Attention, (a.causal = false, a.window = 8),
                 "Attention.window must be 0 without causal, got 8");
  EXPECT_REFUSED(Attention(), Attention, a.scale = std::numeric_limits<float>::infinity(),
                 "Attention.scale must be finite");
  EXPECT_REFUSED(Attention(), Attention, a.out.data = a.qkv.data, "Attention.out .* overlaps qkv");
}

TEST_F(CheckedOpsDeathTest, Scale) {
  const ScaleArgs right = {.x = T(F, {3, 5})};
  EXPECT_REFUSED(right, Scale, a.x.dtype = I, "Scale.x must be f32, f16 or bf16");
  EXPECT_REFUSED(right, Scale, a.x.rank = 1, "Scale.x");
  EXPECT_REFUSED(right, Scale, a.factor = std::numeric_limits<float>::infinity(), "Scale.factor");
  EXPECT_REFUSED(right, Scale, a.soft_cap = -1, "Scale.soft_cap must be .* got -1");
}

TEST_F(CheckedOpsDeathTest, ActivateAndMulAndGatherRows) {
  EXPECT_REFUSED(Gate(), ActivateAndMul, a.x.dim[1] = 5, "ActivateAndMul.x must be f32 .3, 10.");
  EXPECT_REFUSED(Gate(), ActivateAndMul, a.x.dtype = DType::kF16, "ActivateAndMul.x");
  EXPECT_REFUSED(Gate(), ActivateAndMul, a.out.data = a.x.data, "ActivateAndMul.out .* overlaps x");
  EXPECT_REFUSED(Gate(), ActivateAndMul, a.activation = static_cast<Activation>(4),
                 "ActivateAndMul.activation must be .* got 4");
  EXPECT_REFUSED(Gate(), ActivateAndMul, a.activation = Activation::kClampedSilu,
                 "ActivateAndMul.limit must be finite and above 0");
  EXPECT_REFUSED(Gate(), ActivateAndMul, a.gated = false, "ActivateAndMul.x must be f32 .3, 5.");
  EXPECT_REFUSED(Gate(), ActivateAndMul,
                 (a.gated = false, a.x.dim[1] = 5, a.out.data = a.x.As<char>() + 4),
                 "ActivateAndMul.out .* overlaps x");
  EXPECT_REFUSED(
      Gate(), ActivateAndMul,
      (a.gated = false, a.x.dim[1] = 5, a.activation = Activation::kClampedSilu, a.limit = 7),
      "ActivateAndMul.gated must be true for kClampedSilu");
  EXPECT_REFUSED(Gather(), GatherRows, a.row.dtype = F, "GatherRows.row");
  EXPECT_REFUSED(Gather(), GatherRows, a.out.dim[0] = 3, "GatherRows.out");
  EXPECT_REFUSED(Gather(), GatherRows, a.out.dtype = DType::kF16, "GatherRows.out");
  EXPECT_REFUSED(Gather(), GatherRows, a.out.data = a.x.data, "GatherRows.out .* overlaps x");
}

TEST_F(CheckedOpsDeathTest, SelectTokens) {
  EXPECT_REFUSED(Select(), SelectTokens, a.source.dim[0] = 4, "SelectTokens.source");
  EXPECT_REFUSED(Select(), SelectTokens, a.drawn.dtype = F, "SelectTokens.drawn");
  EXPECT_REFUSED(Select(), SelectTokens, a.out.dim[0] = 6, "SelectTokens.out");
  EXPECT_REFUSED(Select(), SelectTokens, a.out.data = a.drawn.data,
                 "SelectTokens.out .* overlaps drawn");
}

TEST_F(CheckedOpsDeathTest, Pool) {
  EXPECT_REFUSED(Pool(), Pool, a.x.dtype = I, "Pool.x");
  EXPECT_REFUSED(Pool(), Pool, a.out.dim[1] = 31, "Pool.out must be f32 .any, 32.");
  EXPECT_REFUSED(Pool(), Pool, a.query_start.dim[0] = 3, "Pool.query_start must be i32 .4.");
  EXPECT_REFUSED(Pool(), Pool, a.pooling = static_cast<Pooling>(3), "Pool.pooling .* got 3");
  EXPECT_REFUSED(Pool(), Pool, a.out.data = a.x.data, "Pool.out .* overlaps x");
}

TEST_F(CheckedOpsDeathTest, Experts) {
  EXPECT_REFUSED(Matmul(), Matmul, a.weight = &experts_,
                 "Matmul.weight must have at most 1 groups, got 4");
  EXPECT_REFUSED(Embed(), Embed, a.table = &experts_, "Embed.table must have at most 1 groups");
  EXPECT_REFUSED(Route(), Route, a.logits.dtype = I, "Route.logits");
  EXPECT_REFUSED(Route(), Route, a.logits.dim[1] = 1025, "Route.logits .* got 1025");
  EXPECT_REFUSED(Route(), Route, a.logits.dim[1] = 0, "Route.logits");
  EXPECT_REFUSED(Route(), Route, a.logits.dim[1] = 1, "Route.expert .* got 2");
  EXPECT_REFUSED(Route(), Route, a.expert.dim[1] = 33, "Route.expert .* got 33");
  EXPECT_REFUSED(Route(), Route, a.expert.dim[0] = 2, "Route.expert");
  EXPECT_REFUSED(Route(), Route, a.weight.dim[1] = 1, "Route.weight");
  EXPECT_REFUSED(Route(), Route, a.weight.data = a.expert.data, "Route.weight .* overlaps expert");
  EXPECT_REFUSED(Route(), Route, a.expert.data = a.logits.data, "Route.expert .* overlaps logits");
  EXPECT_REFUSED(RouteOfGroups(), Route, a.scores = static_cast<RouteArgs::Scores>(2),
                 "Route.scores must be .* got 2");
  EXPECT_REFUSED(RouteOfGroups(), Route, a.bias.dim[0] = 7, "Route.bias must be f32 .8.");
  EXPECT_REFUSED(RouteOfGroups(), Route, a.bias.data = a.weight.data,
                 "Route.weight .* overlaps bias");
  EXPECT_REFUSED(RouteOfGroups(), Route, a.groups = 3, "Route.groups must be .* got 3");
  EXPECT_REFUSED(RouteOfGroups(), Route, a.groups = 0, "Route.groups must be .* got 0");
  EXPECT_REFUSED(RouteOfGroups(), Route, a.chosen_groups = 5, "Route.chosen_groups .* got 5");
  EXPECT_REFUSED(RouteOfGroups(), Route, a.chosen_groups = 0, "Route.chosen_groups .* got 0");
  EXPECT_REFUSED(RouteOfGroups(), Route, a.group_scores = 3, "Route.group_scores .* got 3");
  EXPECT_REFUSED(RouteOfGroups(), Route, a.group_scores = 0, "Route.group_scores .* got 0");
  EXPECT_REFUSED(RouteOfGroups(), Route,
                 (a.chosen_groups = 1, a.expert.dim[1] = 3, a.weight.dim[1] = 3),
                 "Route.expert must have no more slots than .* got 3");
  EXPECT_REFUSED(RouteOfGroups(), Route, a.scale = std::numeric_limits<float>::infinity(),
                 "Route.scale must be finite");
  EXPECT_REFUSED(Grouped(), GroupedMatmul, a.weight = nullptr, "GroupedMatmul.weight");
  EXPECT_REFUSED(Grouped(), GroupedMatmul, a.x.dim[0] = 4, "GroupedMatmul.x .* got 4");
  EXPECT_REFUSED(Grouped(), GroupedMatmul, a.x.dim[1] = 31, "GroupedMatmul.x");
  EXPECT_REFUSED(Grouped(), GroupedMatmul, a.expert.dtype = F, "GroupedMatmul.expert");
  EXPECT_REFUSED(Grouped(), GroupedMatmul, a.expert.dim[1] = 0, "GroupedMatmul.expert");
  EXPECT_REFUSED(Grouped(), GroupedMatmul, a.out.dim[0] = 3, "GroupedMatmul.out");
  EXPECT_REFUSED(Grouped(), GroupedMatmul, a.out.dim[1] = 28, "GroupedMatmul.out");
  EXPECT_REFUSED(Grouped(), GroupedMatmul, a.bias.dim[0] = 3, "GroupedMatmul.bias");
  EXPECT_REFUSED(Grouped(), GroupedMatmul, a.out.data = a.x.data,
                 "GroupedMatmul.out .* overlaps x");
  EXPECT_REFUSED(Combine(), CombineExperts, a.x.dim[0] = 3, "CombineExperts.x");
  EXPECT_REFUSED(Combine(), CombineExperts, a.weight.dim[0] = 2, "CombineExperts.weight");
  EXPECT_REFUSED(Combine(), CombineExperts, a.weight.dim[1] = 0,
                 "CombineExperts.weight must have slots");
  EXPECT_REFUSED(Combine(), CombineExperts, a.out.dtype = DType::kF16, "CombineExperts.x");
  EXPECT_REFUSED(Combine(), CombineExperts, a.out.data = a.x.data,
                 "CombineExperts.out .* overlaps x");
}

TEST_F(CheckedOpsDeathTest, Sample) {
  EXPECT_REFUSED(Sample(), Sample, a.logits.dtype = DType::kF16, "Sample.logits");
  EXPECT_REFUSED(Sample(), Sample, a.logits.dim[1] = 0, "Sample.logits must have columns");
  EXPECT_REFUSED(Sample(), Sample, a.temperature.dim[0] = 2, "Sample.temperature");
  EXPECT_REFUSED(Sample(), Sample, a.top_k.dtype = F, "Sample.top_k");
  EXPECT_REFUSED(Sample(), Sample, a.top_p.dtype = I, "Sample.top_p");
  EXPECT_REFUSED(Sample(), Sample, a.min_p.data = nullptr, "Sample.min_p");
  EXPECT_REFUSED(Sample(), Sample, a.seed.rank = 1, "Sample.seed");
  EXPECT_REFUSED(Sample(), Sample, a.position.dim[0] = 4, "Sample.position");
  EXPECT_REFUSED(Sample(), Sample, a.out.dtype = F, "Sample.out");
  EXPECT_REFUSED(Sample(), Sample, a.edits.start.dim[0] = 3, "Sample.edits.start");
  EXPECT_REFUSED(Sample(), Sample, a.edits.start = {}, "Sample.edits must have start");
  EXPECT_REFUSED(Sample(), Sample, a.edits.token.dtype = F, "Sample.edits.token");
  EXPECT_REFUSED(Sample(), Sample, a.edits.repetition.dim[0] = 8, "Sample.edits.repetition");
  EXPECT_REFUSED(Sample(), Sample, a.edits.add = {}, "Sample.edits.add");
  EXPECT_REFUSED(Sample(), Sample, a.out.data = a.logits.data, "Sample.out .* overlaps logits");
  EXPECT_REFUSED(Sample(), Sample, a.allowed = {}, "allowed_row and allowed must both");
  EXPECT_REFUSED(Sample(), Sample, a.allowed_row = {}, "allowed_row and allowed must both");
  EXPECT_REFUSED(Sample(), Sample, a.allowed.dim[1] = 1, "Sample.allowed must be i32 .any, 2.");
  EXPECT_REFUSED(Sample(), Sample, a.allowed_row.dim[0] = 2, "Sample.allowed_row must be i32 .3.");
}

TEST_F(CheckedOpsDeathTest, Logprobs) {
  EXPECT_REFUSED(Logprobs(), Logprobs, a.logits.rank = 1, "Logprobs.logits");
  EXPECT_REFUSED(Logprobs(), Logprobs, a.target.dim[0] = 2, "Logprobs.target");
  EXPECT_REFUSED(Logprobs(), Logprobs, a.out_logprob.dtype = I, "Logprobs.out_logprob");
  EXPECT_REFUSED(Logprobs(), Logprobs, a.out_rank.dtype = F, "Logprobs.out_rank");
  EXPECT_REFUSED(Logprobs(), Logprobs, a.top_token = {}, "top_logprob and top_token must both");
  EXPECT_REFUSED(Logprobs(), Logprobs, a.top_logprob.dim[1] = 3, "Logprobs.top_logprob");
  EXPECT_REFUSED(Logprobs(), Logprobs, a.top_token.dim[1] = 51, "51 columns, more than .* 50");
  EXPECT_REFUSED(Logprobs(), Logprobs, a.out_rank.data = a.logits.data, "overlaps logits");
}

}  // namespace
}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "models/latent_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/half.h"
#include "models/convert_weights.h"
#include "models/dummy_weights.h"
#include "models/model.h"
#include "models/overlay_weights.h"
#include "models/registry.h"
#include "tests/models/checkpoint_bytes.h"
#include "tests/reference/dequantize.h"

namespace fairlead {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kHeads = 4, kRope = 16, kNope = 48, kValue = 32, kRank = 64, kHidden = 128;
constexpr int kHeadDim = kRope + kNope;

Json Config(int rank) {
  return {{"architectures", {"DeepseekV3ForCausalLM"}},
          {"hidden_size", kHidden},
          {"intermediate_size", 128},
          {"num_hidden_layers", 2},
          {"num_attention_heads", kHeads},
          {"vocab_size", 64},
          {"max_position_embeddings", 64},
          {"kv_lora_rank", rank},
          {"q_lora_rank", 32},
          {"qk_nope_head_dim", kNope},
          {"qk_rope_head_dim", kRope},
          {"v_head_dim", kValue},
          {"n_routed_experts", 4},
          {"num_experts_per_tok", 2},
          {"n_group", 1},
          {"topk_group", 1},
          {"moe_intermediate_size", 32},
          {"first_k_dense_replace", 1}};
}

std::unique_ptr<WeightSource> Dummy(DType dtype, int rank = kRank) {
  const TemporaryFolder folder;
  folder.Write("config.json", Config(rank).dump());
  auto source = MakeDummyWeights(folder.path(), dtype, 1);
  EXPECT_TRUE(source.ok()) << source.status();
  return *std::move(source);
}

// Element (row, col) of a matrix as f32.
class Values {
 public:
  explicit Values(const WeightInfo* info) : info_(*info), bytes_(*info) {}
  double operator()(int64_t row, int64_t col) const {
    return reference::DequantizeElement(info_.dtype, bytes_.data(), row * info_.dim[1] + col);
  }

 private:
  const WeightInfo& info_;
  const WeightBytes bytes_;
};

constexpr char kPrefix[] = "model.layers.1.self_attn.";

class LatentAttentionTest : public testing::TestWithParam<DType> {};

TEST_P(LatentAttentionTest, MadeMatricesHoldTheFilesValues) {
  const std::unique_ptr<WeightSource> source = Dummy(GetParam());
  const auto config = LoadModelConfig(*source);
  ASSERT_TRUE(config.ok()) << config.status();
  const auto made = ExpandLatentWeights(*source, *config);
  ASSERT_TRUE(made.ok()) << made.status();
  const auto find = [&](const char* name) {
    const WeightInfo* info = (*made)->Find(std::string(kPrefix) + name + ".weight");
    EXPECT_NE(info, nullptr) << name;
    return info;
  };
  const bool quantized = IsQuantized(GetParam());
  const auto rounded = [&](double value) {
    return quantized ? F16ToF32(F32ToF16(static_cast<float>(value))) : value;
  };
  EXPECT_EQ(find("q_heads")->dtype, GetParam());
  EXPECT_EQ(find("kv_heads")->dtype, quantized ? DType::kF16 : GetParam());
  EXPECT_EQ(find("kv_heads")->dim, (std::vector<int64_t>{2 * kHeads * kHeadDim, kRank + kRope}));
  EXPECT_EQ(find("o_heads")->dim, (std::vector<int64_t>{kHidden, kHeads * kHeadDim}));
  const Values q(find("q_heads")), kv(find("kv_heads")), o(find("o_heads"));
  const auto of_file = [&](const char* name) {
    EXPECT_EQ((*made)->Find(std::string(kPrefix) + name + ".weight"), nullptr) << name;
    return source->Find(std::string(kPrefix) + name + ".weight");
  };
  const Values q_b(of_file("q_b_proj")), kv_b(of_file("kv_b_proj")), o_proj(of_file("o_proj"));
  for (int h = 0; h < kHeads; ++h) {
    for (int i = 0; i < kHeadDim; ++i) {
      const int row = h * kHeadDim + i, v_row = kHeads * kHeadDim + row;
      const int q_from = i < kRope ? h * kHeadDim + kNope + i : row - kRope;
      for (int c = 0; c < 32; ++c) ASSERT_EQ(q(row, c), q_b(q_from, c)) << row << " " << c;
      const int of_head = h * (kNope + kValue);
      for (int c = 0; c < kRank + kRope; ++c) {
        double k = 0, v = 0;
        if (i < kRope) k = c == kRank + i ? 1 : 0;
        if (i >= kRope && c < kRank) k = rounded(kv_b(of_head + i - kRope, c));
        if (i < kValue && c < kRank) v = rounded(kv_b(of_head + kNope + i, c));
        ASSERT_EQ(kv(row, c), k) << row << " " << c;
        ASSERT_EQ(kv(v_row, c), v) << v_row << " " << c;
      }
      for (int r = 0; r < kHidden; ++r) {
        ASSERT_EQ(o(r, row), i < kValue ? rounded(o_proj(r, h * kValue + i)) : 0)
            << r << " " << row;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, LatentAttentionTest,
                         testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0,
                                         DType::kQ4_0, DType::kQ5_1),
                         [](const auto& info) { return std::string(Info(info.param).name); });

// --weight-dtype: what is filled up keeps the dtype, and is rounded once. Rows of kv_heads are no
// multiple of a block here: they stay as the file has them.
TEST(LatentAttentionTest, ConvertedMatricesStayConverted) {
  const std::unique_ptr<WeightSource> source = Dummy(DType::kBF16);
  const auto converted = ConvertWeights(Dummy(DType::kBF16), DType::kQ4_0);
  ASSERT_TRUE(converted.ok()) << converted.status();
  const auto config = LoadModelConfig(**converted);
  ASSERT_TRUE(config.ok()) << config.status();
  const auto made = ExpandLatentWeights(**converted, *config);
  ASSERT_TRUE(made.ok()) << made.status();
  const auto find = [&](const WeightSource& from, const char* name) {
    const WeightInfo* info = from.Find(std::string(kPrefix) + name + ".weight");
    EXPECT_NE(info, nullptr) << name;
    return info;
  };
  const WeightInfo& out = *find(**made, "o_heads");
  EXPECT_EQ(out.dtype, DType::kQ4_0);
  EXPECT_EQ(out.file_dtype, "bf16");
  EXPECT_EQ(find(**made, "q_heads")->dtype, DType::kQ4_0);
  EXPECT_EQ(find(**made, "kv_heads")->dtype, DType::kBF16);
  // A head's values are one block, and so are the zeros behind them.
  const Values o(&out), o_proj(find(**converted, "o_proj"));
  const Values kv(find(**made, "kv_heads")), kv_b(find(*source, "kv_b_proj"));
  for (int h = 0; h < kHeads; ++h) {
    for (int i = 0; i < kHeadDim; ++i) {
      for (int r = 0; r < kHidden; ++r) {
        ASSERT_EQ(o(r, h * kHeadDim + i), i < kValue ? o_proj(r, h * kValue + i) : 0) << r;
      }
      if (i >= kValue) continue;
      for (int c = 0; c < kRank; ++c) {
        ASSERT_EQ(kv((kHeads + h) * kHeadDim + i, c), kv_b(h * (kNope + kValue) + kNope + i, c));
      }
    }
  }
}

TEST(LatentAttentionTest, ADummyModelLoads) {
  const auto device = OpenDevice("cpu", {.threads = 1});
  ASSERT_TRUE(device.ok()) << device.status();
  const auto model = LoadModel(*Dummy(DType::kQ8_0), **device, 64);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->config().head_dim, kHeadDim);
}

absl::Status ExpandStatus(const WeightSource& source) {
  const auto config = LoadModelConfig(source);
  if (!config.ok()) return config.status();
  return ExpandLatentWeights(source, *config).status();
}

TEST(LatentAttentionTest, WhatIsMissingOrMisshapenIsNamed) {
  const std::unique_ptr<WeightSource> source = Dummy(DType::kF32);
  for (const char* name : {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"}) {
    WeightInfo wrong = *source->Find(std::string(kPrefix) + name + ".weight");
    std::swap(wrong.dim[0], wrong.dim[1]);
    const std::string tensor = wrong.name;
    if (wrong.dim[0] == wrong.dim[1]) wrong.dim[0] += 1;
    const OverlayWeights changed(*source, {wrong});
    const absl::Status status = ExpandStatus(changed);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr(tensor), HasSubstr("has the shape")));
  }
  const TemporaryFolder folder;
  folder.Write("config.json", Config(kRank).dump());
  folder.Write("model.safetensors", SafetensorsFile("{}", ""));
  const auto empty = OpenWeights(folder.path());
  ASSERT_TRUE(empty.ok()) << empty.status();
  EXPECT_THAT(std::string(ExpandStatus(**empty).message()),
              HasSubstr("model.layers.0.self_attn.q_a_proj.weight is missing"));
}

TEST(LatentAttentionTest, ADtypeThatCannotBeReadBackIsNamed) {
  const std::unique_ptr<WeightSource> source = Dummy(DType::kF32, 256);
  WeightInfo quantized = *source->Find(std::string(kPrefix) + "kv_b_proj.weight");
  quantized.dtype = DType::kQ4_K;
  const OverlayWeights changed(*source, {quantized});
  const absl::Status status = ExpandStatus(changed);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("layers.1.self_attn.kv_b_proj.weight"), HasSubstr("q4_k")));
}

}  // namespace
}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// The predictions against figures worked out by hand from Llama-3.1-8B's and SmolLM2's shapes:
//   8B      layers (4096 * 6144 + 4096 * 4096 + 4096 * 28672 + 14336 * 4096) * 32 = 6,979,321,856,
//           head 128256 * 4096 = 525,336,576
//   SmolLM2 layers (576 * 960 + 576 * 576 + 576 * 3072 + 1536 * 576) * 30 = 106,168,320,
//           head 49152 * 576 = 28,311,552
#include "bench/roofline/predict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <map>

#include "bench/roofline/measured.h"

namespace fairlead::bench {
namespace {

using ::testing::HasSubstr;

ModelConfig Model(const std::string& name) {
  std::ifstream file(std::string(FAIRLEAD_BENCH_DIR) + "/models/" + name + "/config.json");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const auto json = ParseJson(text);
  EXPECT_TRUE(json.ok()) << json.status();
  const auto config = ParseConfig(*json);
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

// An H100's: 3.0e12 bytes/s, 800e12 and 650e12 operations/s.
const DeviceLimits kLimits = {.memory = 3e12, .f32 = 50e12, .bf16 = 800e12, .attention = 650e12};

double FloorMs(const ModelConfig& model, const ModelDTypes& dtypes, const StepShape& step,
               const DeviceLimits& limits = kLimits) {
  return PredictStep(model, dtypes, step, limits, Arithmetic::kBF16, 0).floor_ms;
}

std::map<std::string, KernelWork> KernelsByName(const StepShape& step) {
  std::map<std::string, KernelWork> out;
  for (const KernelWork& kernel : StepKernels(Model("llama-8b"), {}, step))
    out[kernel.name] = kernel;
  return out;
}

TEST(ModelWork, BytesOfWeightsAndKv) {
  const ModelConfig llama = Model("llama-8b"), smollm = Model("smollm2-135m");
  EXPECT_EQ(WeightBytes(llama, DType::kBF16), 2.0 * (6'979'321'856 + 525'336'576));
  // With the embedding table: the 16.06 GB that a file of it has.
  EXPECT_EQ(StoredWeightBytes(llama, DType::kBF16), 2.0 * (6'979'321'856 + 2 * 525'336'576));
  // 34 bytes for 32 values; 18.
  EXPECT_EQ(WeightBytes(smollm, DType::kQ8_0), (106'168'320.0 + 28'311'552) * 34 / 32);
  EXPECT_EQ(StoredWeightBytes(smollm, DType::kQ4_0), (106'168'320.0 + 28'311'552) * 18 / 32);
  EXPECT_EQ(KvBytesPerToken(llama, DType::kF16), 131'072);
  EXPECT_EQ(KvBytesPerToken(smollm, DType::kF32), 46'080);
}

TEST(StepKernels, OfADecode) {
  const auto kernels = KernelsByName({.sequences = 2, .queries = 1, .context = 100});
  const KernelWork& down = kernels.at("Matmul down");
  EXPECT_EQ(down.count, 32);
  EXPECT_EQ(down.operations, 32.0 * 2 * 2 * 14336 * 4096);
  EXPECT_EQ(down.stored_bytes, 32.0 * 14336 * 4096 * 2);
  // Reads x of 14336, and reads and writes the residual stream.
  EXPECT_EQ(down.activation_bytes, 32.0 * 2 * (14336 + 2 * 4096) * 4);
  const KernelWork& attention = kernels.at("Attention");
  EXPECT_EQ(attention.operations, 32.0 * 4 * 2 * 100 * 4096);
  EXPECT_EQ(attention.stored_bytes, 2.0 * 100 * 131'072);
  EXPECT_EQ(kernels.at("RopeAndWriteKv").stored_bytes, 2.0 * 131'072);
  EXPECT_EQ(kernels.at("RmsNorm").count, 64);
  EXPECT_EQ(kernels.at("Matmul head").activation_bytes, 2.0 * (4096 + 128256) * 4);
  EXPECT_EQ(kernels.at("Sample").activation_bytes, 2.0 * 128256 * 4);
}

TEST(StepKernels, OfAPrefillBehindOthers) {
  // 4 queries see 7, 8, 9 and 10 keys.
  const auto kernels = KernelsByName({.sequences = 1, .queries = 4, .context = 10});
  EXPECT_EQ(kernels.at("Attention").operations, 32.0 * 4 * 34 * 4096);
  EXPECT_EQ(kernels.at("Attention").stored_bytes, 10.0 * 131'072);
  // Logits of the last token alone.
  EXPECT_EQ(kernels.at("Matmul head").operations, 2.0 * 128256 * 4096);
  EXPECT_EQ(kernels.at("ActivateAndMul").activation_bytes, 32.0 * 3 * 4 * 14336 * 4);
}

// 15.009 GB / 3.0 TB/s = 5.003 ms; KV of 1,024 tokens: 134.2 MB, 0.0447 ms a sequence.
TEST(Predict, DecodeOf8B) {
  const ModelConfig model = Model("llama-8b");
  DeviceLimits sheet = kLimits;
  sheet.memory = 3.35e12;
  EXPECT_NEAR(FloorMs(model, {}, {1, 1, 0}, sheet), 4.48, 0.005);
  EXPECT_NEAR(FloorMs(model, {}, {1, 1, 0}), 5.003, 0.001);
  EXPECT_NEAR(8e3 / FloorMs(model, {}, {8, 1, 1024}), 1492, 1);
  EXPECT_NEAR(32e3 / FloorMs(model, {}, {32, 1, 1024}), 4973, 2);
  EXPECT_NEAR(128e3 / FloorMs(model, {}, {128, 1, 1024}), 11929, 5);
  // Above 266 sequences the matmuls take longer than their weights: 2 * 7.5047e9 * 400 / 800e12.
  EXPECT_NEAR(FloorMs(model, {}, {400, 1, 0}), 7.505, 0.001);
  const ModelDTypes q8 = {.weights = DType::kQ8_0}, q4 = {.weights = DType::kQ4_0};
  EXPECT_NEAR(FloorMs(model, q8, {1, 1, 0}), 2.66, 0.005);
  EXPECT_NEAR(FloorMs(model, q4, {1, 1, 0}), 1.41, 0.005);
}

// 2 * 6.979e9 * S / 800e12 + 2 * 4096 * 32 * S^2 / 650e12.
TEST(Predict, PrefillOf8B) {
  const ModelConfig model = Model("llama-8b");
  EXPECT_NEAR(FloorMs(model, {}, {1, 2048, 2048}), 37.4, 0.1);
  EXPECT_NEAR(FloorMs(model, {}, {1, 8192, 8192}), 170, 0.5);
  EXPECT_NEAR(FloorMs(model, {}, {1, 20000, 20000}), 510, 1);
  // So few tokens wait for the weights.
  EXPECT_NEAR(FloorMs(model, {}, {1, 16, 16}), 5.003, 0.001);
}

TEST(Predict, SmolLm2) {
  const ModelConfig model = Model("smollm2-135m");
  EXPECT_NEAR(FloorMs(model, {}, {1, 1, 0}), 0.0897, 0.0001);
  EXPECT_NEAR(FloorMs(model, {.weights = DType::kQ4_0}, {1, 1, 0}), 0.0252, 0.0001);
}

TEST(Predict, KernelsAddActivationsAndLaunches) {
  const ModelConfig model = Model("smollm2-135m");
  const StepShape step = {1, 1, 1};
  const Predicted none = PredictStep(model, {}, step, kLimits, Arithmetic::kBF16, 0);
  const Predicted some = PredictStep(model, {}, step, kLimits, Arithmetic::kBF16, 1.3);
  EXPECT_GT(none.kernels_ms, none.floor_ms);
  EXPECT_EQ(some.floor_ms, none.floor_ms);
  // 30 layers of 9, and Embed, GatherRows, RmsNorm, head, Sample.
  EXPECT_NEAR(some.kernels_ms - none.kernels_ms, 275 * 1.3e-3, 1e-9);
  // f32 units: the rate of nothing else.
  const Predicted f32 =
      PredictStep(Model("llama-8b"), {}, {1, 2048, 2048}, kLimits, Arithmetic::kF32, 0);
  EXPECT_NEAR(f32.floor_ms, (2 * 6.979321856e9 * 2048 + 1.1e12 + 1.05e9) / 50e12 * 1e3, 0.2);
}

TEST(PredictGrid, SaysWhatFits) {
  const ModelConfig model = Model("llama-8b");
  const PredictionGrid grid = {.batches = {1}, .contexts = {1024}, .prompts = {128}};
  const Json fits = PredictGrid(model, {}, kLimits, 80e9, Arithmetic::kBF16, 0, grid);
  // (80 - 16.06 - 2) GB / 131,072.
  EXPECT_NEAR(fits["kv_tokens"].get<double>(), 472.6e3, 100);
  EXPECT_EQ(fits["decode"].size(), 1u);
  EXPECT_EQ(fits["prefill"][0]["prompt"], 128);
  EXPECT_TRUE(
      PredictGrid(model, {}, kLimits, 16e9, Arithmetic::kBF16, 0, grid)["kv_tokens"].is_null());
}

TEST(DeviceTable, HasTheFiveAndTheirSources) {
  const auto table = LoadDeviceTable(std::string(FAIRLEAD_BENCH_DIR) + "/roofline/devices.json");
  ASSERT_TRUE(table.ok()) << table.status();
  ASSERT_EQ(table->size(), 5u);
  for (const TableDevice& device : *table) {
    EXPECT_THAT(device.sheet.source, ::testing::AnyOf(HasSubstr("sheet"), HasSubstr("white paper")))
        << device.id;
    // Sparse figures in a dense column, or a unit that slipped, break these.
    EXPECT_GT(device.sheet.bf16, device.sheet.f32) << device.id;
    EXPECT_NEAR(device.sheet.fp8 / device.sheet.bf16, 2, 0.02) << device.id;
    EXPECT_LE(device.reached.memory, device.sheet.memory) << device.id;
    EXPECT_LE(device.reached.bf16, device.sheet.bf16) << device.id;
    EXPECT_GT(device.memory_bytes, 20e9) << device.id;
  }
  EXPECT_EQ(FindDevice(*table, "NVIDIA H100 80GB HBM3, sm_90")->id, "h100-sxm");
  EXPECT_EQ(FindDevice(*table, "AMD Instinct MI300X, gfx942")->id, "mi300x");
  for (const char* other :
       {"NVIDIA L40S", "NVIDIA H100 PCIe", "NVIDIA GeForce RTX 4090 Laptop GPU, sm_89",
        "NVIDIA GeForce RTX 4090 D, sm_89", "NVIDIA H200 NVL, sm_90",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb, sm_90"}) {
    EXPECT_EQ(FindDevice(*table, other), nullptr) << other;
  }
}

TEST(DeviceTable, NamesWhatIsWrong) {
  EXPECT_THAT(std::string(ParseDeviceTable(Json::object()).status().message()),
              HasSubstr("devices"));
  const auto parse = [](const char* sheet) {
    const std::string text = std::string(R"({"devices": [{"id": "x", "title": "X", "name": "X",
      "memory_bytes": 1, "sheet": )") +
                             sheet + "}]}";
    return std::string(ParseDeviceTable(*ParseJson(text)).status().message());
  };
  EXPECT_THAT(parse(R"({"memory": 1, "f32": 1, "bf16": 1, "int8": 1, "source": ""})"), "");
  EXPECT_THAT(parse(R"({"memory": -1, "f32": 1, "bf16": 1, "int8": 1, "source": ""})"),
              HasSubstr("x, sheet: memory is no number above 0"));
  EXPECT_THAT(parse(R"({"memory": 1, "f32": 1, "bf16": 1, "int8": 1})"), HasSubstr("source"));
  EXPECT_THAT(parse("[]"), HasSubstr("x, sheet: is no object"));
}

TEST(Measured, ReadsAResultOfEngineBench) {
  const Json test = {{"test", "tg64 @ d1024 b8"}, {"n_prompt", 0}, {"n_gen", 64},
                     {"n_depth", 1024},           {"batch", 8},    {"median", 1000.0}};
  const auto decode = CompareTest(test, 256, Model("llama-8b"), {}, kLimits, Arithmetic::kBF16, 0);
  ASSERT_TRUE(decode.has_value());
  EXPECT_DOUBLE_EQ(decode->measured_ms, 8);
  // The context in the middle of the run is 1024 + 1 + 32: 5.003 + 8 * 1057 * 131072 / 3e12.
  EXPECT_NEAR(decode->predicted.floor_ms, 5.003 + 0.3695, 0.001);
  const Json prompt = {{"test", "pp512 @ d100"}, {"n_prompt", 512}, {"n_gen", 0},
                       {"n_depth", 100},         {"batch", 1},      {"median", 256.0}};
  const auto prefill =
      CompareTest(prompt, 256, Model("llama-8b"), {}, kLimits, Arithmetic::kBF16, 0);
  ASSERT_TRUE(prefill.has_value());
  EXPECT_DOUBLE_EQ(prefill->measured_ms, 2000);
  EXPECT_NEAR(prefill->predicted.floor_ms, FloorMs(Model("llama-8b"), {}, {1, 512, 612}), 1e-9);
  // Two steps, which read the weights each.
  const auto kernels = [](int64_t context) {
    return PredictStep(Model("llama-8b"), {}, {1, 256, context}, kLimits, Arithmetic::kBF16, 0)
        .kernels_ms;
  };
  EXPECT_NEAR(prefill->predicted.kernels_ms, kernels(356) + kernels(612), 1e-9);
  // A mix of both is no step, and a rate of 0 no time.
  Json mixed = test, failed = test;
  mixed["n_prompt"] = 128;
  failed["median"] = 0;
  EXPECT_FALSE(CompareTest(mixed, 256, Model("llama-8b"), {}, kLimits, Arithmetic::kBF16, 0));
  EXPECT_FALSE(CompareTest(failed, 256, Model("llama-8b"), {}, kLimits, Arithmetic::kBF16, 0));
}

}  // namespace
}  // namespace fairlead::bench

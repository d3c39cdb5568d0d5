// SPDX-License-Identifier: Apache-2.0
// The tiny checkpoints of golden/models against transformers' logits, on every device at hand.
// Tolerances: golden README, section "models" (float32: 1e-3 and equal greedy tokens; bf16 weights
// and activations: rms 0.15, largest 1.0).
#include "models/decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "tests/fault_device.h"
#include "tests/guarded_device.h"
#include "tests/models/golden_checkpoint.h"
#include "tests/models/model_runner.h"
#include "tests/reference/reference_device.h"

namespace fairlead {
namespace {

constexpr int kMaxTokens = GoldenCheckpoint::kMaxTokens;

std::unique_ptr<Device> Open(std::string_view name, Numerics numerics) {
  // Shards of this test run side by side: the slow executor leaves the cores to them.
  const int threads = name == "cpu" ? 2 : 1;
  auto device = OpenDevice(name, {.threads = threads, .numerics = numerics});
  EXPECT_TRUE(device.ok()) << device.status();
  return *std::move(device);
}

std::unique_ptr<Device> Cpu(Numerics numerics) { return Open("cpu", numerics); }

class DecoderTest : public testing::TestWithParam<const char*> {
 protected:
  using MakeDevice = GoldenCheckpoint::MakeDevice;
  void SetUp() override {
    auto checkpoint = GoldenCheckpoint::Read(GetParam());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    checkpoint_ = *std::move(checkpoint);
  }
  std::string Folder() const { return GoldenCheckpoint::Folder(GetParam()); }
  void ExpectFloat32(const MakeDevice& make) const { checkpoint_.ExpectFloat32(Folder(), make); }
  void ExpectPrecise(const MakeDevice& make) const { checkpoint_.ExpectPrecise(Folder(), make); }

  GoldenCheckpoint checkpoint_;
};

TEST_P(DecoderTest, CpuFloat32) {
  ExpectFloat32([] { return Cpu(Numerics::kFloat32); });
}
TEST_P(DecoderTest, Reference) {
  ExpectFloat32([] { return reference::MakeReferenceDevice(); });
}
TEST_P(DecoderTest, GuardedDevice) {
  ExpectFloat32([] { return MakeGuardedDevice(Cpu(Numerics::kFloat32)); });
}

TEST_P(DecoderTest, HostSimt32Float32) {
  ExpectFloat32([] { return Open("host-simt:32", Numerics::kFloat32); });
}
TEST_P(DecoderTest, HostSimt64Float32) {
  ExpectFloat32([] { return Open("host-simt:64", Numerics::kFloat32); });
}

TEST_P(DecoderTest, CpuPrecise) {
  ExpectPrecise([] { return Cpu(Numerics::kPrecise); });
}
TEST_P(DecoderTest, HostSimt32Precise) {
  ExpectPrecise([] { return Open("host-simt:32", Numerics::kPrecise); });
}
TEST_P(DecoderTest, HostSimt64Precise) {
  ExpectPrecise([] { return Open("host-simt:64", Numerics::kPrecise); });
}

// Sizes of the chunks, of which the last one repeats. The executor is too slow for all of them.
struct Chunks {
  const char* device;
  std::vector<size_t> sizes;
};

TEST_P(DecoderTest, ChunksGiveTheSameBits) {
  const std::vector<Chunks> cases = {{"cpu", {1}},
                                     {"cpu", {7}},
                                     {"cpu", {16}},
                                     {"host-simt:32", {7, 25, 1}},
                                     {"host-simt:64", {16, 17, 1}}};
  const auto ids = checkpoint_.golden()["sequences"][2]["ids"].get<std::vector<Token>>();
  for (const Chunks& chunks : cases) {
    auto runner = ModelRunner::Open(Folder(), Open(chunks.device, Numerics::kPrecise), kMaxTokens);
    ASSERT_TRUE(runner.ok()) << runner.status();
    const std::vector<float> whole = (*runner)->Run(ids, 1);
    (*runner)->Restart();
    std::vector<float> last;
    for (size_t begin = 0, i = 0; begin < ids.size(); ++i) {
      const size_t chunk = chunks.sizes[std::min(i, chunks.sizes.size() - 1)];
      last = (*runner)->Run(absl::MakeConstSpan(ids).subspan(begin, chunk), 1);
      begin += chunk;
    }
    EXPECT_EQ(last, whole) << chunks.device << ", chunks of " << chunks.sizes[0];
  }
}

TEST_P(DecoderTest, LayersInHostMemoryGiveTheSameBits) {
  for (const auto& [name, few] : {std::pair("host-simt:32", 1), std::pair("host-simt:64", 0)}) {
    std::vector<float> resident;
    for (const std::optional<int> layers : {std::optional<int>(), {few}}) {
      auto runner = ModelRunner::Open(Folder(), Open(name, Numerics::kPrecise), kMaxTokens, {},
                                      {.resident = layers});
      ASSERT_TRUE(runner.ok()) << runner.status();
      const Model& model = (*runner)->model();
      EXPECT_EQ(model.resident_layers(), layers.value_or(model.config().layers));
      EXPECT_EQ(model.host_weight_bytes() > 0, layers.has_value());
      const auto ids = checkpoint_.golden()["sequences"][2]["ids"].get<std::vector<Token>>();
      std::vector<float> logits = (*runner)->Run(ids, static_cast<int>(ids.size()));
      for (int step = 0; step < 3; ++step) {
        const std::vector<float> next = (*runner)->Run(absl::MakeConstSpan(ids).first(1), 1);
        logits.insert(logits.end(), next.begin(), next.end());
      }
      if (!layers) resident = logits;
      EXPECT_EQ(logits, resident) << name << ", " << layers.value_or(-1);
    }
  }
}

std::string TestName(const testing::TestParamInfo<const char*>& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(
    Checkpoints, DecoderTest,
    testing::Values("llama-gqa", "llama-tied-mqa", "llama-bias-sharded", "llama-bf16",
                    "llama-rope-llama3", "llama-rope-linear", "mistral-window8", "qwen2-tied",
                    "qwen2-yarn", "qwen3", "qwen3-moe", "gemma2", "gemma3", "phi3", "phi3-longrope",
                    "olmo", "olmo2", "mixtral-sharded", "gpt-oss-bf16", "gpt-oss-mxfp4", "granite",
                    "smollm3", "smollm3-interval", "phi4-mini", "llama3-head48", "mistral-head16",
                    "gemma2-window16", "gemma3-7layers", "gemma3-with-vision", "gpt-oss-3layers",
                    "qwen3-moe-sparse", "qwen2-moe", "deepseek-v2-lite", "deepseek-v2",
                    "deepseek-v2-groups", "deepseek-v3"),
    TestName);

// Written by the formats' own packages: golden/make/make_quantized.py.
INSTANTIATE_TEST_SUITE_P(Quantized, DecoderTest,
                         testing::Values("fp8-block", "fp8-tensor", "gptq-int4", "gptq-int4-asym",
                                         "gptq-int4-act-order", "gptq-int8", "awq-int4", "ct-int4",
                                         "ct-int4-asym", "ct-int8-packed", "ct-int8",
                                         "ct-fp8-block", "ct-mixed"),
                         TestName);

TEST(DecoderLoadTest, EveryFailedAllocationIsAStatus) {
  const std::unique_ptr<Device> cpu = Cpu(Numerics::kFloat32);
  FaultDevice device(*cpu);
  auto source = OpenWeights(GoldenCheckpoint::Folder("llama-gqa"));
  ASSERT_TRUE(source.ok()) << source.status();
  device.FailAt(-1);
  ASSERT_TRUE(LoadModel(**source, device, kMaxTokens).ok());
  const int64_t calls = device.calls();
  EXPECT_GT(calls, 10);  // 4 matrices a layer, embedding, head, vectors
  for (int64_t k = 0; k < calls; ++k) {
    device.FailAt(k);
    EXPECT_EQ(LoadModel(**source, device, kMaxTokens).status().code(),
              absl::StatusCode::kResourceExhausted)
        << k;
  }
}

// A device of the GPU kernels' with so much memory, of which nothing is ever used.
class SmallDevice : public FaultDevice {
 public:
  SmallDevice(Device& inner, size_t free) : FaultDevice(inner), free_(free) {}
  size_t FreeMemory() const override { return free_; }

 private:
  const size_t free_;
};

TEST(DecoderLoadTest, AsManyLayersStayOnTheDeviceAsFit) {
  const std::unique_ptr<Device> simt = Open("host-simt:32", Numerics::kPrecise);
  auto source = OpenWeights(GoldenCheckpoint::Folder("llama-gqa"));
  ASSERT_TRUE(source.ok()) << source.status();
  const auto whole = LoadModel(**source, *simt, kMaxTokens);
  ASSERT_TRUE(whole.ok()) << whole.status();
  const int layers = (*whole)->config().layers;
  ASSERT_GE(layers, 2);
  // Of tiny weights, each takes a page of the driver's.
  const size_t page = simt->PackedBytes(DType::kF32, 1, 4, 1);
  const size_t scratch = (*whole)->ScratchBytes(kMaxTokens, 8);
  constexpr size_t kKv = size_t{3} << 20, kVectors = size_t{1} << 19;
  const auto resident = [&](size_t pages) {
    SmallDevice device(*simt, kKv + kVectors + scratch + pages * page);
    auto model = LoadModel(
        **source, device, kMaxTokens, nullptr,
        {.resident = std::nullopt, .kept_bytes = kKv, .max_tokens = kMaxTokens, .max_rows = 8});
    EXPECT_TRUE(model.ok()) << model.status();
    return (*model)->resident_layers();
  };
  const size_t all = 4 * static_cast<size_t>(layers);
  EXPECT_EQ(resident(all), layers);
  EXPECT_EQ(resident(all - 1), layers - 1);  // the last layer's place is for two that pass through
  EXPECT_EQ(resident(4 + 2), 1);
  EXPECT_EQ(resident(4 + 1), 0);
  EXPECT_EQ(resident(0), 0);
}

// All of the vectors, biases of experts included, lie on the device whatever else does.
TEST(DecoderLoadTest, ResidentLayersLeaveRoomForVectors) {
  const std::unique_ptr<Device> simt = Open("host-simt:32", Numerics::kPrecise);
  auto source = OpenWeights(GoldenCheckpoint::Folder("gpt-oss-bf16"));
  ASSERT_TRUE(source.ok()) << source.status();
  const auto whole = LoadModel(**source, *simt, kMaxTokens);
  ASSERT_TRUE(whole.ok()) << whole.status();
  constexpr size_t kLayers = 2, kHidden = 64, kFfn = 96, kExperts = 4, kHeads = 4, kHeadDim = 32;
  const size_t page = simt->PackedBytes(DType::kBF16, 1, 32, 1);
  const size_t matrices = kLayers * 5 * page;  // qkv, o, the router, two of experts
  const size_t biases = kHidden + 2 * kHeads * kHeadDim + kExperts * (1 + 2 * kFfn + kHidden);
  const size_t layer = 2 * kHidden + kHeads + biases;
  const size_t vectors = 4 * (kLayers * layer + kHidden + kMaxTokens * kHeadDim);
  const size_t needed = (*whole)->ScratchBytes(kMaxTokens, 8) + vectors + matrices;
  for (const size_t lacking : {size_t{0}, size_t{4}}) {
    SmallDevice device(*simt, needed - lacking);
    auto model = LoadModel(
        **source, device, kMaxTokens, nullptr,
        {.resident = std::nullopt, .kept_bytes = 0, .max_tokens = kMaxTokens, .max_rows = 8});
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ((*model)->resident_layers() == static_cast<int>(kLayers), lacking == 0);
  }
}

TEST(DecoderLoadTest, UnknownPathIsNotFound) {
  EXPECT_EQ(ModelRunner::Open(GoldenCheckpoint::Folder("no-such-model"), Cpu(Numerics::kFloat32),
                              kMaxTokens)
                .status()
                .code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace fairlead

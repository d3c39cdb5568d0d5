// SPDX-License-Identifier: Apache-2.0
// A decoder as an embedding model: the checkpoint of golden/models whose folder has a backbone
// alone, against transformers' last hidden states and their pooled vectors.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "models/json.h"
#include "tests/guarded_device.h"
#include "tests/models/checkpoint_bytes.h"
#include "tests/models/model_runner.h"
#include "tests/reference/reference_device.h"

namespace fairlead {
namespace {

constexpr char kFolder[] = FAIRLEAD_GOLDEN_DIR "/models/qwen3-embedding";
constexpr int kMaxTokens = 64;

std::unique_ptr<Device> Open(std::string_view name) {
  if (name == "reference") return reference::MakeReferenceDevice();
  const bool guarded = name == "guarded";
  auto device = OpenDevice(guarded ? "cpu" : name, {.threads = 2, .numerics = Numerics::kFloat32});
  EXPECT_TRUE(device.ok()) << device.status();
  return guarded ? MakeGuardedDevice(*std::move(device)) : *std::move(device);
}

class DecoderEmbeddingTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto golden = ParseJson(ReadWholeFile(absl::StrCat(kFolder, "/golden.json")));
    ASSERT_TRUE(golden.ok()) << golden.status();
    golden_ = *std::move(golden);
    const std::string bytes = ReadWholeFile(absl::StrCat(kFolder, "/golden.f32"));
    values_.resize(bytes.size() / sizeof(float));
    std::memcpy(values_.data(), bytes.data(), values_.size() * sizeof(float));
  }

  // Golden README, section "models": 1e-4.
  void ExpectNear(const std::vector<float>& got, const Json& sequence, const char* name) const {
    const Json& want = sequence[name];
    size_t elements = 1;
    for (const Json& dim : want["shape"]) elements *= dim.get<size_t>();
    ASSERT_EQ(got.size(), elements) << name;
    const float* values = values_.data() + want["offset"].get<size_t>();
    for (size_t i = 0; i < elements; ++i) ASSERT_NEAR(got[i], values[i], 1e-4) << name << " " << i;
  }

  Json golden_;
  std::vector<float> values_;
};

TEST_P(DecoderEmbeddingTest, GivesTheHiddenStatesAndTheirPooledVectors) {
  const auto runner = ModelRunner::Open(kFolder, Open(GetParam()), kMaxTokens);
  ASSERT_TRUE(runner.ok()) << runner.status();
  ModelRunner& model = **runner;
  for (const Json& sequence : golden_["sequences"]) {
    const auto ids = sequence["ids"].get<std::vector<Token>>();
    const auto pooled = [&](Pooling pooling, bool normalize) {
      model.Restart();
      return model.RunToPooled(ids, pooling, normalize);
    };
    model.Restart();
    ExpectNear(model.RunToFinalNorm(ids), sequence, "last_hidden_state");
    ExpectNear(pooled(Pooling::kLast, true), sequence, "last_normalized");
    ExpectNear(pooled(Pooling::kLast, false), sequence, "last");
    ExpectNear(pooled(Pooling::kMean, true), sequence, "mean_normalized");
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, DecoderEmbeddingTest,
                         testing::Values("cpu", "reference", "guarded", "host-simt:32",
                                         "host-simt:64"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name) {
                             if (c == '-' || c == ':') c = '_';
                           }
                           return name;
                         });

}  // namespace
}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// GGUF files whose matrices have seven block formats each, q, k, v and gate, up different ones,
// against transformers in float64 on the values that the gguf package reads
// (tests/golden/make/make_gguf_mixed.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "models/gguf.h"
#include "models/json.h"
#include "tests/models/checkpoint_bytes.h"
#include "tests/models/model_runner.h"
#include "tests/reference/reference_device.h"

namespace fairlead {
namespace {

const std::string kFolder = std::string(FAIRLEAD_GOLDEN_DIR) + "/gguf/";

std::unique_ptr<Device> Cpu(Numerics numerics) {
  auto device = OpenDevice("cpu", {.threads = 2, .numerics = numerics});
  EXPECT_TRUE(device.ok()) << device.status();
  return *std::move(device);
}

class MixedDTypesTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const auto golden = ParseJson(ReadWholeFile(kFolder + GetParam() + ".json"));
    ASSERT_TRUE(golden.ok()) << golden.status();
    ids_ = (*golden)["ids"].get<std::vector<Token>>();
    for (const Json& row : (*golden)["logits"]) {
      for (const Json& logit : row) want_.push_back(logit.get<float>());
    }
    ASSERT_EQ(ids_.size(), 20u);
    ASSERT_EQ(want_.size(), 20u * 40);
  }

  // All at once, and the same bits in two chunks and token by token.
  std::vector<float> Logits(std::unique_ptr<Device> device) {
    auto runner = ModelRunner::Open(kFolder + GetParam() + ".gguf", std::move(device), 64);
    EXPECT_TRUE(runner.ok()) << runner.status();
    if (!runner.ok()) return {};
    const std::vector<float> all = (*runner)->Run(ids_, static_cast<int>(ids_.size()));
    for (const size_t chunk : {size_t{1}, size_t{13}}) {
      (*runner)->Restart();
      std::vector<float> pieces;
      for (size_t at = 0; at < ids_.size(); at += chunk) {
        const size_t count = std::min(chunk, ids_.size() - at);
        const auto piece = (*runner)->Run({ids_.data() + at, count}, static_cast<int>(count));
        pieces.insert(pieces.end(), piece.begin(), piece.end());
      }
      EXPECT_EQ(pieces, all) << chunk;
    }
    return all;
  }

  double LargestDifference(const std::vector<float>& got) const {
    if (got.size() != want_.size()) return INFINITY;
    double largest = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      const double difference = std::abs(static_cast<double>(got[i]) - want_[i]);
      if (!(difference <= largest)) largest = difference;  // a NaN stays
    }
    return largest;
  }

  std::vector<Token> ids_;
  std::vector<float> want_;
};

TEST_P(MixedDTypesTest, TheFileHasWhatItIsFor) {
  const auto source = OpenWeights(kFolder + GetParam() + ".gguf");
  ASSERT_TRUE(source.ok()) << source.status();
  std::set<std::string> names;
  for (const WeightInfo& tensor : (*source)->tensors()) {
    names.emplace(tensor.make ? tensor.file_dtype : Info(tensor.dtype).name);
  }
  const std::set<std::string> mixed = {"f32", "q4_k", "q5_0", "q5_1", "q5_k", "q6_k", "q8_0"};
  const std::set<std::string> tables = {"f32",    "q2_k",  "q3_k",  "iq4_nl",
                                        "iq4_xs", "mxfp4", "IQ3_S", "IQ2_XS"};
  EXPECT_EQ(names, GetParam() == std::string("tiny-mixed") ? mixed : tables);
}

// The tolerance of golden/models: float32 against transformers.
TEST_P(MixedDTypesTest, CpuFloat32) {
  EXPECT_LE(LargestDifference(Logits(Cpu(Numerics::kFloat32))), 1e-3);
}
TEST_P(MixedDTypesTest, Reference) {
  EXPECT_LE(LargestDifference(Logits(reference::MakeReferenceDevice())), 1e-3);
}

TEST_P(MixedDTypesTest, HostSimt) {
  auto device = OpenDevice("host-simt:32", {.numerics = Numerics::kFloat32});
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_LE(LargestDifference(Logits(*std::move(device))), 1e-3);
}

// Logits deviate by 1. precise rounds the cache to 11 bits, fast may round activations to 8.
TEST_P(MixedDTypesTest, CpuPrecise) {
  EXPECT_LE(LargestDifference(Logits(Cpu(Numerics::kPrecise))), 0.02);
}
TEST_P(MixedDTypesTest, CpuFast) {
  EXPECT_LE(LargestDifference(Logits(Cpu(Numerics::kFast))), 0.2);
}

INSTANTIATE_TEST_SUITE_P(Files, MixedDTypesTest, testing::Values("tiny-mixed", "tiny-tables"),
                         [](const auto& info) { return std::string(info.param).substr(5); });

}  // namespace
}  // namespace fairlead

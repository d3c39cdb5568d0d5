// SPDX-License-Identifier: Apache-2.0
// The default model against float32 transformers: next-token distributions after 200 prefixes, and
// greedy chats. The bars are those of the design: float32 every listed logprob within 1e-3; precise
// mean KL <= 0.0005 and top-1 >= 99 %.
#include <gtest/gtest.h>

#include <fstream>
#include <iostream>
#include <sstream>

#include "models/json.h"
#include "tests/models/fidelity.h"
#include "tests/models/model_runner.h"
#include "tests/sanitized.h"

namespace fairlead {
namespace {

constexpr int kMaxTokens = 512;
// Of the prefixes and of the chats.
constexpr size_t kStep = kSanitized ? 10 : 1;
// The mean of a tenth of the prefixes scatters: theirs with 8-bit activations is 1.6 times that of
// all.
constexpr double kScatter = kSanitized ? 2 : 1;

Json Golden(const char* name) {
  std::ifstream file(std::string(FAIRLEAD_GOLDEN_DIR) + "/smollm2/" + name);
  std::stringstream text;
  text << file.rdbuf();
  auto json = ParseJson(text.str());
  EXPECT_TRUE(json.ok()) << json.status();
  return *std::move(json);
}

std::unique_ptr<ModelRunner> OpenModel(Numerics numerics) {
  auto device = OpenDevice("cpu", {.numerics = numerics});
  EXPECT_TRUE(device.ok()) << device.status();
  auto runner = ModelRunner::Open(FAIRLEAD_MODEL, *std::move(device), kMaxTokens);
  EXPECT_TRUE(runner.ok()) << runner.status() << "\nThe default model is fetched by tests/run.sh.";
  return runner.ok() ? *std::move(runner) : nullptr;
}

Fidelity Measure(ModelRunner& runner) {
  Json golden = Golden("fidelity.json");
  Json prefixes = Json::array();
  for (size_t i = 0; i < golden["prefixes"].size(); i += kStep) {
    prefixes.push_back(golden["prefixes"][i]);
  }
  golden["prefixes"] = std::move(prefixes);
  const Fidelity fidelity = MeasureFidelity(runner, golden);
  std::cout << "KL mean " << fidelity.kl_mean << ", top-1 " << fidelity.top1
            << ", largest logprob difference " << fidelity.largest << "\n";
  return fidelity;
}

TEST(FidelityTest, Float32) {
  const auto runner = OpenModel(Numerics::kFloat32);
  ASSERT_NE(runner, nullptr);
  EXPECT_LE(Measure(*runner).largest, 1e-3);
}

TEST(FidelityTest, Precise) {
  const auto runner = OpenModel(Numerics::kPrecise);
  ASSERT_NE(runner, nullptr);
  const Fidelity fidelity = Measure(*runner);
  EXPECT_LE(fidelity.kl_mean, 0.0005 * kScatter);
  EXPECT_GE(fidelity.top1, 0.99);
}

TEST(FidelityTest, Fast) {
  const auto runner = OpenModel(Numerics::kFast);
  ASSERT_NE(runner, nullptr);
  const Fidelity fidelity = Measure(*runner);
  EXPECT_LE(fidelity.kl_mean, 0.005 * kScatter);
  EXPECT_GE(fidelity.top1, 0.95);
}

// Equal up to the first step whose two best logits are less than 0.1 apart; the first conversation
// whole.
TEST(FidelityTest, GreedyChats) {
  const auto runner = OpenModel(Numerics::kPrecise);
  ASSERT_NE(runner, nullptr);
  const Json golden = Golden("greedy.json");
  const Json& chats = golden["chats"];
  for (size_t c = 0; c < chats.size(); c += kStep) {
    const Json& chat = chats[c];
    const auto want = chat["tokens"].get<std::vector<Token>>();
    const auto margins = chat["margins"].get<std::vector<double>>();
    size_t comparable = want.size();
    for (size_t i = 0; i < margins.size() && c > 0; ++i) {
      if (margins[i] < 0.1) {
        comparable = i;
        break;
      }
    }
    std::vector<Token> got =
        runner->Greedy(chat["ids"].get<std::vector<Token>>(), static_cast<int>(want.size()));
    got.resize(comparable);
    EXPECT_EQ(got, std::vector<Token>(want.begin(), want.begin() + comparable)) << chat["name"];
  }
}

}  // namespace
}  // namespace fairlead

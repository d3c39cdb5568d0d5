// SPDX-License-Identifier: Apache-2.0
// The default model against float32 transformers: next-token distributions after 200 prefixes, and
// greedy chats. The bars are those of the design: float32 every listed logprob within 1e-3; precise
// mean KL <= 0.0005 and top-1 >= 99 %.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <iostream>
#include <sstream>
#include <unordered_map>

#include "models/json.h"
#include "tests/models/model_runner.h"

namespace fairlead {
namespace {

constexpr int kMaxTokens = 512;

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

std::vector<double> LogSoftmax(const std::vector<float>& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  std::vector<double> out;
  for (const float logit : logits) out.push_back(logit - largest - std::log(sum));
  return out;
}

struct Fidelity {
  double kl_mean = 0, largest = 0;
  double top1 = 0;
};

// KL over the listed ids plus one bin for the rest; our best agrees when float32 itself puts it
// within 0.1 of its own.
Fidelity Measure(ModelRunner& runner) {
  const Json golden = Golden("fidelity.json");
  Fidelity fidelity;
  for (const Json& prefix : golden["prefixes"]) {
    runner.Restart();
    const std::vector<double> ours =
        LogSoftmax(runner.Run(prefix["ids"].get<std::vector<Token>>(), 1));
    const Token best =
        static_cast<Token>(std::max_element(ours.begin(), ours.end()) - ours.begin());
    double kl = 0, rest_theirs = 1, rest_ours = 1;
    for (const Json& entry : prefix["top"]) {
      const Token id = entry[0].get<Token>();
      const double theirs = entry[1].get<double>(), p = std::exp(theirs);
      kl += p * (theirs - ours[id]);
      rest_theirs -= p;
      rest_ours -= std::exp(ours[id]);
      const double d = std::abs(theirs - ours[id]);
      if (!(d <= fidelity.largest)) fidelity.largest = d;
      if (id == best && theirs > prefix["top"][0][1].get<double>() - 0.1) fidelity.top1 += 1;
    }
    if (rest_theirs > 1e-9 && rest_ours > 1e-9)
      kl += rest_theirs * std::log(rest_theirs / rest_ours);
    fidelity.kl_mean += kl;
  }
  fidelity.kl_mean /= golden["prefixes"].size();
  fidelity.top1 /= golden["prefixes"].size();
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
  EXPECT_LE(fidelity.kl_mean, 0.0005);
  EXPECT_GE(fidelity.top1, 0.99);
}

TEST(FidelityTest, Fast) {
  const auto runner = OpenModel(Numerics::kFast);
  ASSERT_NE(runner, nullptr);
  const Fidelity fidelity = Measure(*runner);
  EXPECT_LE(fidelity.kl_mean, 0.005);
  EXPECT_GE(fidelity.top1, 0.95);
}

// Equal up to the first step whose two best logits are less than 0.1 apart; the first conversation
// whole.
TEST(FidelityTest, GreedyChats) {
  const auto runner = OpenModel(Numerics::kPrecise);
  ASSERT_NE(runner, nullptr);
  bool first = true;
  for (const Json& chat : Golden("greedy.json")["chats"]) {
    const auto want = chat["tokens"].get<std::vector<Token>>();
    const auto margins = chat["margins"].get<std::vector<double>>();
    size_t comparable = want.size();
    for (size_t i = 0; i < margins.size() && !first; ++i) {
      if (margins[i] < 0.1) {
        comparable = i;
        break;
      }
    }
    first = false;
    std::vector<Token> got =
        runner->Greedy(chat["ids"].get<std::vector<Token>>(), static_cast<int>(want.size()));
    got.resize(comparable);
    EXPECT_EQ(got, std::vector<Token>(want.begin(), want.begin() + comparable)) << chat["name"];
  }
}

}  // namespace
}  // namespace fairlead

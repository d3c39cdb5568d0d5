// SPDX-License-Identifier: Apache-2.0
// Logit edits against arithmetic done here by hand, the same through the engine, and what Sample is
// given.
#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <random>

#include "gtest/gtest.h"
#include "tests/runtime/engine_fixture.h"

namespace fairlead {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::map<Token, std::pair<float, float>> EditsOf(const LogitEditTable& table,
                                                 int num_output_tokens) {
  std::vector<LogitEdit> edits(table.max_edits());
  const int n = table.Write(num_output_tokens, absl::MakeSpan(edits));
  std::map<Token, std::pair<float, float>> result;
  for (int i = 0; i < n; ++i) {
    EXPECT_TRUE(result.emplace(edits[i].token, std::pair(edits[i].repetition, edits[i].add)).second)
        << "token twice: " << edits[i].token;
  }
  return result;
}

using Edits = std::map<Token, std::pair<float, float>>;

TEST(LogitEditTableTest, NullWhenNothingIsEdited) {
  EngineRequest request = Greedy({1, 2, 3}, 5);
  EXPECT_EQ(LogitEditTable::Create(request, kFakeVocab), nullptr);
  request.min_tokens = 3;  // without stop tokens there is nothing to forbid
  EXPECT_EQ(LogitEditTable::Create(request, kFakeVocab), nullptr);
}

TEST(LogitEditTableTest, RepetitionCountsPromptAndOutput) {
  EngineRequest request = Greedy({1, 2, 1}, 5);
  request.sampling.repetition_penalty = 1.5f;
  const auto table = LogitEditTable::Create(request, kFakeVocab);
  EXPECT_EQ(EditsOf(*table, 0), (Edits{{1, {1.5f, 0}}, {2, {1.5f, 0}}}));
  table->Append(7);
  EXPECT_EQ(EditsOf(*table, 1), (Edits{{1, {1.5f, 0}}, {2, {1.5f, 0}}, {7, {1.5f, 0}}}));
}

TEST(LogitEditTableTest, PresenceAndFrequencyCountTheOutputAlone) {
  EngineRequest request = Greedy({1, 2, 1}, 5);
  request.sampling.presence_penalty = 0.5f;
  request.sampling.frequency_penalty = 0.25f;
  const auto table = LogitEditTable::Create(request, kFakeVocab);
  EXPECT_EQ(EditsOf(*table, 0), Edits{});
  table->Append(2);
  table->Append(9);
  table->Append(2);
  EXPECT_EQ(EditsOf(*table, 3), (Edits{{2, {1, -1.0f}}, {9, {1, -0.75f}}}));
}

TEST(LogitEditTableTest, WhatIsRemovedWasNeverThere) {
  EngineRequest request = Greedy({1, 2}, 5);
  request.sampling.repetition_penalty = 1.5f;
  request.sampling.presence_penalty = 0.5f;
  const auto table = LogitEditTable::Create(request, kFakeVocab);
  table->Append(2);
  const Edits before = {{1, {1.5f, 0}}, {2, {1.5f, -0.5f}}};
  EXPECT_EQ(EditsOf(*table, 1), before);
  for (const Token token : {1, 2, 7}) table->Append(token);
  EXPECT_EQ(EditsOf(*table, 4),
            (Edits{{1, {1.5f, -0.5f}}, {2, {1.5f, -0.5f}}, {7, {1.5f, -0.5f}}}));
  for (const Token token : {1, 2, 7}) table->Remove(token);
  EXPECT_EQ(EditsOf(*table, 1), before);
}

TEST(LogitEditTableTest, ABiasIsAddedToThePenalties) {
  EngineRequest request = Greedy({1}, 5);
  request.sampling.presence_penalty = 1;
  request.sampling.logit_bias = {{4, 3.0f}, {5, -2.0f}};
  const auto table = LogitEditTable::Create(request, kFakeVocab);
  EXPECT_EQ(EditsOf(*table, 0), (Edits{{4, {1, 3}}, {5, {1, -2}}}));
  table->Append(4);
  EXPECT_EQ(EditsOf(*table, 1), (Edits{{4, {1, 2}}, {5, {1, -2}}}));
}

TEST(LogitEditTableTest, StopTokensAreForbiddenUntilMinTokens) {
  EngineRequest request = Greedy({1}, 5);
  request.min_tokens = 2;
  request.stop_tokens = {8, 9};
  request.sampling.logit_bias = {{8, 5.0f}};
  const auto table = LogitEditTable::Create(request, kFakeVocab);
  const Edits forbidden = {{8, {1, -kInfinity}}, {9, {1, -kInfinity}}};
  EXPECT_EQ(EditsOf(*table, 0), forbidden);
  table->Append(3);
  EXPECT_EQ(EditsOf(*table, 1), forbidden);
  table->Append(3);
  EXPECT_EQ(EditsOf(*table, 2), (Edits{{8, {1, 5}}}));
}

TEST(LogitEditTableTest, HoldsTheWholeVocabulary) {
  EngineRequest request = Greedy(FakePrompt(500, 1), 500);
  request.sampling.repetition_penalty = 2;
  const auto table = LogitEditTable::Create(request, kFakeVocab);
  for (int i = 0; i < 500; ++i) table->Append(i % kFakeVocab);
  EXPECT_EQ(EditsOf(*table, 500).size(), static_cast<size_t>(kFakeVocab));
}

// The greedy continuation with everything applied to a whole row of logits, as the definitions
// read.
std::vector<Token> EditedGenerate(const EngineRequest& request) {
  const SamplingParams& s = request.sampling;
  std::vector<Token> tokens = request.prompt;
  std::vector<Token> output;
  while (static_cast<int>(output.size()) < request.max_tokens) {
    std::vector<float> logits = FakeLogits(tokens);
    for (Token v = 0; v < kFakeVocab; ++v) {
      const auto in_output = static_cast<float>(std::count(output.begin(), output.end(), v));
      float& l = logits[v];
      if (std::count(tokens.begin(), tokens.end(), v) > 0) {
        l = l > 0 ? l / s.repetition_penalty : l * s.repetition_penalty;
      }
      float add = 0;
      for (const auto& [token, bias] : s.logit_bias) add += token == v ? bias : 0;
      if (in_output > 0) add -= s.presence_penalty + s.frequency_penalty * in_output;
      l += add;
      const bool stops = std::count(request.stop_tokens.begin(), request.stop_tokens.end(), v) > 0;
      if (stops && static_cast<int>(output.size()) < request.min_tokens) l = -kInfinity;
    }
    const auto best = std::max_element(logits.begin(), logits.end());
    output.push_back(static_cast<Token>(best - logits.begin()));
    tokens.push_back(output.back());
    if (std::count(request.stop_tokens.begin(), request.stop_tokens.end(), output.back()) > 0)
      break;
  }
  return output;
}

TEST(SamplerTest, EditedRequestsInOneBatchAnswerAsTheDefinitionsSay) {
  EngineOptions options = SmallEngine();
  options.kv_cache_bytes = FakeKvBytes(48, 4);  // some are preempted on the way
  FakeEngine engine(options);
  std::mt19937 random(5);
  const auto draw = [&random](int n) {
    return static_cast<int>(random() % static_cast<uint32_t>(n));
  };
  std::vector<EngineRequest> requests;
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  engine.gate().Close();
  for (int i = 0; i < 40; ++i) {
    EngineRequest request = Greedy(FakePrompt(1 + draw(40), i), 40);
    if (draw(2) == 0) request.sampling.repetition_penalty = 1 + 0.25f * static_cast<float>(draw(4));
    if (draw(2) == 0) request.sampling.presence_penalty = 0.5f * static_cast<float>(draw(5) - 2);
    if (draw(2) == 0) request.sampling.frequency_penalty = 0.25f * static_cast<float>(draw(5) - 2);
    if (draw(3) == 0) {
      // One entry a token.
      for (Token v = draw(5); v < 60; v += 7 + draw(20)) {
        request.sampling.logit_bias.emplace_back(v, static_cast<float>(draw(9) - 4));
      }
    }
    for (int n = draw(20); n > 0; --n) request.stop_tokens.push_back(draw(kFakeVocab - 1));
    request.min_tokens = draw(20);
    requests.push_back(request);
    sinks.push_back(engine.Submit(request));
  }
  engine.gate().Open();
  for (size_t i = 0; i < requests.size(); ++i) {
    sinks[i]->WaitForClose();
    EXPECT_EQ(sinks[i]->tokens(), EditedGenerate(requests[i])) << i;
  }
  EXPECT_GT(engine->stats().preemptions, 0);
}

// 256 rows that have seen 96 tokens each: more than the 2^14 edits of one slice. Slices must not
// change the answers.
TEST(SamplerTest, MoreEditsThanOneSliceHolds) {
  EngineOptions options = SmallEngine();
  options.scheduler = {.max_batched_tokens = 2048, .max_num_seqs = 256};
  options.max_model_len = 160;
  options.kv_cache_bytes = FakeKvBytes(256 * 40, 4);
  options.max_queue = 0;
  FakeEngine engine(options);
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  std::vector<EngineRequest> requests;
  engine.gate().Close();
  for (int i = 0; i < 256; ++i) {
    EngineRequest request = Greedy({}, 3);
    for (int t = 0; t < 120; ++t) request.prompt.push_back((i + t) % (kFakeVocab - 1));
    request.sampling.repetition_penalty = 1.5f;
    requests.push_back(request);
    sinks.push_back(engine.Submit(request));
  }
  engine.gate().Open();
  for (size_t i = 0; i < requests.size(); ++i) {
    sinks[i]->WaitForClose();
    EXPECT_EQ(sinks[i]->tokens(), EditedGenerate(requests[i])) << i;
  }
}

TEST(SamplerTest, SampleIsGivenEachRowsOwnParameters) {
  struct Seen {
    float temperature, top_p, min_p;
    int top_k, position;
    uint64_t seed;
    bool operator==(const Seen&) const = default;
  };
  std::vector<Seen> seen;  // engine thread until both are closed
  FakeDevice::Options device;
  device.observe_sample = [&seen](const SampleArgs& args) {
    for (int64_t r = 0; r < args.logits.dim[0]; ++r) {
      const auto* halves = args.seed.As<uint32_t>() + 2 * r;
      seen.push_back({args.temperature.As<float>()[r], args.top_p.As<float>()[r],
                      args.min_p.As<float>()[r], args.top_k.As<int32_t>()[r],
                      args.position.As<int32_t>()[r], halves[0] | uint64_t{halves[1]} << 32});
    }
  };
  FakeEngine engine(SmallEngine(), device);
  engine.gate().Close();
  EngineRequest first = Greedy(FakePrompt(5, 1), 2);
  first.sampling = {.temperature = 0.5f,
                    .top_k = 7,
                    .top_p = 0.9f,
                    .min_p = 0.1f,
                    .seed = 0x123456789abcdef0ull,
                    .logit_bias = {}};
  EngineRequest second = Greedy(FakePrompt(9, 2), 2);
  second.sampling = {
      .temperature = 1.5f, .top_k = 0, .top_p = 1, .min_p = 0, .seed = 3, .logit_bias = {}};
  second.logprobs = 1;
  const auto a = engine.Submit(first);
  engine.gate().WaitUntilHeld();
  const auto b = engine.Submit(second);
  engine.gate().Open();
  a->WaitForClose();
  b->WaitForClose();
  const Seen first_row = {0.5f, 0.9f, 0.1f, 7, 5, 0x123456789abcdef0ull};
  const Seen second_row = {1.5f, 1, 0, 0, 9, 3};
  const auto next = [](Seen row) {
    ++row.position;
    return row;
  };
  // Rows that want logprobs come first in their slice.
  EXPECT_EQ(seen, (std::vector<Seen>{first_row, second_row, next(first_row), next(second_row)}));
}

}  // namespace
}  // namespace fairlead

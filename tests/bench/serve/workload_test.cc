// SPDX-License-Identifier: Apache-2.0
#include "bench/serve/workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"

namespace fairlead::serve_bench {
namespace {

WorkloadSpec Spec(const char* name) { return *FindWorkload(name); }

const TokenIds& Ids(const Request& request) { return std::get<TokenIds>(request.prompt); }

Record Answer(const TokenIds& ids, const std::string& text) {
  return {
      .completion_tokens = static_cast<int>(ids.size()), .answer_ids = ids, .answer_text = text};
}

bool StartsWith(const TokenIds& ids, const TokenIds& prefix) {
  return ids.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), ids.begin());
}

TEST(Workload, NamesAreW1ToW10) {
  ASSERT_EQ(NamedWorkloads().size(), 10u);
  for (int i = 1; i <= 10; ++i) EXPECT_TRUE(FindWorkload(absl::StrCat("W", i)).ok());
  EXPECT_FALSE(FindWorkload("W11").ok());
  EXPECT_FALSE(FindWorkload("w1").ok());
}

TEST(Workload, W1HasFixedLengthsAndIdsInTheRange) {
  const Workload workload(Spec("W1"), {.lowest_token = 50, .highest_token = 60});
  std::set<int32_t> seen;
  for (int i = 0; i < 20; ++i) {
    const auto session = workload.NewSession(i);
    const Request request = session->Next();
    EXPECT_TRUE(session->done());
    EXPECT_EQ(request.id, i);
    EXPECT_EQ(Ids(request).size(), 128u);
    EXPECT_EQ(request.max_tokens, 128);
    EXPECT_EQ(request.cancel_after, 0);
    EXPECT_FALSE(request.wants_answer_ids);
    seen.insert(Ids(request).begin(), Ids(request).end());
  }
  EXPECT_EQ(*seen.begin(), 50);
  EXPECT_EQ(*seen.rbegin(), 60);
}

TEST(Workload, ContentDependsOnSeedAndSessionAlone) {
  const Workload one(Spec("W6"), {.seed = 7}), same(Spec("W6"), {.seed = 7});
  const Workload other(Spec("W6"), {.seed = 8});
  const Request later = one.NewSession(5)->Next();
  EXPECT_EQ(Ids(later), Ids(same.NewSession(5)->Next()));  // whatever else was drawn before
  EXPECT_EQ(later.max_tokens, same.NewSession(5)->Next().max_tokens);
  EXPECT_NE(Ids(later), Ids(other.NewSession(5)->Next()));
  EXPECT_NE(Ids(later), Ids(one.NewSession(6)->Next()));
}

TEST(Workload, W6LengthsAreLogNormalWithTheirMeans) {
  const Workload workload(Spec("W6"), {.seed = 1});
  constexpr int kDraws = 20000;
  double input = 0, output = 0, logs = 0;
  int below_median = 0;
  for (int i = 0; i < kDraws; ++i) {
    const Request request = workload.NewSession(i)->Next();
    const double length = static_cast<double>(Ids(request).size());
    input += length;
    output += request.max_tokens;
    logs += std::log(length);
    below_median += length < 220 * std::exp(-0.5);
  }
  // A log-normal of sigma 1 deviates by sqrt(e - 1) = 1.31 means: five standard errors are 4.6 %.
  EXPECT_NEAR(input / kDraws, 220, 0.046 * 220);
  EXPECT_NEAR(output / kDraws, 200, 0.046 * 200);
  EXPECT_NEAR(logs / kDraws, std::log(220) - 0.5, 5 / std::sqrt(kDraws) + 0.01);  // + rounding
  EXPECT_NEAR(static_cast<double>(below_median) / kDraws, 0.5, 2.5 / std::sqrt(kDraws) + 0.005);
}

TEST(Workload, RangeRatioSpreadsLengths) {
  WorkloadSpec spec = Spec("W1");
  spec.range_ratio = 0.25;
  const Workload workload(spec, {});
  size_t low = 1000, high = 0;
  for (int i = 0; i < 2000; ++i) {
    const size_t length = Ids(workload.NewSession(i)->Next()).size();
    low = std::min(low, length);
    high = std::max(high, length);
  }
  EXPECT_EQ(low, 96u);
  EXPECT_EQ(high, 160u);
}

TEST(Workload, W7SharesASystemPromptAndGrowsByAnswers) {
  const Workload workload(Spec("W7"), {.seed = 3});
  const auto a = workload.NewSession(0), b = workload.NewSession(1);
  Request request = a->Next();
  const Request other = b->Next();
  ASSERT_EQ(Ids(request).size(), 1024u + 256);
  EXPECT_TRUE(std::equal(Ids(request).begin(), Ids(request).begin() + 1024, Ids(other).begin()));
  EXPECT_FALSE(
      std::equal(Ids(request).begin() + 1024, Ids(request).end(), Ids(other).begin() + 1024));
  int64_t cached = 0, total = 0;
  for (int turn = 1; turn < 8; ++turn) {
    EXPECT_TRUE(request.wants_answer_ids);
    TokenIds history = Ids(request);
    const TokenIds answer(128, 1000 + turn);
    a->Answered(Answer(answer, ""));
    history.insert(history.end(), answer.begin(), answer.end());
    request = a->Next();
    EXPECT_EQ(request.turn, turn);
    EXPECT_EQ(request.id, turn);
    EXPECT_TRUE(StartsWith(Ids(request), history));
    ASSERT_EQ(Ids(request).size(), history.size() + 256);
    cached += static_cast<int64_t>(history.size());
    total += static_cast<int64_t>(Ids(request).size());
  }
  EXPECT_TRUE(a->done());
  EXPECT_FALSE(request.wants_answer_ids);
  EXPECT_EQ(static_cast<int64_t>(Ids(request).size()) + 128, ContextNeeded(Spec("W7")));
  // With the first turn, whose system prompt is shared, the hit rate is what the workload promises.
  const double hits = static_cast<double>(cached + 1024) / static_cast<double>(total + 1280);
  EXPECT_GT(hits, 0.8);
  EXPECT_LT(hits, 0.92);
}

TEST(Workload, HistoryWithoutAnswerIdsIsSeeded) {
  const Workload workload(Spec("W7"), {.seed = 3});
  const auto a = workload.NewSession(0), b = workload.NewSession(0);
  const size_t first = Ids(a->Next()).size();
  b->Next();
  a->Answered(Answer({}, "text only"));
  b->Answered(Answer({}, "another"));
  const Request request = a->Next();
  EXPECT_EQ(Ids(request).size(), first + 128 + 256);
  EXPECT_EQ(Ids(request), Ids(b->Next()));
}

TEST(Workload, W8CancelsATenthAndForgetsThoseTurns) {
  const Workload workload(Spec("W8"), {.seed = 5});
  int cancelled = 0, total = 0;
  for (int i = 0; i < 100; ++i) {
    const auto session = workload.NewSession(i);
    size_t history = 0;
    while (!session->done()) {
      const Request request = session->Next();
      ASSERT_EQ(Ids(request).size(), history + 500);
      ++total;
      Record record = Answer(TokenIds(80, 9), "");
      if (request.cancel_after > 0) {
        ++cancelled;
        ASSERT_LE(request.cancel_after, 40);
        record.outcome = Outcome::kCancelled;
      } else {
        history += 580;
      }
      session->Answered(record);
    }
  }
  EXPECT_EQ(total, 3000);
  // Binomial: 300 with a deviation of 16.4; five of them.
  EXPECT_NEAR(cancelled, 300, 82);
}

TEST(Workload, W9RepeatsItsPassage) {
  const Workload workload(Spec("W9"), {});
  const TokenIds ids = Ids(workload.NewSession(0)->Next());
  ASSERT_EQ(ids.size(), 1024u);
  EXPECT_TRUE(std::equal(ids.begin(), ids.begin() + 512, ids.begin() + 512));
  const Workload chat(Spec("W9"), {.kind = InputKind::kChat});
  const Request request = chat.NewSession(0)->Next();
  EXPECT_THAT(std::get<Chat>(request.prompt).front().content, ::testing::StartsWith("Repeat"));
}

TEST(Workload, W10InjectsALongPrompt) {
  const Workload workload(Spec("W10"), {});
  const Request request = workload.Injected(0);
  EXPECT_TRUE(request.injected);
  EXPECT_LT(request.id, 0);
  EXPECT_EQ(Ids(request).size(), 32768u);
  EXPECT_EQ(request.max_tokens, 1);
  EXPECT_NE(Ids(request), Ids(workload.Injected(1)));
  EXPECT_EQ(workload.spec().concurrency, 64);
}

TEST(Workload, TextAndChatCarryTheHistory) {
  const Workload text(Spec("W7"), {.kind = InputKind::kText});
  const auto session = text.NewSession(0);
  const std::string first = std::get<std::string>(session->Next().prompt);
  EXPECT_EQ(std::count(first.begin(), first.end(), ' ') + 2, 1024 + 256);  // two lines of words
  session->Answered(Answer({}, "Hello."));
  EXPECT_THAT(std::get<std::string>(session->Next().prompt),
              ::testing::StartsWith(first + "Hello.\n"));

  const Workload chat(Spec("W7"), {.kind = InputKind::kChat});
  const auto user = chat.NewSession(0);
  user->Next();
  user->Answered(Answer({}, "Hello."));
  Record cancelled = Answer({}, "cut");
  cancelled.outcome = Outcome::kCancelled;
  user->Next();
  user->Answered(cancelled);
  const Request request = user->Next();
  std::vector<std::string> roles;
  for (const ChatMessage& message : std::get<Chat>(request.prompt)) roles.push_back(message.role);
  EXPECT_THAT(roles, ::testing::ElementsAre("system", "user", "assistant", "user"));
  EXPECT_EQ(std::get<Chat>(request.prompt)[2].content, "Hello.");
}

TEST(Workload, ScaledLengthsStayAboveZero) {
  const WorkloadSpec w7 = Scaled(Spec("W7"), 0.125);
  EXPECT_EQ(w7.input_tokens, 32);
  EXPECT_EQ(w7.output_tokens, 16);
  EXPECT_EQ(w7.shared_tokens, 128);
  EXPECT_EQ(w7.turns, 8);
  const WorkloadSpec tiny = Scaled(Spec("W1"), 0.0001);
  EXPECT_EQ(tiny.input_tokens, 1);
  EXPECT_EQ(tiny.shared_tokens, 0);
  EXPECT_EQ(ContextNeeded(Scaled(Spec("W10"), 0.0625)), 2049);
}

}  // namespace
}  // namespace fairlead::serve_bench

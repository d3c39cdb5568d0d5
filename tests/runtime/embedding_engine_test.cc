// SPDX-License-Identifier: Apache-2.0
// Turns, limits, cancellation and drain above a model that a test can do in its head: a text's
// vector is its length and its sum.
#include "runtime/embedding_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <numeric>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"

namespace fairlead {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Texts = std::vector<std::vector<Token>>;
using Vectors = absl::StatusOr<std::vector<float>>;

std::vector<float> VectorsOf(absl::Span<const std::vector<Token>> texts) {
  std::vector<float> vectors;
  for (const auto& text : texts) {
    vectors.push_back(static_cast<float>(text.size()));
    vectors.push_back(static_cast<float>(std::accumulate(text.begin(), text.end(), 0)));
  }
  return vectors;
}

// Records batches; each waits for a Pass, if it is told to.
class Model {
 public:
  explicit Model(bool gated = false) : gated_(gated) {}

  Vectors Run(absl::Span<const std::vector<Token>> texts) {
    std::unique_lock<std::mutex> lock(mutex_);
    batches_.emplace_back(texts.begin(), texts.end());
    changed_.notify_all();
    changed_.wait(lock, [this] { return !gated_ || passes_ > 0; });
    --passes_;
    if (!failure_.ok()) return failure_;
    return VectorsOf(texts);
  }
  void Pass(int batches) {
    const std::lock_guard<std::mutex> lock(mutex_);
    passes_ += batches;
    changed_.notify_all();
  }
  void Open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    gated_ = false;
    changed_.notify_all();
  }
  void FailWith(absl::Status status) {
    const std::lock_guard<std::mutex> lock(mutex_);
    failure_ = std::move(status);
  }
  // Waits until so many batches have begun; their texts.
  std::vector<Texts> WaitForBatches(size_t count) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return batches_.size() >= count; });
    return batches_;
  }
  EmbeddingEngine::Embed function() {
    return [this](absl::Span<const std::vector<Token>> texts) { return Run(texts); };
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool gated_;
  int passes_ = 0;
  absl::Status failure_;
  std::vector<Texts> batches_;
};

// One request's answer; a second one would be told.
class Answer {
 public:
  EmbeddingEngine::Done done() {
    return [this](Vectors vectors) {
      const std::lock_guard<std::mutex> lock(mutex_);
      EXPECT_FALSE(vectors_.has_value()) << "done twice";
      vectors_ = std::move(vectors);
      changed_.notify_all();
    };
  }
  Vectors Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return vectors_.has_value(); });
    return *vectors_;
  }
  bool is_done() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return vectors_.has_value();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Vectors> vectors_;
};

constexpr EmbeddingEngineOptions kOptions = {
    .dimensions = 2, .max_batch_tokens = 8, .max_batch_texts = 3, .max_requests = 4};

TEST(EmbeddingEngineTest, AnswersInTheOrderOfTheTexts) {
  Model model;
  EmbeddingEngine engine(kOptions, model.function());
  Answer answer;
  const Texts texts = {{1, 2}, {3}, {4, 5, 6, 7}, {8}, {9, 10}};
  ASSERT_TRUE(engine.Submit(texts, answer.done()).ok());
  const Vectors vectors = answer.Wait();
  ASSERT_TRUE(vectors.ok()) << vectors.status();
  EXPECT_EQ(*vectors, VectorsOf(texts));
  const EmbeddingStats stats = engine.stats();
  EXPECT_EQ(stats.texts, 5);
  EXPECT_EQ(stats.tokens, 10);
  EXPECT_EQ(stats.running + stats.waiting, 0);
}

TEST(EmbeddingEngineTest, BatchesKeepToTheirLimits) {
  Model model;
  EmbeddingEngine engine(kOptions, model.function());
  Answer answer;
  // Five tokens and four are more than eight; three texts are enough; one alone may be longer.
  const Texts texts = {{1, 1, 1, 1, 1}, {2, 2, 2, 2}, {3}, {3}, {3}, Texts::value_type(20, 4)};
  ASSERT_TRUE(engine.Submit(texts, answer.done()).ok());
  ASSERT_TRUE(answer.Wait().ok());
  EXPECT_THAT(model.WaitForBatches(4),
              ElementsAre(Texts{texts[0]}, Texts{texts[1], texts[2], texts[3]}, Texts{texts[4]},
                          Texts{texts[5]}));
}

TEST(EmbeddingEngineTest, ASmallRequestDoesNotWaitForALargeOne) {
  Model model(/*gated=*/true);
  EmbeddingEngine engine(kOptions, model.function());
  Answer large, small, other;
  ASSERT_TRUE(engine.Submit(Texts(2048, {1}), large.done()).ok());
  model.WaitForBatches(1);
  ASSERT_TRUE(engine.Submit({{7}}, small.done()).ok());
  ASSERT_TRUE(engine.Submit({{8}, {9}}, other.done()).ok());
  model.Pass(2);
  // In turns: the large one, the small one, the other; then the large one and the other.
  const std::vector<Texts> batches = model.WaitForBatches(3);
  EXPECT_THAT(batches[1],
              ElementsAre(Texts::value_type{1}, Texts::value_type{7}, Texts::value_type{8}));
  EXPECT_THAT(batches[2],
              ElementsAre(Texts::value_type{1}, Texts::value_type{9}, Texts::value_type{1}));
  EXPECT_THAT(*small.Wait(), ElementsAre(1, 7));
  EXPECT_FALSE(large.is_done());
  model.Open();
  EXPECT_EQ(*large.Wait(), VectorsOf(Texts(2048, {1})));
  EXPECT_EQ(*other.Wait(), VectorsOf(Texts{{8}, {9}}));
}

TEST(EmbeddingEngineTest, ALongTextHasItsTurnAmongSmallOnes) {
  Model model(/*gated=*/true);
  EmbeddingEngine engine(kOptions, model.function());
  Answer small, large;
  ASSERT_TRUE(engine.Submit(Texts(12, {1}), small.done()).ok());
  model.WaitForBatches(1);
  ASSERT_TRUE(engine.Submit({Texts::value_type(8, 2)}, large.done()).ok());
  model.Open();
  ASSERT_TRUE(large.Wait().ok());
  ASSERT_TRUE(small.Wait().ok());
  EXPECT_THAT(model.WaitForBatches(3)[2], ElementsAre(Texts::value_type(8, 2)));
}

TEST(EmbeddingEngineTest, CancelledTextsAreNotBegun) {
  Model model(/*gated=*/true);
  EmbeddingEngine engine(kOptions, model.function());
  Answer running, waiting, last;
  const auto first = engine.Submit(Texts(100, {1}), running.done());
  ASSERT_TRUE(first.ok());
  model.WaitForBatches(1);
  const auto second = engine.Submit({{2}}, waiting.done());
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(engine.stats().running, 1);
  EXPECT_EQ(engine.stats().waiting, 1);
  engine.Cancel(*first);
  engine.Cancel(*first);
  engine.Cancel(*second);
  EXPECT_TRUE(absl::IsCancelled(running.Wait().status()));
  EXPECT_TRUE(absl::IsCancelled(waiting.Wait().status()));
  EXPECT_EQ(engine.stats().running + engine.stats().waiting, 0);
  ASSERT_TRUE(engine.Submit({{3}}, last.done()).ok());
  model.Open();
  EXPECT_THAT(*last.Wait(), ElementsAre(1, 3));
  EXPECT_THAT(model.WaitForBatches(2)[1], ElementsAre(Texts::value_type{3}));
  engine.Cancel(*first);  // long gone
}

TEST(EmbeddingEngineTest, AFullQueueRefuses) {
  Model model(/*gated=*/true);
  EmbeddingEngine engine(kOptions, model.function());
  Answer answers[5];
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(engine.Submit({{i}}, answers[i].done()).ok());
  const auto refused = engine.Submit({{4}}, answers[4].done());
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status()));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("4 requests"));
  model.Open();
  for (int i = 0; i < 4; ++i) EXPECT_THAT(*answers[i].Wait(), ElementsAre(1, i));
  EXPECT_TRUE(engine.Submit({{4}}, answers[4].done()).ok());
  EXPECT_TRUE(answers[4].Wait().ok());
}

TEST(EmbeddingEngineTest, WhatRequestsHoldIsBounded) {
  Model model(/*gated=*/true);
  EmbeddingEngineOptions options = kOptions;
  options.max_held_bytes = 1000;
  EmbeddingEngine engine(options, model.function());
  Answer large, small, other;
  // Alone it may be larger.
  ASSERT_TRUE(engine.Submit({Texts::value_type(1000, 1)}, large.done()).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(engine.Submit({{1}}, small.done()).status()));
  model.Open();
  ASSERT_TRUE(large.Wait().ok());
  ASSERT_TRUE(engine.Submit({{1}}, small.done()).ok());
  ASSERT_TRUE(small.Wait().ok());
  EXPECT_TRUE(engine.Submit({{1}}, other.done(), /*held_bytes=*/5000).ok());
  EXPECT_TRUE(other.Wait().ok());
}

TEST(EmbeddingEngineTest, AFailedBatchEndsItsRequestsOnly) {
  Model model(/*gated=*/true);
  EmbeddingEngine engine(kOptions, model.function());
  Answer failed, later;
  ASSERT_TRUE(engine.Submit(Texts(10, {1}), failed.done()).ok());
  model.WaitForBatches(1);
  // However the model calls it: what a request may not have was refused before.
  model.FailWith(absl::InvalidArgumentError("broken"));
  model.Pass(1);
  EXPECT_EQ(failed.Wait().status(), absl::InternalError("broken"));
  model.FailWith(absl::OkStatus());
  model.Open();
  ASSERT_TRUE(engine.Submit({{2}}, later.done()).ok());
  EXPECT_THAT(*later.Wait(), ElementsAre(1, 2));
}

TEST(EmbeddingEngineTest, DrainFinishesWhatRuns) {
  Model model(/*gated=*/true);
  EmbeddingEngine engine(kOptions, model.function());
  Answer answer, refused;
  ASSERT_TRUE(engine.Submit(Texts(10, {1}), answer.done()).ok());
  std::thread drain([&] { engine.Drain(absl::InfiniteFuture()); });
  model.Open();
  EXPECT_TRUE(answer.Wait().ok());
  drain.join();
  EXPECT_TRUE(absl::IsUnavailable(engine.Submit({{1}}, refused.done()).status()));
}

TEST(EmbeddingEngineTest, AnExpiredDrainEndsTheRest) {
  Model model(/*gated=*/true);
  EmbeddingEngine engine(kOptions, model.function());
  Answer running, waiting;
  ASSERT_TRUE(engine.Submit(Texts(10, {1}), running.done()).ok());
  model.WaitForBatches(1);
  ASSERT_TRUE(engine.Submit({{2}}, waiting.done()).ok());
  std::thread drain([&] { engine.Drain(absl::InfinitePast()); });
  EXPECT_TRUE(absl::IsUnavailable(running.Wait().status()));
  EXPECT_TRUE(absl::IsUnavailable(waiting.Wait().status()));
  model.Open();  // the batch under way ends by itself
  drain.join();
  EXPECT_EQ(model.WaitForBatches(1).size(), 1u);
}

// Nothing of it is silenced under ThreadSanitizer.
TEST(EmbeddingEngineTest, ManyClientsAtOnce) {
  Model model;
  EmbeddingEngineOptions options = kOptions;
  options.max_requests = 1000;
  EmbeddingEngine engine(options, model.function());
  std::atomic<int> answered{0}, cancelled{0};
  std::vector<std::thread> clients;
  for (int client = 0; client < 4; ++client) {
    clients.emplace_back([&, client] {
      std::deque<Answer> answers;
      for (int i = 0; i < 100; ++i) {
        const Texts texts(static_cast<size_t>(i % 7 + 1), {client, i});
        Answer& answer = answers.emplace_back();
        const auto id = engine.Submit(texts, answer.done());
        ASSERT_TRUE(id.ok()) << id.status();
        if (i % 5 == 0) engine.Cancel(*id);
        const Vectors vectors = answer.Wait();
        if (vectors.ok()) {
          EXPECT_EQ(*vectors, VectorsOf(texts));
          ++answered;
        } else {
          EXPECT_TRUE(absl::IsCancelled(vectors.status()));
          ++cancelled;
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(answered + cancelled, 400);
  EXPECT_GE(answered, 320);
}

}  // namespace
}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// One request through the service: order of events, choices, cancellation at every moment, errors
// of the engine, many at once.
#include "server/generate_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <thread>
#include <utility>

#include "server/errors.h"
#include "server/metrics.h"
#include "server/once_event.h"
#include "tests/server/fake_engine.h"
#include "tests/server/fake_model.h"

namespace fairlead {
namespace {

using ::testing::HasSubstr;

// Checks the order of events while it collects them.
class Collector : public EventSink {
 public:
  void OnEvent(pb::GenerateEvent event) override {
    EXPECT_EQ(num_done_, 0);
    EXPECT_EQ(event.has_started(), events_.empty());
    EXPECT_TRUE(events_.empty() || !events_.back().has_usage());
    events_.push_back(std::move(event));
  }
  void OnDone(const absl::Status& status) override {
    EXPECT_EQ(++num_done_, 1);
    status_ = status;
    done_.Notify();
  }
  absl::Status Wait() {
    done_.Wait();
    return status_;
  }
  const std::vector<pb::GenerateEvent>& events() const { return events_; }
  std::string Text(int choice = 0) const {
    std::string text;
    for (const auto& event : events_) {
      if (event.has_delta() && event.delta().choice() == choice) text += event.delta().text();
    }
    return text;
  }

 private:
  std::vector<pb::GenerateEvent> events_;
  int num_done_ = 0;
  absl::Status status_;
  OnceEvent done_;
};

class GenerateServiceTest : public testing::Test {
 protected:
  ~GenerateServiceTest() override { engine_.Drain(absl::InfinitePast()); }

  uint64_t Start(const pb::GenerateRequest& request, const std::shared_ptr<Collector>& collector) {
    return service_->Start(request, Principal{"anonymous", 0}, absl::InfiniteFuture(), collector);
  }
  static pb::GenerateRequest Prompt(int max_tokens) {
    pb::GenerateRequest request;
    request.set_prompt("hi");
    request.mutable_stop()->set_max_tokens(max_tokens);
    return request;
  }

  FakeTokenizer tokenizer_;
  ChatFormat chat_format_ = FakeChatFormat();
  FakeEngine engine_;
  Metrics metrics_{BuildInfo{}};
  std::optional<GenerateService> service_{
      std::in_place, FakeServedModel(&tokenizer_, &chat_format_), engine_, metrics_, 2};
};

TEST_F(GenerateServiceTest, EventsComeInOrder) {
  engine_.AnswerWith(TokensOf("abc"));
  const auto collector = std::make_shared<Collector>();
  pb::GenerateRequest request = Prompt(6);
  request.mutable_sampling()->set_seed(11);
  request.set_n(2);
  request.mutable_output()->set_echo(true);
  Start(request, collector);
  ASSERT_TRUE(collector->Wait().ok());
  EXPECT_EQ(collector->events().front().started().seed(), 11);
  EXPECT_FALSE(collector->events().front().started().request_id().empty());
  EXPECT_EQ(collector->Text(0), "hiabcabc");
  EXPECT_EQ(collector->Text(1), "hiabcabc");
  EXPECT_EQ(collector->events().back().usage().completion_tokens(), 12);
  EXPECT_EQ(engine_.requests()[0].sampling.seed, 11u);
  EXPECT_EQ(engine_.requests()[1].sampling.seed, 12u);
}

TEST_F(GenerateServiceTest, AStopStringEndsTheSequenceInTheEngine) {
  const auto collector = std::make_shared<Collector>();
  pb::GenerateRequest request = Prompt(100);
  request.mutable_stop()->add_stop("END");
  Start(request, collector);
  const uint64_t id = engine_.WaitForRequest();
  engine_.Emit(id, TokensOf("oneENDmore"));
  engine_.WaitForCancel(id);
  ASSERT_TRUE(collector->Wait().ok());
  EXPECT_EQ(collector->Text(), "one");
}

TEST_F(GenerateServiceTest, CancelEndsEveryChoice) {
  const auto collector = std::make_shared<Collector>();
  pb::GenerateRequest request = Prompt(100);
  request.set_n(3);
  const uint64_t id = Start(request, collector);
  engine_.WaitForRequest(3);
  engine_.Emit(1, TokensOf("x"));
  service_->Cancel(id);
  service_->Cancel(id);
  EXPECT_EQ(collector->Wait().code(), absl::StatusCode::kCancelled);
  for (uint64_t choice = 1; choice <= 3; ++choice) engine_.WaitForCancel(choice);
  service_->Cancel(id);  // long gone
}

TEST_F(GenerateServiceTest, CancelAtAnyMomentEndsTheRequestOnce) {
  engine_.AnswerWith(TokensOf("abc"));
  for (int round = 0; round < 300; ++round) {
    const auto collector = std::make_shared<Collector>();
    const uint64_t id = Start(Prompt(50), collector);
    for (int spin = 0; spin < round * 20; ++spin)
      std::atomic_signal_fence(std::memory_order_seq_cst);
    service_->Cancel(id);
    const absl::StatusCode code = collector->Wait().code();
    EXPECT_TRUE(code == absl::StatusCode::kOk || code == absl::StatusCode::kCancelled);
  }
}

// Never the tokens that were there when the client left.
TEST_F(GenerateServiceTest, ACancelledTokenizeGivesNoTokens) {
  pb::TokenizeRequest text, chat;
  text.set_text("hi");
  pb::Message& message = *chat.mutable_chat()->add_messages();
  message.set_role("user");
  message.set_content("hi");
  for (const pb::TokenizeRequest& request : {text, chat}) {
    EXPECT_TRUE(service_->Tokenize(request, std::atomic<bool>{false}).ok());
    EXPECT_EQ(service_->Tokenize(request, std::atomic<bool>{true}).status().code(),
              absl::StatusCode::kCancelled);
  }
}

TEST_F(GenerateServiceTest, TheEnginesErrorsReachTheClient) {
  int count = 0;
  for (const absl::Status& status :
       {absl::DeadlineExceededError("late"), absl::InternalError("not finite"),
        absl::UnavailableError("shutting down")}) {
    const auto collector = std::make_shared<Collector>();
    Start(Prompt(10), collector);
    const uint64_t id = engine_.WaitForRequest(++count);
    engine_.Emit(id, TokensOf("x"));
    engine_.Close(id, FinishReason::kError, status);
    EXPECT_EQ(collector->Wait(), status);
  }
}

TEST_F(GenerateServiceTest, RefusalsComeBeforeAnyEvent) {
  engine_.RefuseWith(absl::ResourceExhaustedError("512 requests wait already"));
  const auto full = std::make_shared<Collector>();
  Start(Prompt(10), full);
  const absl::Status status = full->Wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorCode(status), "queue_full");
  EXPECT_TRUE(full->events().empty());
  const auto invalid = std::make_shared<Collector>();
  Start(Prompt(-1), invalid);
  EXPECT_EQ(invalid->Wait().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(invalid->events().empty());
  service_.reset();  // the last request has been counted
  EXPECT_THAT(metrics_.Scrape(),
              HasSubstr("fairlead_requests_finished_total{reason=\"rejected\"} 2"));
}

// No client can be told to try that again later.
TEST_F(GenerateServiceTest, MoreChoicesThanTheServerHoldsAreAnError) {
  pb::GenerateRequest request = Prompt(1);
  request.set_n(service_->max_requests() + 1);
  const auto sink = std::make_shared<Collector>();
  Start(request, sink);
  const absl::Status status = sink->Wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorParam(status), "n");
  EXPECT_THAT(status.message(), HasSubstr("65"));
  EXPECT_THAT(status.message(), HasSubstr("64"));
}

TEST_F(GenerateServiceTest, SmallRequestsDoNotWaitForLargeOnes) {
  OnceEvent started, release, ended;
  // All that is large runs on one thread; while it is held, the others go on.
  ASSERT_TRUE(service_
                  ->Run(size_t{1} << 20,
                        [&] {
                          started.Notify();
                          release.Wait();
                        })
                  .ok());
  started.Wait();
  ASSERT_TRUE(service_->Run(size_t{1} << 20, [&] { ended.Notify(); }).ok());
  engine_.AnswerWith(TokensOf("ab"));
  const auto small = std::make_shared<Collector>();
  Start(Prompt(2), small);
  EXPECT_TRUE(small->Wait().ok());
  release.Notify();
  ended.Wait();
}

TEST_F(GenerateServiceTest, ManyClientsAtOnce) {
  engine_.AnswerWith(TokensOf("abcdefgh"));
  constexpr int kThreads = 4, kRequests = 50;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this] {
      for (int i = 0; i < kRequests; ++i) {
        const auto collector = std::make_shared<Collector>();
        Start(Prompt(1 + i), collector);
        EXPECT_TRUE(collector->Wait().ok());
        EXPECT_EQ(collector->Text().size(), static_cast<size_t>(1 + i));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// The gRPC port against gRPC's own client: streams, unary calls, deadlines, cancellation, errors
// with their details, draining.
#include "server/grpc_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/errors.h"
#include "tests/server/grpc_fixture.h"

namespace fairlead {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

pb::GenerateRequest Prompt(const std::string& text, int max_tokens) {
  pb::GenerateRequest request;
  request.set_prompt(text);
  request.mutable_stop()->set_max_tokens(max_tokens);
  request.mutable_output()->set_return_token_ids(true);
  return request;
}

struct Streamed {
  std::vector<pb::GenerateEvent> events;
  grpc::Status status;

  std::string Text(int choice = 0) const {
    std::string text;
    for (const auto& event : events) {
      if (event.has_delta() && event.delta().choice() == choice) text += event.delta().text();
    }
    return text;
  }
};

Streamed Generate(const GrpcFixture& fixture, const pb::GenerateRequest& request) {
  const auto stub = pb::Inference::NewStub(fixture.Channel());
  grpc::ClientContext context;
  const auto reader = stub->Generate(&context, request);
  Streamed streamed;
  for (pb::GenerateEvent event; reader->Read(&event);) streamed.events.push_back(event);
  streamed.status = reader->Finish();
  return streamed;
}

template <typename Detail>
std::optional<Detail> FindDetail(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), static_cast<int>(status.error_code()));
  EXPECT_EQ(details.message(), status.error_message());
  for (const auto& any : details.details()) {
    if (Detail detail; any.UnpackTo(&detail)) return detail;
  }
  return std::nullopt;
}

TEST(GrpcServer, StreamsEventsInOrder) {
  GrpcFixture fixture;
  fixture.engine.AnswerWith(TokensOf("hello"));
  const Streamed streamed = Generate(fixture, Prompt("hi", 5));
  ASSERT_TRUE(streamed.status.ok()) << streamed.status.error_message();
  ASSERT_GE(streamed.events.size(), 4u);
  EXPECT_TRUE(streamed.events.front().has_started());
  EXPECT_EQ(streamed.events.front().started().model(), "fake");
  EXPECT_EQ(streamed.events.front().started().prompt_tokens(), 3);  // <bos> and two bytes
  EXPECT_EQ(streamed.Text(), "hello");
  const pb::GenerateEvent& finish = streamed.events[streamed.events.size() - 2];
  EXPECT_EQ(finish.finish().reason(), pb::FINISH_REASON_LENGTH);
  EXPECT_EQ(streamed.events.back().usage().completion_tokens(), 5);
}

TEST(GrpcServer, SlowClientGetsFewerJoinedMessagesAndEveryToken) {
  GrpcFixture fixture;
  std::vector<Token> tokens;
  std::string expected;
  for (int i = 0; i < 900; ++i) {
    tokens.push_back('a' + i % 26);
    expected += static_cast<char>('a' + i % 26);
  }
  fixture.engine.AnswerWith(tokens);
  pb::GenerateRequest request = Prompt("hi", 900);
  request.set_n(3);
  request.mutable_output()->set_logprobs(2);
  const Streamed streamed = Generate(fixture, request);
  ASSERT_TRUE(streamed.status.ok());
  for (int choice = 0; choice < 3; ++choice) {
    EXPECT_EQ(streamed.Text(choice), expected);
    int num_tokens = 0, num_ids = 0, num_logprobs = 0;
    for (const auto& event : streamed.events) {
      if (!event.has_delta() || event.delta().choice() != choice) continue;
      EXPECT_EQ(event.delta().num_tokens(), event.delta().token_ids_size());
      num_tokens += event.delta().num_tokens();
      for (const pb::TokenLogprob& logprob : event.delta().logprobs()) {
        EXPECT_EQ(logprob.token(), tokens[static_cast<size_t>(num_logprobs++)]);
        EXPECT_EQ(logprob.top_size(), 2);
      }
      num_ids += event.delta().token_ids_size();
    }
    EXPECT_EQ(num_tokens, 900);
    EXPECT_EQ(num_ids, 900);
    EXPECT_EQ(num_logprobs, 900);
  }
}

TEST(GrpcServer, GenerateOnceCollectsEveryChoice) {
  GrpcFixture fixture;
  fixture.engine.AnswerWith(TokensOf("abc"));
  const auto stub = pb::Inference::NewStub(fixture.Channel());
  grpc::ClientContext context;
  pb::GenerateRequest request = Prompt("hi", 3);
  request.set_n(2);
  request.mutable_sampling()->set_seed(7);
  request.mutable_output()->set_prompt_logprobs(1);
  pb::GenerateResponse response;
  const grpc::Status status = stub->GenerateOnce(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.started().seed(), 7);
  ASSERT_EQ(response.choices_size(), 2);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(response.choices(i).index(), i);
    EXPECT_EQ(response.choices(i).text(), "abc");
    EXPECT_THAT(response.choices(i).token_ids(), ElementsAre('a', 'b', 'c'));
    EXPECT_EQ(response.choices(i).finish().completion_tokens(), 3);
  }
  EXPECT_EQ(response.prompt_logprobs().tokens_size(), 3);
  EXPECT_EQ(response.usage().completion_tokens(), 6);
}

TEST(GrpcServer, UnaryMethodsAnswer) {
  GrpcFixture fixture;
  const auto stub = pb::Inference::NewStub(fixture.Channel());
  {
    grpc::ClientContext context;
    pb::TokenizeRequest request;
    request.set_text("ab");
    pb::TokenizeResponse response;
    ASSERT_TRUE(stub->Tokenize(&context, request, &response).ok());
    EXPECT_THAT(response.tokens(), ElementsAre(FakeTokenizer::kBos, 'a', 'b'));
  }
  {
    grpc::ClientContext context;
    pb::DetokenizeRequest request;
    request.add_tokens('x');
    pb::DetokenizeResponse response;
    ASSERT_TRUE(stub->Detokenize(&context, request, &response).ok());
    EXPECT_EQ(response.text(), "x");
  }
  {
    grpc::ClientContext context;
    pb::ListModelsResponse response;
    ASSERT_TRUE(stub->ListModels(&context, {}, &response).ok());
    ASSERT_EQ(response.models_size(), 1);
    EXPECT_EQ(response.models(0).id(), "fake");
    EXPECT_EQ(response.models(0).max_model_len(), 1024);
  }
  {
    grpc::ClientContext context;
    pb::ServerInfoResponse response;
    ASSERT_TRUE(stub->ServerInfo(&context, {}, &response).ok());
    EXPECT_EQ(response.version(), "1.2.3");
  }
}

TEST(GrpcServer, ClientThatLeavesMidStreamCancelsTheSequence) {
  GrpcFixture fixture;
  const auto stub = pb::Inference::NewStub(fixture.Channel());
  grpc::ClientContext context;
  const auto reader = stub->Generate(&context, Prompt("hi", 100));
  const uint64_t id = fixture.engine.WaitForRequest();
  fixture.engine.Emit(id, TokensOf("a"));
  pb::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_TRUE(event.has_started());
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.delta().text(), "a");
  context.TryCancel();
  fixture.engine.WaitForCancel(id);
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST(GrpcServer, DeadlineReachesTheEngine) {
  GrpcFixture fixture;
  const auto stub = pb::Inference::NewStub(fixture.Channel());
  grpc::ClientContext context;
  const auto sent = std::chrono::system_clock::now();
  const auto deadline = sent + std::chrono::minutes(1);
  context.set_deadline(deadline);
  const auto reader = stub->Generate(&context, Prompt("hi", 100));
  fixture.engine.WaitForRequest();
  // What travels is the time that is left, rounded up, and it counts from its arrival.
  const absl::Duration way = absl::FromChrono(std::chrono::system_clock::now() - sent);
  const absl::Duration difference =
      fixture.engine.requests().front().deadline - absl::FromChrono(deadline);
  EXPECT_GT(difference, -absl::Milliseconds(100));
  EXPECT_LT(difference, way + absl::Seconds(1));
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST(GrpcServer, DeadlineEndsTheCall) {
  GrpcFixture fixture;
  const auto stub = pb::Inference::NewStub(fixture.Channel());
  // Longer and longer, until a slow machine gets the request to the engine before the deadline.
  for (std::chrono::milliseconds patience{100}; fixture.engine.requests().empty(); patience *= 2) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + patience);
    pb::GenerateResponse response;
    const grpc::Status status = stub->GenerateOnce(&context, Prompt("hi", 100), &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  fixture.engine.WaitForCancel(fixture.engine.WaitForRequest());
}

TEST(GrpcServer, NoDeadlineIsInfinite) {
  GrpcFixture fixture;
  fixture.engine.AnswerWith(TokensOf("x"));
  ASSERT_TRUE(Generate(fixture, Prompt("hi", 1)).status.ok());
  EXPECT_EQ(fixture.engine.requests().front().deadline, absl::InfiniteFuture());
}

TEST(GrpcServer, BadParameterNamesTheField) {
  GrpcFixture fixture;
  pb::GenerateRequest request = Prompt("hi", 5);
  request.mutable_sampling()->set_temperature(9);
  const Streamed streamed = Generate(fixture, request);
  EXPECT_TRUE(streamed.events.empty());
  EXPECT_EQ(streamed.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const auto bad_request = FindDetail<google::rpc::BadRequest>(streamed.status);
  ASSERT_TRUE(bad_request.has_value());
  ASSERT_EQ(bad_request->field_violations_size(), 1);
  EXPECT_EQ(bad_request->field_violations(0).field(), "temperature");
  EXPECT_THAT(bad_request->field_violations(0).description(), HasSubstr("9"));
}

TEST(GrpcServer, LongPromptAndUnknownModelHaveReasons) {
  GrpcFixture fixture;
  const Streamed too_long = Generate(fixture, Prompt(std::string(2000, 'x'), 5));
  EXPECT_EQ(too_long.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const auto info = FindDetail<google::rpc::ErrorInfo>(too_long.status);
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->reason(), "CONTEXT_LENGTH_EXCEEDED");
  EXPECT_EQ(info->domain(), "fairlead");

  pb::GenerateRequest unknown = Prompt("hi", 5);
  unknown.set_model("other");
  const Streamed not_found = Generate(fixture, unknown);
  EXPECT_EQ(not_found.status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(FindDetail<google::rpc::ErrorInfo>(not_found.status)->reason(), "MODEL_NOT_FOUND");
}

TEST(GrpcServer, FullQueueAsksForARetry) {
  GrpcFixture fixture;
  fixture.engine.RefuseWith(absl::ResourceExhaustedError("the queue is full"));
  const Streamed streamed = Generate(fixture, Prompt("hi", 5));
  EXPECT_TRUE(streamed.events.empty());
  EXPECT_EQ(streamed.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(FindDetail<google::rpc::ErrorInfo>(streamed.status)->reason(), "QUEUE_FULL");
  const auto retry = FindDetail<google::rpc::RetryInfo>(streamed.status);
  ASSERT_TRUE(retry.has_value());
  EXPECT_GE(retry->retry_delay().seconds(), 1);
}

TEST(GrpcServer, RunningStreamsFinishWhileItDrains) {
  GrpcFixture fixture;
  fixture.server->SetServing(true);
  const auto stub = pb::Inference::NewStub(fixture.Channel());
  constexpr int kStreams = 8;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<pb::GenerateEvent>>> readers;
  for (int i = 0; i < kStreams; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(stub->Generate(contexts.back().get(), Prompt("hi", 100)));
    fixture.engine.WaitForRequest(i + 1);
  }
  // A health watch lasts until somebody ends it: here, the drain.
  const auto health = grpc::health::v1::Health::NewStub(fixture.Channel());
  grpc::ClientContext watch_context;
  const auto watch = health->Watch(&watch_context, {});
  grpc::health::v1::HealthCheckResponse health_status;
  ASSERT_TRUE(watch->Read(&health_status));
  EXPECT_EQ(health_status.status(), grpc::health::v1::HealthCheckResponse::SERVING);

  std::vector<std::thread> clients;
  for (const auto& reader : readers) {
    clients.emplace_back([&reader] {
      std::string text;
      for (pb::GenerateEvent event; reader->Read(&event);) text += event.delta().text();
      const grpc::Status status = reader->Finish();
      EXPECT_TRUE(status.ok()) << status.error_message();
      EXPECT_EQ(text, "done");
    });
  }
  std::thread drain([&] { fixture.server->Drain(absl::InfiniteFuture()); });
  while (watch->Read(&health_status)) {
    EXPECT_EQ(health_status.status(), grpc::health::v1::HealthCheckResponse::NOT_SERVING);
  }
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  // New calls are refused, those that run go on.
  const Streamed refused = Generate(fixture, Prompt("hi", 5));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(FindDetail<google::rpc::RetryInfo>(refused.status).has_value());
  for (int i = 0; i < kStreams; ++i) {
    const uint64_t id = fixture.engine.WaitForRequest(i + 1);
    fixture.engine.Emit(id, TokensOf("done"));
    fixture.engine.Close(id, FinishReason::kStop);
  }
  for (std::thread& client : clients) client.join();
  drain.join();
}

TEST(GrpcServer, DrainDeadlineEndsTheRest) {
  GrpcFixture fixture;
  const auto stub = pb::Inference::NewStub(fixture.Channel());
  grpc::ClientContext context;
  const auto reader = stub->Generate(&context, Prompt("hi", 100));
  const uint64_t id = fixture.engine.WaitForRequest();
  fixture.server->Drain(absl::Now() + absl::Milliseconds(50));
  fixture.engine.WaitForCancel(id);
  pb::GenerateEvent event;
  while (reader->Read(&event)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
}

TEST(GrpcServer, PortInUseIsAnError) {
  GrpcFixture fixture;
  GrpcServerOptions options;
  options.port = fixture.server->port();
  const auto second = GrpcServer::Start(options, fixture.keys, fixture.service, fixture.metrics);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr(std::to_string(fixture.server->port())));
}

TEST(GrpcServer, AnswersAreCountedByRouteAndCode) {
  GrpcFixture fixture;
  fixture.engine.AnswerWith(TokensOf("x"));
  ASSERT_TRUE(Generate(fixture, Prompt("hi", 1)).status.ok());
  fixture.server->Drain(absl::InfiniteFuture());
  EXPECT_THAT(fixture.metrics.Scrape(), HasSubstr(R"(route="/fairlead.v1.Inference/Generate")"));
}

}  // namespace
}  // namespace fairlead

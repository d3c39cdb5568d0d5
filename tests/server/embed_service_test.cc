// SPDX-License-Identifier: Apache-2.0
// Embeddings through the service, the HTTP port and gRPC's, with all their threads at work, above a
// fake model. Nothing of it is silenced under ThreadSanitizer.
#include "server/embed_service.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <cmath>
#include <limits>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "fairlead/v1/inference.grpc.pb.h"
#include "server/errors.h"
#include "server/grpc_server.h"
#include "server/http_server.h"
#include "server/once_event.h"
#include "tests/server/fake_embedder.h"
#include "tests/server/fake_engine.h"

namespace fairlead {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string Post(const std::string& path, const std::string& body) {
  return absl::StrCat("POST ", path, " HTTP/1.1\r\nConnection: close\r\nX-Request-Id: r1\r\n",
                      "Content-Length: ", body.size(), "\r\n\r\n", body);
}

class HttpClient {
 public:
  explicit HttpClient(int port) : socket_(io_) {
    socket_.connect(tcp::endpoint(asio::ip::address_v4::loopback(), static_cast<uint16_t>(port)));
  }
  void Send(const std::string& text) { asio::write(socket_, asio::buffer(text)); }
  std::string ReadAll() {
    std::string received;
    boost::system::error_code ignored;
    asio::read(socket_, asio::dynamic_buffer(received), ignored);
    return received;
  }
  void Close() { socket_.close(); }

 private:
  asio::io_context io_;
  tcp::socket socket_;
};

// The ports of one service.
struct Ports {
  Ports(const Services& services, Metrics& metrics) {
    HttpServerOptions http_options;
    http_options.port = 0;
    auto http_started = HttpServer::Start(http_options, keys, services, metrics);
    EXPECT_TRUE(http_started.ok()) << http_started.status();
    http = *std::move(http_started);
    GrpcServerOptions grpc_options;
    grpc_options.port = 0;
    auto grpc_started = GrpcServer::Start(grpc_options, keys, services, metrics);
    EXPECT_TRUE(grpc_started.ok()) << grpc_started.status();
    grpc = *std::move(grpc_started);
  }
  std::string Ask(const std::string& request) const {
    HttpClient client(http->port());
    client.Send(request);
    return client.ReadAll();
  }
  std::unique_ptr<pb::Inference::Stub> Stub() const {
    return pb::Inference::NewStub(grpc::CreateChannel(absl::StrCat("127.0.0.1:", grpc->port()),
                                                      grpc::InsecureChannelCredentials()));
  }

  KeyStore keys = KeyStore::AllowAnonymous();
  std::unique_ptr<HttpServer> http;
  std::unique_ptr<GrpcServer> grpc;
};

class EmbedServiceTest : public testing::Test {
 protected:
  ~EmbedServiceTest() override {
    model_.Hold(false);
    engine_.Drain(absl::InfinitePast());
  }
  absl::StatusOr<EmbedAnswer> Embed(const pb::EmbedRequest& request) {
    absl::StatusOr<EmbedAnswer> answer = absl::UnknownError("not done");
    OnceEvent done;
    const auto id = service_.Start(request, nobody_left_, [&](absl::StatusOr<EmbedAnswer> result) {
      answer = std::move(result);
      done.Notify();
    });
    if (!id.ok()) return id.status();
    done.Wait();
    return answer;
  }
  static pb::EmbedRequest Ids(std::initializer_list<Token> ids) {
    pb::EmbedRequest request;
    request.add_inputs()->mutable_tokens()->mutable_ids()->Add(ids.begin(), ids.end());
    return request;
  }

  const std::atomic<bool> nobody_left_{false};
  FramingTokenizer tokenizer_;
  FakeEmbedder model_;
  EmbeddingEngine engine_{{.dimensions = FakeEmbedder::kDimensions, .max_requests = 2},
                          model_.function()};
  Metrics metrics_{BuildInfo{}};
  EmbedService service_{FakeEmbedder::Served(&tokenizer_), FakeEmbedder::Traits(), engine_,
                        metrics_, 2};
};

TEST_F(EmbedServiceTest, VectorsAreCutAndNormalized) {
  pb::EmbedRequest request = Ids({4, 5, 12});  // 3, 4, 12
  EXPECT_THAT(Embed(request)->values, ElementsAre(3, 4, 12));
  request.set_dimensions(2);
  EXPECT_THAT(Embed(request)->values, ElementsAre(3, 4));
  request.set_normalize(true);
  EXPECT_THAT(Embed(request)->values, ElementsAre(3.0f / 5, 4.0f / 5));
  request.clear_dimensions();
  const auto whole = Embed(request);
  ASSERT_TRUE(whole.ok());
  EXPECT_THAT(whole->values, ElementsAre(3.0f / 13, 4.0f / 13, 12.0f / 13));
  EXPECT_EQ(whole->prompt_tokens, 3);
}

TEST_F(EmbedServiceTest, AnswersTakeRoomUntilTheyAreSent) {
  EmbedService service(FakeEmbedder::Served(&tokenizer_), FakeEmbedder::Traits(), engine_, metrics_,
                       1, /*max_answer_bytes=*/1);
  absl::StatusOr<EmbedAnswer> answer = absl::UnknownError("not done");
  const auto ask = [&]() -> absl::Status {
    OnceEvent done;
    const auto id = service.Start(Ids({4, 5, 12}), nobody_left_, [&](auto result) {
      answer = std::move(result);
      done.Notify();
    });
    if (!id.ok()) return id.status();
    done.Wait();
    return answer.status();
  };
  EXPECT_TRUE(ask().ok());  // alone
  EXPECT_THAT(std::string(ask().message()), HasSubstr("yet to read"));
  answer = absl::UnknownError("sent");
  EXPECT_TRUE(ask().ok());
}

TEST_F(EmbedServiceTest, VectorsThatAreNotFiniteAreAnError) {
  EmbeddingEngine engine({.dimensions = 1}, [](absl::Span<const std::vector<Token>> texts) {
    return absl::StatusOr<std::vector<float>>(
        std::vector<float>(texts.size(), std::numeric_limits<float>::quiet_NaN()));
  });
  ServedModel model = FakeEmbedder::Served(&tokenizer_);
  model.dimensions = 1;
  EmbedService service(model, FakeEmbedder::Traits(), engine, metrics_, 1);
  absl::Status status;
  OnceEvent done;
  ASSERT_TRUE(service
                  .Start(Ids({1}), nobody_left_,
                         [&](const absl::StatusOr<EmbedAnswer>& answer) {
                           status = answer.status();
                           done.Notify();
                         })
                  .ok());
  done.Wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  engine.Drain(absl::InfinitePast());
}

TEST_F(EmbedServiceTest, OverHttp) {
  const Ports ports(service_, metrics_);
  const std::string answer = ports.Ask(Post("/v1/embeddings", R"({"input":["hi",[7,9]]})"));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(answer, HasSubstr("X-Request-Id: r1"));
  EXPECT_THAT(answer, HasSubstr(R"("index":0,"embedding":[4,256,257])"));
  EXPECT_THAT(answer, HasSubstr(R"("index":1,"embedding":[2,7,9])"));
  EXPECT_THAT(answer, HasSubstr(R"("prompt_tokens":6)"));
  EXPECT_THAT(ports.Ask(Post("/v1/embeddings", R"({"input":"hi","dimensions":9})")),
              StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(ports.Ask(Post("/score", R"({"text_1":"a","text_2":"b"})")), HasSubstr("\"score\""));
  EXPECT_THAT(ports.Ask(Post("/v1/rerank", R"({"query":"a","documents":["b"]})")),
              HasSubstr("relevance_score"));
  const std::string longer(40, 'x');
  EXPECT_THAT(
      ports.Ask(Post("/score", absl::StrCat(R"({"text_1":"a","text_2":["b",")", longer, R"("]})"))),
      HasSubstr("text_2[1] has 42 tokens"));
  EXPECT_THAT(
      ports.Ask(Post("/rerank", absl::StrCat(R"({"query":"a","documents":[")", longer, R"("]})"))),
      HasSubstr("\"param\":\"documents\""));
  EXPECT_THAT(ports.Ask(Post("/tokenize", R"({"prompt":"a"})")), HasSubstr("[256,97,257]"));
}

TEST_F(EmbedServiceTest, OverGrpc) {
  const Ports ports(service_, metrics_);
  const auto stub = ports.Stub();
  pb::EmbedRequest request = Ids({7, 9});
  request.add_inputs()->set_text("hi");
  pb::EmbedResponse response;
  grpc::ClientContext context;
  const grpc::Status status = stub->Embed(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.embeddings_size(), 2);
  EXPECT_THAT(response.embeddings(0).values(), ElementsAre(2, 7, 9));
  EXPECT_THAT(response.embeddings(1).values(), ElementsAre(4, 256, 257));
  EXPECT_EQ(response.prompt_tokens(), 6);
  EXPECT_EQ(response.model(), "fake");
  grpc::ClientContext bad;
  request.set_dimensions(-1);
  EXPECT_EQ(stub->Embed(&bad, request, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  pb::ListModelsResponse models;
  grpc::ClientContext list;
  ASSERT_TRUE(stub->ListModels(&list, {}, &models).ok());
  EXPECT_EQ(models.models(0).task(), "embed");
  EXPECT_EQ(models.models(0).dimensions(), FakeEmbedder::kDimensions);
}

TEST_F(EmbedServiceTest, AFullQueueIsToldWithATimeToRetry) {
  const Ports ports(service_, metrics_);
  model_.Hold(true);
  HttpClient first(ports.http->port()), second(ports.http->port());
  first.Send(Post("/v1/embeddings", R"({"input":"a"})"));
  model_.WaitForBatch();
  second.Send(Post("/v1/embeddings", R"({"input":"b"})"));
  while (engine_.stats().waiting == 0) std::this_thread::yield();
  const std::string refused = ports.Ask(Post("/v1/embeddings", R"({"input":"c"})"));
  EXPECT_THAT(refused, StartsWith("HTTP/1.1 429"));
  EXPECT_THAT(refused, HasSubstr("Retry-After: 1"));
  EXPECT_THAT(refused, HasSubstr("queue_full"));
  pb::EmbedResponse response;
  grpc::ClientContext context;
  EXPECT_EQ(ports.Stub()->Embed(&context, Ids({1}), &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  model_.Hold(false);
  EXPECT_THAT(first.ReadAll(), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(second.ReadAll(), StartsWith("HTTP/1.1 200"));
}

TEST_F(EmbedServiceTest, ClientsThatLeaveFreeTheirPlace) {
  const Ports ports(service_, metrics_);
  model_.Hold(true);
  HttpClient http(ports.http->port());
  http.Send(Post("/v1/embeddings", R"({"input":"a"})"));
  model_.WaitForBatch();
  grpc::ClientContext context;
  std::thread call([&] {
    pb::EmbedResponse response;
    EXPECT_EQ(ports.Stub()->Embed(&context, Ids({1}), &response).error_code(),
              grpc::StatusCode::CANCELLED);
  });
  const auto held = [this] { return engine_.stats().running + engine_.stats().waiting; };
  while (held() < 2) std::this_thread::yield();
  http.Close();
  context.TryCancel();
  call.join();
  while (held() > 0) std::this_thread::yield();
}

TEST_F(EmbedServiceTest, GenerationIsRefusedWithWhatTheModelIsFor) {
  const Ports ports(service_, metrics_);
  for (const char* path : {"/v1/completions", "/v1/chat/completions"}) {
    const std::string answer = ports.Ask(Post(path, R"({"prompt":"a"})"));
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 400"));
    EXPECT_THAT(answer, HasSubstr("the model 'fake' makes embeddings"));
  }
  pb::GenerateRequest request;
  request.set_prompt("a");
  pb::GenerateResponse response;
  grpc::ClientContext once, streamed;
  EXPECT_EQ(ports.Stub()->GenerateOnce(&once, request, &response).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  const auto stub = ports.Stub();
  const auto stream = stub->Generate(&streamed, request);
  pb::GenerateEvent event;
  EXPECT_FALSE(stream->Read(&event));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(EmbedServiceTest, AGenerationModelRefusesEmbeddings) {
  ChatFormat chat_format = FakeChatFormat();
  FakeEngine engine;
  GenerateService service(FakeServedModel(&tokenizer_, &chat_format), engine, metrics_, 1);
  {
    const Ports ports(service, metrics_);
    for (const char* path : {"/v1/embeddings", "/v1/score", "/rerank"}) {
      const std::string answer = ports.Ask(Post(path, R"({"input":"a"})"));
      EXPECT_THAT(answer, StartsWith("HTTP/1.1 400"));
      EXPECT_THAT(answer, HasSubstr("the model 'fake' generates text"));
    }
    pb::EmbedResponse response;
    grpc::ClientContext context;
    const grpc::Status status = ports.Stub()->Embed(&context, Ids({1}), &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_THAT(status.error_message(), HasSubstr("generates text"));
  }
  engine.Drain(absl::InfinitePast());
}

}  // namespace
}  // namespace fairlead

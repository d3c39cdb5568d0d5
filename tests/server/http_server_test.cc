// SPDX-License-Identifier: Apache-2.0
// The HTTP port above a fake engine, with all its threads at work: many clients that ask, stream
// and leave at once, and a drain while streams run. Nothing of it is silenced under
// ThreadSanitizer.
#include "server/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/metrics.h"
#include "tests/server/fake_engine.h"
#include "tests/server/fake_model.h"

namespace fairlead {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

std::string Completion(int max_tokens, bool stream, const std::string& prompt = R"("hi")",
                       int n = 1) {
  const std::string body =
      absl::StrCat(R"({"prompt":)", prompt, R"(,"n":)", n, R"(,"temperature":0,"max_tokens":)",
                   max_tokens, R"(,"stream":)", stream ? "true" : "false", "}");
  return absl::StrCat("POST /v1/completions HTTP/1.1\r\nConnection: close\r\nContent-Length: ",
                      body.size(), "\r\n\r\n", body);
}

class HttpServerTest : public testing::Test {
 protected:
  HttpServerTest() {
    HttpServerOptions options;
    options.port = 0;
    options.threads = 3;
    auto server = HttpServer::Start(options, keys_, service_, metrics_);
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    server_->SetReady(true);
  }
  ~HttpServerTest() override { engine_.Drain(absl::InfinitePast()); }

  // One client: its socket is its own, so many threads may each have one.
  class Client {
   public:
    explicit Client(int port) : socket_(io_) {
      socket_.connect(tcp::endpoint(asio::ip::address_v4::loopback(), static_cast<uint16_t>(port)));
    }
    void Send(const std::string& text) { asio::write(socket_, asio::buffer(text)); }
    void ReadUntil(const std::string& end) {
      asio::read_until(socket_, asio::dynamic_buffer(received_), end);
    }
    // Until the server closes.
    const std::string& ReadAll() {
      boost::system::error_code ignored;
      asio::read(socket_, asio::dynamic_buffer(received_), ignored);
      return received_;
    }

   private:
    asio::io_context io_;
    tcp::socket socket_;
    std::string received_;
  };

  std::string Ask(const std::string& request) {
    Client client(server_->port());
    client.Send(request);
    return client.ReadAll();
  }

  FakeTokenizer tokenizer_;
  ChatFormat chat_format_ = FakeChatFormat();
  FakeEngine engine_;
  Metrics metrics_{BuildInfo{}};
  KeyStore keys_ = KeyStore::AllowAnonymous();
  GenerateService service_{FakeServedModel(&tokenizer_, &chat_format_), engine_, metrics_, 2};
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, ManyClientsAskStreamAndScrapeAtOnce) {
  engine_.AnswerWith(TokensOf("abcdefgh"));
  constexpr int kThreads = 4, kRounds = 25;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this] {
      for (int i = 1; i <= kRounds; ++i) {
        const std::string answer = Ask(Completion(8 * i, false));
        EXPECT_THAT(answer, StartsWith("HTTP/1.1 200"));
        EXPECT_THAT(answer, HasSubstr(absl::StrCat("\"completion_tokens\":", 8 * i)));
        EXPECT_THAT(Ask(Completion(8 * i, true)), EndsWith("data: [DONE]\n\n\r\n0\r\n\r\n"));
        EXPECT_THAT(Ask("GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n"),
                    HasSubstr("fairlead_requests_finished_total"));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// The engine may be faster than who has submitted to it.
TEST_F(HttpServerTest, TheHeadComesFirstWhenTokensAreThereBeforeSubmitReturns) {
  engine_.AnswerBeforeSubmitReturns(TokensOf("abcdefgh"));
  const std::string several = R"(["hi","ho","he"])";
  for (int i = 0; i < 50; ++i) {
    const int n = 1 + i % 4;
    for (const std::string& request :
         {Completion(8, true, R"("hi")", n), Completion(8, true, several, n)}) {
      const std::string answer = Ask(request);
      EXPECT_THAT(answer, StartsWith("HTTP/1.1 200"));
      EXPECT_EQ(answer.rfind("HTTP/1.1 "), 0u);
      EXPECT_THAT(answer, EndsWith("data: [DONE]\n\n\r\n0\r\n\r\n"));
    }
  }
}

TEST_F(HttpServerTest, ClientsThatLeaveCancelTheirSequences) {
  constexpr int kClients = 24;
  std::vector<std::thread> threads;
  for (int c = 0; c < kClients; ++c) {
    threads.emplace_back([this, c] {
      Client client(server_->port());
      client.Send(Completion(100, c % 2 == 0));
    });
  }
  for (std::thread& thread : threads) thread.join();
  server_->StopAccepting();
  server_->Drain(absl::InfiniteFuture());  // nobody answers: only leaving ends a connection
  // A request whose client left early enough has not been submitted at all.
  const int submitted = static_cast<int>(engine_.requests().size());
  for (int i = 1; i <= submitted; ++i) engine_.WaitForCancel(engine_.WaitForRequest(i));
  EXPECT_LE(submitted, kClients);
}

TEST_F(HttpServerTest, StreamsFinishWhileItDrains) {
  constexpr int kStreams = 6;
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(std::make_unique<Client>(server_->port()));
    clients.back()->Send(Completion(100, true));
    clients.back()->ReadUntil("\r\n\r\n");  // the stream has begun
  }
  server_->StopAccepting();
  std::thread drain([this] { server_->Drain(absl::InfiniteFuture()); });
  for (int i = 1; i <= kStreams; ++i) {
    const uint64_t id = engine_.WaitForRequest(i);
    engine_.Emit(id, TokensOf("x"));  // one: several may come in one event or more
    engine_.Close(id, FinishReason::kLength);
  }
  for (const auto& client : clients) {
    EXPECT_THAT(client->ReadAll(), HasSubstr("\"text\":\"x\""));
    EXPECT_THAT(client->ReadAll(), EndsWith("data: [DONE]\n\n\r\n0\r\n\r\n"));
  }
  drain.join();
}

// Also whoever was accepted a moment ago.
TEST_F(HttpServerTest, TheDrainDeadlineCutsOffTheRest) {
  constexpr int kStreams = 16;
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < kStreams; ++i) clients.push_back(std::make_unique<Client>(server_->port()));
  for (const auto& client : clients) client->Send(Completion(100, true));
  for (const auto& client : clients) client->ReadUntil("\r\n\r\n");
  server_->StopAccepting();
  server_->Drain(absl::InfinitePast());
  for (int i = 1; i <= kStreams; ++i) engine_.WaitForCancel(engine_.WaitForRequest(i));
  for (const auto& client : clients)
    EXPECT_THAT(client->ReadAll(), testing::Not(HasSubstr("[DONE]")));
}

}  // namespace
}  // namespace fairlead

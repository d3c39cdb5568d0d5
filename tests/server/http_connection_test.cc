// SPDX-License-Identifier: Apache-2.0
// The HTTP layer over real sockets with a handler of the test's own: framing, limits, deadlines,
// and clients that misbehave.
#include "server/http/connection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/http/loop.h"

namespace fairlead {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using testing::HasSubstr;
using testing::StartsWith;
using namespace std::chrono_literals;

// Counts events that the test waits for.
class Counter {
 public:
  void Add() {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++count_;
    changed_.notify_all();
  }
  bool WaitFor(int count) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, 20s, [&] { return count_ >= count; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

class TestHandler : public HttpHandler {
 public:
  std::optional<Principal> Authenticate(std::string_view, std::string_view path,
                                        std::string_view authorization) override {
    if (path == "/open" || authorization == "Bearer good") return Principal{"test", 1};
    return std::nullopt;
  }

  bool IsPublic(std::string_view, std::string_view path) const override { return path == "/open"; }

  void Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) override {
    if (request.path == "/hang") {
      exchange->OnAbandoned([this] { abandoned.Add(); });
      const std::lock_guard<std::mutex> lock(mutex);
      held.push_back(std::move(exchange));
      handled.Add();
      return;
    }
    if (request.path == "/stream") {
      exchange->StartStream({{"X-Test", "1"}});
      exchange->Write("data: one\n\n");
      exchange->Write("data: two\n\n");
      exchange->EndStream();
      return;
    }
    if (request.path == "/flood") {
      {
        const std::lock_guard<std::mutex> lock(mutex);
        held.push_back(exchange);
      }
      exchange->OnAbandoned([this] { abandoned.Add(); });
      exchange->StartStream({});
      for (int i = 0; i < 64; ++i) exchange->Write(std::string(1 << 20, 'x'));
      return;
    }
    exchange->Respond(
        {.body = absl::StrCat(request.method, " ", request.path, " ", request.body.size())});
  }

  void Answered(std::string_view path, int status) override {
    const std::lock_guard<std::mutex> lock(mutex);
    statuses.push_back(status);
  }
  bool draining() const override { return false; }

  std::mutex mutex;
  std::vector<std::shared_ptr<HttpExchange>> held;
  std::vector<int> statuses;
  Counter handled, abandoned;
};

class HttpConnectionTest : public testing::Test {
 protected:
  HttpConnectionTest() {
    limits_.max_header_bytes = 2048;
    limits_.max_body_bytes = 4096;
    acceptor_.listen();
    Accept();
    thread_ = std::thread([this] { loop_.Run(); });
  }

  ~HttpConnectionTest() override {
    {
      const std::lock_guard<std::mutex> lock(handler_.mutex);
      handler_.held.clear();
    }
    asio::post(loop_.io(), [this] { acceptor_.close(); });
    EXPECT_TRUE(opened_ == 0 || closed_.WaitFor(opened_)) << "a connection was left open";
    loop_.Stop();
    thread_.join();
  }

  void Accept() {
    acceptor_.async_accept(loop_.io(), [this](boost::system::error_code error, tcp::socket socket) {
      if (error) return;
      const auto connection = MakeConnection(std::move(socket), nullptr, handler_, limits_,
                                             loop_.delivery(), [this] { closed_.Add(); });
      if (close_first_) connection->CloseNow();
      connection->Start();
      Accept();
    });
  }

  tcp::socket Connect() {
    ++opened_;
    tcp::socket socket(client_io_);
    socket.connect(acceptor_.local_endpoint());
    return socket;
  }

  static void Send(tcp::socket& socket, const std::string& text) {
    boost::system::error_code ignored;
    asio::write(socket, asio::buffer(text), ignored);
  }

  // Everything until the server closes.
  static std::string ReadAll(tcp::socket& socket) {
    std::string text;
    boost::system::error_code error;
    asio::read(socket, asio::dynamic_buffer(text), error);
    return text;
  }

  // One answer with a Content-Length.
  static std::string ReadOne(tcp::socket& socket, std::string& rest) {
    const size_t head = asio::read_until(socket, asio::dynamic_buffer(rest), "\r\n\r\n");
    const size_t at = rest.find("Content-Length: ");
    const size_t length = std::stoul(rest.substr(at + 16));
    if (rest.size() < head + length) {
      asio::read(socket, asio::dynamic_buffer(rest),
                 asio::transfer_exactly(head + length - rest.size()));
    }
    std::string answer = rest.substr(0, head + length);
    rest.erase(0, head + length);
    return answer;
  }

  std::string Ask(const std::string& text) {
    tcp::socket socket = Connect();
    Send(socket, text);
    return ReadAll(socket);
  }

  TestHandler handler_;
  HttpLimits limits_;
  std::atomic<bool> close_first_{false};  // what is accepted is closed before it starts
  Counter closed_;
  int opened_ = 0;
  HttpLoop loop_;
  asio::io_context client_io_;
  tcp::acceptor acceptor_{loop_.io(), tcp::endpoint(asio::ip::address_v4::loopback(), 0)};
  std::thread thread_;
};

constexpr char kKey[] = "Authorization: Bearer good\r\n";

TEST_F(HttpConnectionTest, AnswersAndCloses) {
  const std::string answer =
      Ask(absl::StrCat("GET /a?b=c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", kKey, "\r\n"));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(answer, testing::EndsWith("\r\n\r\nGET /a 0"));
}

// As when a drain ends between accepting and starting.
TEST_F(HttpConnectionTest, WhatIsClosedBeforeItStartsReadsNothing) {
  close_first_ = true;
  EXPECT_EQ(Ask(absl::StrCat("GET /a HTTP/1.1\r\n", kKey, "\r\n")), "");
  EXPECT_TRUE(closed_.WaitFor(1));
  EXPECT_THAT(handler_.statuses, testing::IsEmpty());
}

TEST_F(HttpConnectionTest, KeepAliveAndPipelining) {
  tcp::socket socket = Connect();
  std::string many;
  for (int i = 0; i < 200; ++i)
    absl::StrAppend(&many, "POST /", i, " HTTP/1.1\r\nContent-Length: 3\r\n", kKey, "\r\nabc");
  Send(socket, many);
  std::string rest;
  for (int i = 0; i < 200; ++i)
    EXPECT_THAT(ReadOne(socket, rest), testing::EndsWith(absl::StrCat("POST /", i, " 3")));
}

TEST_F(HttpConnectionTest, BytesMayComeOneByOne) {
  tcp::socket socket = Connect();
  const std::string text =
      absl::StrCat("POST /slow HTTP/1.1\r\nContent-Length: 5\r\n", kKey, "\r\n12345");
  for (const char c : text) Send(socket, std::string(1, c));
  std::string rest;
  EXPECT_THAT(ReadOne(socket, rest), testing::EndsWith("POST /slow 5"));
}

TEST_F(HttpConnectionTest, ChunkedBody) {
  EXPECT_THAT(
      Ask(absl::StrCat("POST /c HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n",
                       kKey, "\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")),
      testing::EndsWith("POST /c 5"));
}

TEST_F(HttpConnectionTest, KeyIsCheckedBeforeTheBody) {
  const std::string answer = Ask("POST /secret HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 401 Unauthorized"));
  EXPECT_THAT(answer, HasSubstr("WWW-Authenticate: Bearer"));
  EXPECT_THAT(answer, HasSubstr("authentication_error"));
  EXPECT_THAT(Ask("GET /open HTTP/1.1\r\nConnection: close\r\n\r\n"), StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpConnectionTest, TooLargeBodyIsRefused) {
  EXPECT_THAT(Ask(absl::StrCat("POST /b HTTP/1.1\r\nContent-Length: 4097\r\n", kKey, "\r\n")),
              StartsWith("HTTP/1.1 413"));
  const std::string chunk(2048, 'x');
  EXPECT_THAT(
      Ask(absl::StrCat("POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", kKey, "\r\n800\r\n",
                       chunk, "\r\n800\r\n", chunk, "\r\n800\r\n", chunk, "\r\n0\r\n\r\n")),
      StartsWith("HTTP/1.1 413"));
}

TEST_F(HttpConnectionTest, TooLargeHeaderIsRefused) {
  EXPECT_THAT(Ask(absl::StrCat("GET /h HTTP/1.1\r\nX-Long: ", std::string(4000, 'a'), "\r\n\r\n")),
              StartsWith("HTTP/1.1 431"));
}

TEST_F(HttpConnectionTest, GarbageIsRefused) {
  EXPECT_THAT(Ask("\x16\x03\x01\x02\x00\x01\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(Ask("GET / HTTP/1.1\r\nContent-Length: abc\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(Ask("POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
              StartsWith("HTTP/1.1 400"));
}

TEST_F(HttpConnectionTest, ContinueIsSentBeforeTheBody) {
  tcp::socket socket = Connect();
  Send(socket, absl::StrCat("POST /e HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n",
                            kKey, "\r\n"));
  std::string text;
  asio::read_until(socket, asio::dynamic_buffer(text), "\r\n\r\n");
  EXPECT_EQ(text, "HTTP/1.1 100 Continue\r\n\r\n");
  Send(socket, "ok");
  std::string rest;
  EXPECT_THAT(ReadOne(socket, rest), testing::EndsWith("POST /e 2"));
}

TEST_F(HttpConnectionTest, HeadHasNoBody) {
  EXPECT_THAT(Ask(absl::StrCat("HEAD /h HTTP/1.1\r\nConnection: close\r\n", kKey, "\r\n")),
              testing::EndsWith("\r\n\r\n"));
}

TEST_F(HttpConnectionTest, StreamIsChunked) {
  const std::string answer =
      Ask(absl::StrCat("GET /stream HTTP/1.1\r\nConnection: close\r\n", kKey, "\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Type: text/event-stream"));
  EXPECT_THAT(answer, HasSubstr("X-Test: 1"));
  EXPECT_THAT(answer, HasSubstr("data: one\n\n"));
  EXPECT_THAT(answer, HasSubstr("data: two\n\n"));
  EXPECT_THAT(answer, testing::EndsWith("\r\n0\r\n\r\n"));
}

TEST_F(HttpConnectionTest, StreamToHttp10EndsWithTheConnection) {
  const std::string answer = Ask(absl::StrCat("GET /stream HTTP/1.0\r\n", kKey, "\r\n"));
  EXPECT_EQ(answer.find("chunked"), std::string::npos);
  EXPECT_THAT(answer, testing::EndsWith("\r\n\r\ndata: one\n\ndata: two\n\n"));
}

TEST_F(HttpConnectionTest, LeavingIsNoticed) {
  {
    tcp::socket socket = Connect();
    Send(socket, absl::StrCat("GET /hang HTTP/1.1\r\n", kKey, "\r\n"));
    ASSERT_TRUE(handler_.handled.WaitFor(1));
  }
  EXPECT_TRUE(handler_.abandoned.WaitFor(1));
  const std::lock_guard<std::mutex> lock(handler_.mutex);
  EXPECT_TRUE(handler_.held.front()->abandoned());
  handler_.held.clear();
}

// What it sent ahead, up to a whole request, does not hide that it left.
TEST_F(HttpConnectionTest, AClientThatLeftUnreadBytesIsNoticed) {
  limits_.max_body_bytes = 1 << 20;
  {
    tcp::socket socket = Connect();
    Send(socket, absl::StrCat("GET /hang HTTP/1.1\r\n", kKey, "\r\n"));
    ASSERT_TRUE(handler_.handled.WaitFor(1));
    Send(socket, std::string(limits_.max_body_bytes, 'x'));
  }
  EXPECT_TRUE(handler_.abandoned.WaitFor(1));
}

TEST_F(HttpConnectionTest, TargetsAndEmptyLines) {
  EXPECT_THAT(
      Ask(absl::StrCat("GET http://x/a%20b?c HTTP/1.1\r\nConnection: close\r\n", kKey, "\r\n")),
      testing::EndsWith("\r\n\r\nGET /a b 0"));
  tcp::socket socket = Connect();
  for (const char* part : {"\r", "\n\r\n", "\r\nGET /d HTTP/1.1\r\n"}) Send(socket, part);
  Send(socket, absl::StrCat(kKey, "\r\n"));
  std::string rest;
  EXPECT_THAT(ReadOne(socket, rest), testing::EndsWith("GET /d 0"));
}

TEST_F(HttpConnectionTest, AnEndlessLineBetweenChunksIsRefused) {
  const std::string head =
      absl::StrCat("POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", kKey, "\r\n");
  EXPECT_THAT(Ask(absl::StrCat(head, "1;a=", std::string(100'000, 'a'))),
              StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(Ask(absl::StrCat(head, "1\r\nx\r\n0\r\nT: ", std::string(100'000, 'a'))),
              StartsWith("HTTP/1.1 400"));
}

TEST_F(HttpConnectionTest, WhatIsNotUnderstoodIsRefused) {
  const auto refused = [this](const char* field) {
    return Ask(absl::StrCat("POST /b HTTP/1.1\r\n", field, kKey, "\r\n")).substr(0, 12);
  };
  EXPECT_EQ(refused("Transfer-Encoding: gzip, chunked\r\n"), "HTTP/1.1 400");
  EXPECT_EQ(refused("Host: a\r\nHost: b\r\n"), "HTTP/1.1 400");
  EXPECT_EQ(refused("Content-Encoding: gzip\r\nContent-Length: 1\r\n"), "HTTP/1.1 415");
}

TEST_F(HttpConnectionTest, SlowHeaderTimesOut) {
  limits_.header_timeout = 50ms;
  EXPECT_THAT(Ask("GET /slow HTTP/1.1\r\nX: "), StartsWith("HTTP/1.1 408"));
}

TEST_F(HttpConnectionTest, SlowBodyTimesOut) {
  limits_.body_timeout = 50ms;
  EXPECT_THAT(Ask(absl::StrCat("POST /slow HTTP/1.1\r\nContent-Length: 10\r\n", kKey, "\r\n123")),
              StartsWith("HTTP/1.1 408"));
}

TEST_F(HttpConnectionTest, IdleConnectionIsClosed) {
  limits_.idle_timeout = 50ms;
  EXPECT_EQ(Ask(""), "");
}

TEST_F(HttpConnectionTest, ClientThatDoesNotReadIsCutOff) {
  limits_.write_timeout = 100ms;
  limits_.max_unsent_bytes = size_t{1} << 30;
  tcp::socket socket = Connect();
  Send(socket, absl::StrCat("GET /flood HTTP/1.1\r\n", kKey, "\r\n"));
  EXPECT_TRUE(handler_.abandoned.WaitFor(1));
}

TEST_F(HttpConnectionTest, UnsentBytesAreBounded) {
  limits_.max_unsent_bytes = 8 << 20;
  tcp::socket socket = Connect();
  Send(socket, absl::StrCat("GET /flood HTTP/1.1\r\n", kKey, "\r\n"));
  EXPECT_TRUE(handler_.abandoned.WaitFor(1));
}

}  // namespace
}  // namespace fairlead

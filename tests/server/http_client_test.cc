// SPDX-License-Identifier: Apache-2.0
// The client of `chat --url`, against a socket that answers what a test tells it to.
#include "server/commands/http_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/streambuf.hpp>
#include <boost/asio/write.hpp>
#include <thread>
#include <vector>

namespace fairlead {
namespace {

using boost::asio::ip::tcp;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(HttpClient, Urls) {
  const auto url = ParseUrl("http://example.org/api/");
  ASSERT_TRUE(url.ok());
  EXPECT_EQ(url->host, "example.org");
  EXPECT_EQ(url->port, "80");
  EXPECT_EQ(url->prefix, "/api");
  EXPECT_FALSE(url->tls);
  EXPECT_EQ(ParseUrl("https://h")->port, "443");
  EXPECT_TRUE(ParseUrl("https://h")->tls);
  EXPECT_EQ(ParseUrl("http://[::1]:8000")->host, "::1");
  EXPECT_EQ(ParseUrl("http://[::1]:8000")->port, "8000");
  EXPECT_EQ(ParseUrl("http://[::1]")->port, "80");
  for (const char* text : {"", "h:80", "ftp://h", "http://", "http://:80",
                           "http://h:", "http://h:x", "http://h:0", "http://h:65536"})
    EXPECT_FALSE(ParseUrl(text).ok()) << text;
}

// Reads one request's header, sends the pieces, closes.
class OneAnswer {
 public:
  explicit OneAnswer(std::vector<std::string> pieces)
      : acceptor_(io_, tcp::endpoint(boost::asio::ip::address_v4::loopback(), 0)),
        thread_([this, pieces = std::move(pieces)] {
          tcp::socket socket = acceptor_.accept();
          boost::asio::streambuf request;
          boost::asio::read_until(socket, request, "\r\n\r\n");
          request_.assign(boost::asio::buffers_begin(request.data()),
                          boost::asio::buffers_end(request.data()));
          for (const std::string& piece : pieces)
            boost::asio::write(socket, boost::asio::buffer(piece));
          // What is left of the request is read, so that closing does not reset the connection.
          boost::system::error_code error;
          socket.shutdown(tcp::socket::shutdown_send, error);
          char rest[512];
          while (!error) socket.read_some(boost::asio::buffer(rest), error);
        }) {}
  ~OneAnswer() { Join(); }

  Url url() const {
    return {.tls = false,
            .host = "127.0.0.1",
            .port = std::to_string(acceptor_.local_endpoint().port()),
            .prefix = ""};
  }
  const std::string& request() {
    Join();
    return request_;
  }

 private:
  void Join() {
    if (thread_.joinable()) thread_.join();
  }

  boost::asio::io_context io_;
  tcp::acceptor acceptor_;
  std::string request_;
  std::thread thread_;
};

TEST(HttpClient, ReadsEventsHoweverTheyAreCut) {
  OneAnswer server({"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n",
                    "Transfer-Encoding: chunked\r\n\r\n6\r\ndata: \r\n", "7\r\nfirst\n\n\r\n",
                    "1f\r\n: comment\ndata: second\r\ndata:[D\r\n", "5\r\nONE]\n\r\n",
                    "0\r\n\r\n"});
  std::vector<std::string> events;
  const absl::Status status = PostForEvents(server.url(), "/v1/x", "key", "{}",
                                            [&](const std::string& e) { events.push_back(e); });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(events, ElementsAre("first", "second", "[DONE]"));
  EXPECT_THAT(server.request(), HasSubstr("POST /v1/x HTTP/1.1"));
  EXPECT_THAT(server.request(), HasSubstr("Authorization: Bearer key"));
}

TEST(HttpClient, TellsWhatTheServerSays) {
  const std::string body = R"({"error":{"message":"no such model"}})";
  OneAnswer server({"HTTP/1.1 404 Not Found\r\nContent-Length: " + std::to_string(body.size()) +
                    "\r\n\r\n" + body});
  const absl::Status status =
      PostForEvents(server.url(), "/", "", "{}", [](const std::string&) { FAIL(); });
  EXPECT_THAT(std::string(status.message()), HasSubstr("404: no such model"));
}

TEST(HttpClient, AnAnswerThatIsCutOffIsAnError) {
  OneAnswer server({"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: x\n\n\r\n"});
  std::vector<std::string> events;
  const absl::Status status = PostForEvents(server.url(), "/", "", "{}",
                                            [&](const std::string& e) { events.push_back(e); });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(events, ElementsAre("x"));
}

}  // namespace
}  // namespace fairlead

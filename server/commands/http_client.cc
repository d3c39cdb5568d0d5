// SPDX-License-Identifier: Apache-2.0
#include "server/commands/http_client.h"

#include <openssl/ssl.h>

#include <algorithm>
#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "models/json.h"

namespace fairlead {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

absl::Status Unavailable(const Url& url, const error_code& error) {
  return absl::UnavailableError(absl::StrCat(url.host, ":", url.port, ": ", error.message()));
}

// Splits a stream of bytes into lines and hands on those of events.
class EventLines {
 public:
  explicit EventLines(const std::function<void(const std::string&)>& on_data) : on_data_(on_data) {}

  void Add(const char* data, size_t size) {
    pending_.append(data, size);
    size_t begin = 0;
    for (size_t end; (end = pending_.find('\n', begin)) != std::string::npos; begin = end + 1) {
      absl::string_view line(pending_.data() + begin, end - begin);
      absl::ConsumeSuffix(&line, "\r");
      if (!absl::ConsumePrefix(&line, "data:")) continue;
      absl::ConsumePrefix(&line, " ");
      on_data_(std::string(line));
    }
    pending_.erase(0, begin);
  }

 private:
  const std::function<void(const std::string&)>& on_data_;
  std::string pending_;
};

// What the server says went wrong.
absl::Status RemoteError(int status, const std::string& body) {
  std::string message = absl::StrCat("HTTP status ", status);
  if (const absl::StatusOr<Json> json = ParseJson(body); json.ok() && json->is_object()) {
    const Json& error = json->value("error", Json::object());
    if (error.is_object() && error.contains("message") && error["message"].is_string())
      absl::StrAppend(&message, ": ", error["message"].get_ref<const std::string&>());
  }
  return absl::FailedPreconditionError(message);
}

template <typename Stream>
absl::Status Exchange(const Url& url, Stream& stream,
                      const http::request<http::string_body>& request,
                      const std::function<void(const std::string&)>& on_data) {
  error_code error;
  http::write(stream, request, error);
  if (error) return Unavailable(url, error);
  boost::beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(std::numeric_limits<uint64_t>::max());
  http::read_header(stream, buffer, parser, error);
  if (error) return Unavailable(url, error);
  const int status = static_cast<int>(parser.get().result_int());
  std::string error_body;
  EventLines lines(on_data);
  std::array<char, 8192> chunk;
  while (!parser.is_done()) {
    parser.get().body().data = chunk.data();
    parser.get().body().size = chunk.size();
    http::read_some(stream, buffer, parser, error);
    if (error == http::error::need_buffer) error = {};
    if (error) return Unavailable(url, error);
    const size_t received = chunk.size() - parser.get().body().size;
    if (status == 200) {
      lines.Add(chunk.data(), received);
    } else if (error_body.size() < (1u << 20)) {
      error_body.append(chunk.data(), received);
    }
  }
  return status == 200 ? absl::OkStatus() : RemoteError(status, error_body);
}

http::request<http::string_body> MakeRequest(const Url& url, const std::string& path,
                                             const std::string& key, const std::string& body) {
  http::request<http::string_body> request(http::verb::post, url.prefix + path, 11);
  request.set(http::field::host, absl::StrContains(url.host, ':')
                                     ? absl::StrCat("[", url.host, "]:", url.port)
                                     : absl::StrCat(url.host, ":", url.port));
  request.set(http::field::content_type, "application/json");
  request.set(http::field::accept, "text/event-stream");
  request.set(http::field::connection, "close");
  if (!key.empty()) request.set(http::field::authorization, "Bearer " + key);
  request.body() = body;
  request.prepare_payload();
  return request;
}

absl::Status ExchangeTls(const Url& url, tcp::socket socket,
                         const http::request<http::string_body>& request,
                         const std::function<void(const std::string&)>& on_data) {
  error_code error;
  asio::ssl::context context(asio::ssl::context::tls_client);
  SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
  context.set_default_verify_paths(error);
  asio::ssl::stream<tcp::socket> stream(std::move(socket), context);
  stream.set_verify_mode(asio::ssl::verify_peer, error);
  stream.set_verify_callback(asio::ssl::host_name_verification(url.host), error);
  SSL_set_tlsext_host_name(stream.native_handle(), url.host.c_str());
  stream.handshake(asio::ssl::stream_base::client, error);
  if (error) return Unavailable(url, error);
  return Exchange(url, stream, request, on_data);
}

}  // namespace

absl::StatusOr<Url> ParseUrl(const std::string& text) {
  Url url;
  absl::string_view rest = text;
  if (absl::ConsumePrefix(&rest, "https://")) {
    url.tls = true;
  } else if (!absl::ConsumePrefix(&rest, "http://")) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not a URL such as http://127.0.0.1:8000"));
  }
  const size_t slash = std::min(rest.find('/'), rest.size());
  absl::string_view authority = rest.substr(0, slash);
  absl::string_view prefix = rest.substr(slash);
  while (absl::ConsumeSuffix(&prefix, "/")) {
  }
  url.prefix = std::string(prefix);
  const size_t colon = authority.rfind(':');
  const size_t bracket = authority.rfind(']');
  const bool has_port =
      colon != absl::string_view::npos && (bracket == absl::string_view::npos || colon > bracket);
  url.port = has_port ? std::string(authority.substr(colon + 1)) : (url.tls ? "443" : "80");
  if (has_port) authority = authority.substr(0, colon);
  if (absl::ConsumePrefix(&authority, "[")) absl::ConsumeSuffix(&authority, "]");
  url.host = std::string(authority);
  int port = 0;
  if (url.host.empty() || url.port.find_first_not_of("0123456789") != std::string::npos ||
      !absl::SimpleAtoi(url.port, &port) || port < 1 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not a URL such as http://127.0.0.1:8000"));
  }
  return url;
}

absl::Status PostForEvents(const Url& url, const std::string& path, const std::string& key,
                           const std::string& body,
                           const std::function<void(const std::string&)>& on_data) {
  error_code error;
  asio::io_context io;
  const auto endpoints = tcp::resolver(io).resolve(url.host, url.port, error);
  if (error) return Unavailable(url, error);
  tcp::socket socket(io);
  asio::connect(socket, endpoints, error);
  if (error) return Unavailable(url, error);
  const auto request = MakeRequest(url, path, key, body);
  if (url.tls) return ExchangeTls(url, std::move(socket), request, on_data);
  return Exchange(url, socket, request, on_data);
}

}  // namespace fairlead

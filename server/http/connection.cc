// SPDX-License-Identifier: Apache-2.0
#include "server/http/connection.h"

#include <algorithm>
#include <array>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "models/json.h"
#include "server/errors.h"
#include "server/http/target.h"

namespace fairlead {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using TlsStream = asio::ssl::stream<tcp::socket>;

constexpr size_t kReadChunk = 16 << 10;
// At most this much of an answer may wait for its client before nothing more is read from it.
constexpr size_t kMaxUnread = 64 << 10;
// What a request to a public path, which needs no key, may carry.
constexpr size_t kMaxPublicBody = 4 << 10;

std::string View(beast::string_view text) { return std::string(text.data(), text.size()); }

const char* ReasonPhrase(int status) {
  switch (status) {
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    default:
      break;
  }
  const beast::string_view reason = http::obsolete_reason(static_cast<http::status>(status));
  return reason.empty() ? "Unknown" : reason.data();
}

template <typename Stream>
class Connection;

// What a handler holds. It outlives neither guarantees nor prevents the connection's end.
template <typename Stream>
class Exchange : public HttpExchange {
 public:
  Exchange(std::shared_ptr<Connection<Stream>> connection, uint64_t serial)
      : connection_(std::move(connection)), serial_(serial) {}

  Delivery& delivery() override { return connection_->delivery(); }
  void Respond(HttpResponse response) override {
    Post([response = std::move(response)](Connection<Stream>& c) mutable {
      c.DoRespond(std::move(response));
    });
  }
  void StartStream(HttpHeaders headers) override {
    Post([headers = std::move(headers)](Connection<Stream>& c) { c.DoStartStream(headers); });
  }
  void Write(std::string data) override {
    Post([data = std::move(data)](Connection<Stream>& c) { c.DoWriteChunk(data); });
  }
  void EndStream() override {
    Post([](Connection<Stream>& c) { c.DoEndStream(); });
  }
  void OnAbandoned(std::function<void()> callback) override;
  const std::atomic<bool>& abandoned() const override { return connection_->closed(); }

 private:
  // Runs on the connection's executor, if this exchange is still the connection's current one.
  template <typename F>
  void Post(F f) {
    asio::dispatch(connection_->executor(),
                   [connection = connection_, serial = serial_, f = std::move(f)]() mutable {
                     if (connection->IsCurrent(serial)) f(*connection);
                   });
  }

  const std::shared_ptr<Connection<Stream>> connection_;
  const uint64_t serial_;
};

template <typename Stream>
class Connection : public ConnectionHandle,
                   public std::enable_shared_from_this<Connection<Stream>> {
 public:
  template <typename... Args>
  Connection(HttpHandler& handler, const HttpLimits& limits, Delivery& delivery,
             std::function<void()> on_closed, Args&&... stream_args)
      : closer_{std::move(on_closed)},
        stream_(std::forward<Args>(stream_args)...),
        handler_(handler),
        limits_(limits),
        delivery_(delivery),
        read_timer_(stream_.get_executor()),
        write_timer_(stream_.get_executor()) {}

  ~Connection() override = default;

  auto executor() { return stream_.get_executor(); }
  Delivery& delivery() { return delivery_; }
  const std::atomic<bool>& closed() const { return closed_; }
  bool IsCurrent(uint64_t serial) const { return !closed_ && busy_ && serial == serial_; }

  void Start() override {
    asio::dispatch(executor(), [self = this->shared_from_this()] {
      error_code ignored;
      self->socket().set_option(tcp::no_delay(true), ignored);
      self->socket().non_blocking(true, ignored);  // for WriteNow
      self->Handshake();
    });
  }

  void CloseWhenIdle() override {
    asio::dispatch(executor(), [self = this->shared_from_this()] {
      self->last_request_ = true;
      if (self->busy_) return;
      if (!self->sending()) return self->Close();
      self->close_after_write_ = true;
    });
  }
  void CloseNow() override {
    asio::dispatch(executor(), [self = this->shared_from_this()] { self->Close(); });
  }

  void DoRespond(HttpResponse response);
  void DoStartStream(const HttpHeaders& headers);
  void DoWriteChunk(const std::string& data);
  void DoEndStream();
  void SetAbandoned(uint64_t serial, std::function<void()> callback);

 private:
  using Parser = http::request_parser<http::string_body>;

  tcp::socket& socket() {
    if constexpr (std::is_same_v<Stream, tcp::socket>) {
      return stream_;
    } else {
      return stream_.next_layer();
    }
  }

  void Handshake();
  void Read();
  void OnRead(error_code error, size_t bytes);
  void Parse();
  bool ParseHeader();
  void StartRequest();
  size_t max_read_ahead() const { return limits_.max_header_bytes + limits_.max_body_bytes; }
  bool SkipEmptyLines();
  void ShrinkBuffer() {
    if (buffer_.size() == 0 && buffer_.capacity() > kMaxUnread) buffer_.shrink_to_fit();
  }
  void Refuse(int status, std::string_view message, HttpHeaders headers = {});
  void Send(std::string data);
  void Flush();
  bool sending() const { return writing_ || flush_posted_; }  // OnFlushed is still to come
  bool WriteOut();
  bool WriteNow();
  void WriteMore();
  void OnFlushed();
  void OnWritten(error_code error, size_t bytes);
  void FinishRequest();
  void EndConnection();
  void Count(int status);
  void ArmReadTimer(std::chrono::milliseconds timeout);
  void Close();
  std::string Head(int status, const HttpHeaders& headers) const;

  // First, so that its word goes out when every other member is gone.
  struct Closer {
    std::function<void()> on_closed;
    ~Closer() {
      if (on_closed) on_closed();
    }
  };
  Closer closer_;
  Stream stream_;
  HttpHandler& handler_;
  const HttpLimits& limits_;
  Delivery& delivery_;

  asio::steady_timer read_timer_, write_timer_;

  std::array<char, kReadChunk> received_;
  beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  bool reading_ = false;
  bool header_done_ = false;
  Principal principal_;
  std::string path_;  // of the current request

  uint64_t serial_ = 0;   // of the current request
  bool busy_ = false;     // a request is being answered
  bool counted_ = false;  // and its status is known to the handler
  bool chunked_ = false;  // its answer is a stream in chunks (HTTP/1.1)
  bool keep_alive_ = false;
  bool head_only_ = false;
  bool last_request_ = false;  // close after the answer
  bool close_after_write_ = false;
  std::atomic<bool> closed_{false};  // set on the executor
  std::function<void()> on_abandoned_;

  std::string unsent_;                             // waits for the write in progress
  std::vector<std::shared_ptr<const void>> room_;  // HttpResponse::room of what is not sent yet
  std::string sending_;
  size_t num_sent_ = 0;  // bytes of sending_ that are out
  bool writing_ = false;
  bool flush_posted_ = false;
};

template <typename Stream>
void Exchange<Stream>::OnAbandoned(std::function<void()> callback) {
  asio::dispatch(connection_->executor(),
                 [connection = connection_, serial = serial_, callback = std::move(callback)] {
                   connection->SetAbandoned(serial, callback);
                 });
}

template <typename Stream>
void Connection<Stream>::SetAbandoned(uint64_t serial, std::function<void()> callback) {
  if (serial != serial_ || (!closed_ && !busy_)) return;  // answered already
  if (closed_) return callback();
  on_abandoned_ = std::move(callback);
}

template <typename Stream>
void Connection<Stream>::Handshake() {
  if constexpr (std::is_same_v<Stream, tcp::socket>) {
    ArmReadTimer(limits_.idle_timeout);
    Read();
  } else {
    ArmReadTimer(limits_.handshake_timeout);
    stream_.async_handshake(asio::ssl::stream_base::server,
                            [self = this->shared_from_this()](error_code error) {
                              if (error) return self->Close();
                              self->ArmReadTimer(self->limits_.idle_timeout);
                              self->Read();
                            });
  }
}

template <typename Stream>
void Connection<Stream>::ArmReadTimer(std::chrono::milliseconds timeout) {
  read_timer_.expires_after(timeout);
  read_timer_.async_wait([weak = this->weak_from_this()](error_code error) {
    const auto self = weak.lock();
    // Cancelled; or re-armed after this call was queued.
    if (error || !self || self->busy_ ||
        self->read_timer_.expiry() > std::chrono::steady_clock::now())
      return;
    // In the middle of a request the client is told; between requests it is not.
    if (self->parser_ && self->parser_->got_some())
      return self->Refuse(408, "the request did not arrive in time");
    self->Close();
  });
}

// One read is always under way, also while a request is answered: that is how a client's leaving is
// noticed. So of the next requests as much is taken in then as the largest one may have; else no
// more than a header may have waits to be understood.
template <typename Stream>
void Connection<Stream>::Read() {
  const size_t enough =
      busy_ ? max_read_ahead() : std::max(kMaxUnread, 2 * limits_.max_header_bytes);
  if (reading_ || closed_ || buffer_.size() >= enough || unsent_.size() > kMaxUnread) return;
  reading_ = true;
  stream_.async_read_some(asio::buffer(received_),
                          [self = this->shared_from_this()](error_code error, size_t bytes) {
                            self->reading_ = false;
                            self->OnRead(error, bytes);
                          });
}

template <typename Stream>
void Connection<Stream>::OnRead(error_code error, size_t bytes) {
  if (closed_) return;
  if (error) {
    // A client may end its side once it has asked; an answer that is complete still goes out.
    if (sending() && !busy_) {
      close_after_write_ = true;
      return;
    }
    return Close();
  }
  // Not read into the buffer itself: parsing the last request may move what is in it while a read
  // is under way.
  buffer_.commit(asio::buffer_copy(buffer_.prepare(bytes), asio::buffer(received_.data(), bytes)));
  if (!busy_) Parse();
  Read();
}

template <typename Stream>
void Connection<Stream>::Parse() {
  if (close_after_write_) return buffer_.consume(buffer_.size());
  if (unsent_.size() > kMaxUnread) return;  // until the client has read its answers
  if (!parser_) {
    if (!SkipEmptyLines()) return;
    parser_.emplace();
    path_.clear();
    parser_->eager(true);
    parser_->header_limit(static_cast<uint32_t>(limits_.max_header_bytes));
    parser_->body_limit(
        std::numeric_limits<uint64_t>::max());  // the real one once the key has been checked
    header_done_ = false;
    ArmReadTimer(limits_.header_timeout);
  }
  while (buffer_.size() > 0 && !parser_->is_done()) {
    error_code error;
    // First the header alone, so that the key is checked and sizes are known before a body is taken
    // in.
    if (!header_done_) parser_->eager(false);
    const size_t used = parser_->put(buffer_.data(), error);
    buffer_.consume(used);
    if (error == http::error::need_more) {
      // Of a body only the lines between its chunks can wait.
      if (header_done_ && buffer_.size() > limits_.max_header_bytes) {
        return Refuse(400, absl::StrCat("a line of the chunked body is longer than ",
                                        limits_.max_header_bytes, " bytes"));
      }
      return;
    }
    if (error == http::error::body_limit) {
      return Refuse(413,
                    absl::StrCat("the body is larger than ", limits_.max_body_bytes, " bytes"));
    }
    if (error == http::error::header_limit) {
      return Refuse(431,
                    absl::StrCat("the header is larger than ", limits_.max_header_bytes, " bytes"));
    }
    if (error) return Refuse(400, absl::StrCat("malformed HTTP request: ", error.message()));
    if (parser_->is_header_done() && !header_done_) {
      if (!ParseHeader()) return;
      parser_->eager(true);
    } else if (used == 0) {
      break;
    }
  }
  if (parser_->is_done()) StartRequest();
}

// Those before a request line are to be ignored (RFC 9112, section 2.2). False where nothing else
// has come.
template <typename Stream>
bool Connection<Stream>::SkipEmptyLines() {
  const auto text = [this] {
    return std::string_view(static_cast<const char*>(buffer_.data().data()), buffer_.size());
  };
  while (text().substr(0, 2) == "\r\n") buffer_.consume(2);
  return !text().empty() && text() != "\r";
}

template <typename Stream>
bool Connection<Stream>::ParseHeader() {
  header_done_ = true;
  const auto& message = parser_->get();
  const std::string method = View(message.method_string());
  path_ = PathOfTarget(View(message.target()));
  std::optional<Principal> principal =
      handler_.Authenticate(method, path_, View(message[http::field::authorization]));
  if (!principal) {
    Refuse(401, "a valid API key is required: Authorization: Bearer <key>",
           {{"WWW-Authenticate", "Bearer"}});
    return false;
  }
  principal_ = *std::move(principal);
  // Two readings of where a body ends let one request hide in another.
  const std::string transfer = View(message[http::field::transfer_encoding]);
  if (const size_t transfers = message.count(http::field::transfer_encoding);
      transfers > 0 &&
      (transfers > 1 || !absl::EqualsIgnoreCase(transfer, "chunked") || message.version() < 11)) {
    Refuse(400, "Transfer-Encoding: only chunked, in HTTP/1.1, is understood");
    return false;
  }
  if (message.count(http::field::host) > 1) {
    Refuse(400, "a request has one Host");
    return false;
  }
  const std::string coding = View(message[http::field::content_encoding]);
  if (message.count(http::field::content_encoding) > 1 ||
      (!coding.empty() && !absl::EqualsIgnoreCase(coding, "identity"))) {
    Refuse(415,
           absl::StrCat("Content-Encoding: ", coding.substr(0, 64),
                        " is not understood; allowed: identity"),
           {{"Accept-Encoding", "identity"}});
    return false;
  }
  // Whatever the method: nothing at a public path wants a body.
  const size_t max_body = handler_.IsPublic("GET", path_) ? kMaxPublicBody : limits_.max_body_bytes;
  const auto length = parser_->content_length();
  if (length && *length > max_body) {
    Refuse(413, absl::StrCat("the body has ", *length, " bytes; at most ", max_body));
    return false;
  }
  parser_->body_limit(max_body);
  ArmReadTimer(limits_.body_timeout);
  const std::string expect = View(message[http::field::expect]);
  if (absl::EqualsIgnoreCase(expect, "100-continue")) {
    Send("HTTP/1.1 100 Continue\r\n\r\n");
  } else if (!expect.empty()) {
    Refuse(417, "the only expectation met here is 100-continue");
    return false;
  }
  return true;
}

template <typename Stream>
void Connection<Stream>::StartRequest() {
  read_timer_.cancel();
  auto message = parser_->release();
  parser_.reset();
  ShrinkBuffer();
  HttpRequest request;
  request.method = View(message.method_string());
  request.path = path_;
  if (const auto id = View(message["X-Request-Id"]); IsSaneRequestId(id)) request.request_id = id;
  request.body = std::move(message.body());
  request.principal = principal_;
  busy_ = true;
  counted_ = false;
  chunked_ = message.version() >= 11;
  keep_alive_ = message.keep_alive();
  head_only_ = message.method() == http::verb::head;
  if (head_only_) request.method = "GET";
  ++serial_;
  handler_.Handle(std::move(request),
                  std::make_shared<Exchange<Stream>>(this->shared_from_this(), serial_));
}

template <typename Stream>
std::string Connection<Stream>::Head(int status, const HttpHeaders& headers) const {
  std::string head =
      absl::StrCat("HTTP/1.1 ", status, " ", ReasonPhrase(status), "\r\nServer: fairlead\r\n");
  for (const auto& [name, value] : headers) {
    if (value.find_first_of("\r\n") != std::string::npos)
      continue;  // never a header of a client's making
    absl::StrAppend(&head, name, ": ", value, "\r\n");
  }
  absl::StrAppend(&head, "Connection: ",
                  keep_alive_ && !last_request_ && !handler_.draining() ? "keep-alive" : "close",
                  "\r\n");
  return head;
}

// Before a request is whole: the answer, then the end of the connection, since what follows cannot
// be understood.
template <typename Stream>
void Connection<Stream>::Refuse(int status, std::string_view message, HttpHeaders headers) {
  keep_alive_ = false;
  busy_ = true;
  counted_ = false;
  ++serial_;
  DoRespond({.status = status,
             .body = DumpJson(ErrorBody(status, message)),
             .headers = std::move(headers)});
}

template <typename Stream>
void Connection<Stream>::DoRespond(HttpResponse response) {
  HttpHeaders headers = std::move(response.headers);
  headers.emplace_back("Content-Type", response.content_type);
  headers.emplace_back("Content-Length", absl::StrCat(response.body.size()));
  std::string data = Head(response.status, headers) + "\r\n";
  if (!head_only_) data += response.body;
  if (response.room != nullptr) room_.push_back(std::move(response.room));
  Count(response.status);
  Send(std::move(data));
  FinishRequest();
}

template <typename Stream>
void Connection<Stream>::DoStartStream(const HttpHeaders& headers) {
  HttpHeaders all = headers;
  all.emplace_back("Content-Type", "text/event-stream; charset=utf-8");
  all.emplace_back("Cache-Control", "no-cache");
  all.emplace_back("X-Accel-Buffering", "no");
  if (chunked_) {
    all.emplace_back("Transfer-Encoding", "chunked");
  } else {
    keep_alive_ = false;  // the end of the connection is the end of the stream
  }
  Count(200);
  Send(Head(200, all) + "\r\n");
}

template <typename Stream>
void Connection<Stream>::DoWriteChunk(const std::string& data) {
  if (data.empty()) return;
  if (unsent_.size() + data.size() > limits_.max_unsent_bytes) return Close();  // nobody reads
  Send(chunked_ ? absl::StrCat(absl::Hex(data.size()), "\r\n", data, "\r\n") : data);
}

template <typename Stream>
void Connection<Stream>::DoEndStream() {
  if (chunked_) Send("0\r\n\r\n");
  FinishRequest();
}

template <typename Stream>
void Connection<Stream>::FinishRequest() {
  busy_ = false;
  on_abandoned_ = nullptr;
  head_only_ = false;
  parser_.reset();
  ShrinkBuffer();
  if (!keep_alive_ || last_request_ || handler_.draining()) {
    close_after_write_ = true;
    if (!sending()) EndConnection();
    return;
  }
  ArmReadTimer(limits_.idle_timeout);
  // The next request may have come already. Posted, so that a pipeline of requests is not a
  // recursion.
  asio::post(executor(), [self = this->shared_from_this()] {
    if (self->closed_) return;
    if (!self->busy_) self->Parse();
    self->Read();
  });
}

// Everything is sent. What the client may still be sending (a refused body) is read and dropped for
// a moment: closing with unread bytes would reset the connection, and the client might never see
// the answer.
template <typename Stream>
void Connection<Stream>::EndConnection() {
  if (closed_) return;
  error_code ignored;
  socket().shutdown(tcp::socket::shutdown_send, ignored);
  buffer_.consume(buffer_.size());
  constexpr std::chrono::seconds kLinger{2};
  ArmReadTimer(kLinger);
  Read();
}

template <typename Stream>
void Connection<Stream>::Count(int status) {
  if (!std::exchange(counted_, true)) handler_.Answered(path_, status);
}

template <typename Stream>
void Connection<Stream>::Send(std::string data) {
  if (closed_) return;
  if (unsent_.empty()) {
    unsent_ = std::move(data);
  } else {
    unsent_ += data;
  }
  // At the end of this turn, unless it is much: what one piece of news writes leaves together.
  if (!writing_ && unsent_.size() > kMaxUnread) WriteOut();
  if (writing_ || std::exchange(flush_posted_, true)) return;
  asio::post(executor(), [self = this->shared_from_this()] {
    self->flush_posted_ = false;
    self->Flush();
  });
}

template <typename Stream>
void Connection<Stream>::Flush() {
  if (writing_ || closed_) return;
  if (unsent_.empty() || WriteOut()) OnFlushed();
}

// Whether all of it is out.
template <typename Stream>
bool Connection<Stream>::WriteOut() {
  sending_ = std::exchange(unsent_, {});
  num_sent_ = 0;
  if (WriteNow()) return true;
  writing_ = true;
  WriteMore();
  return false;
}

// Everything is sent, for now.
template <typename Stream>
void Connection<Stream>::OnFlushed() {
  room_.clear();
  if (close_after_write_) return EndConnection();
  if (!busy_) Parse();  // it may have waited for this
  Read();
}

// True when the socket took everything: the usual case, for which a timer and a turn of the event
// loop cost more than the write itself. What fails is left to WriteMore. TLS cannot write in part
// without losing what it has encrypted.
template <typename Stream>
bool Connection<Stream>::WriteNow() {
  if constexpr (std::is_same_v<Stream, tcp::socket>) {
    error_code error;
    num_sent_ = stream_.write_some(asio::buffer(sending_), error);
    return !error && num_sent_ == sending_.size();
  }
  return false;
}

// Writes piece by piece, so that the timer measures progress and not the size of what is sent.
template <typename Stream>
void Connection<Stream>::WriteMore() {
  write_timer_.expires_after(limits_.write_timeout);
  write_timer_.async_wait([weak = this->weak_from_this()](error_code timer_error) {
    const auto self = weak.lock();
    if (timer_error || !self || self->write_timer_.expiry() > std::chrono::steady_clock::now())
      return;
    if (self->writing_) self->Close();
  });
  stream_.async_write_some(asio::buffer(sending_) + num_sent_,
                           [self = this->shared_from_this()](error_code write_error, size_t n) {
                             self->OnWritten(write_error, n);
                           });
}

template <typename Stream>
void Connection<Stream>::OnWritten(error_code error, size_t bytes) {
  if (error || closed_) {
    writing_ = false;
    return Close();
  }
  num_sent_ += bytes;
  if (num_sent_ < sending_.size()) return WriteMore();
  writing_ = false;
  write_timer_.cancel();
  Flush();
}

template <typename Stream>
void Connection<Stream>::Close() {
  if (closed_) return;
  closed_ = true;
  read_timer_.cancel();
  write_timer_.cancel();
  if (busy_) Count(499);
  // Not from here: who has called an exchange may hold what the callback wants.
  if (on_abandoned_) asio::post(executor(), std::exchange(on_abandoned_, nullptr));
  error_code ignored;
  // The answer is out; a client that still sends gets a reset rather than our patience.
  socket().shutdown(tcp::socket::shutdown_both, ignored);
  socket().close(ignored);
}

}  // namespace

bool IsSaneRequestId(std::string_view id) {
  if (id.empty() || id.size() > 128) return false;
  return std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c <= '~'; });
}

std::shared_ptr<ConnectionHandle> MakeConnection(tcp::socket socket, asio::ssl::context* tls,
                                                 HttpHandler& handler, const HttpLimits& limits,
                                                 Delivery& delivery,
                                                 std::function<void()> on_closed) {
  if (tls == nullptr) {
    return std::make_shared<Connection<tcp::socket>>(handler, limits, delivery,
                                                     std::move(on_closed), std::move(socket));
  }
  return std::make_shared<Connection<TlsStream>>(handler, limits, delivery, std::move(on_closed),
                                                 std::move(socket), *tls);
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "server/http_server.h"

#include <openssl/ssl.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <condition_variable>
#include <list>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/thread_name.h"
#include "server/errors.h"
#include "server/http/loop.h"
#include "server/http/routes.h"

namespace fairlead {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

absl::StatusOr<std::unique_ptr<asio::ssl::context>> MakeTlsContext(const TlsIdentity& identity) {
  auto context = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_server);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_options(context->native_handle(),
                      SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  error_code error;
  context->use_certificate_chain(asio::buffer(identity.certificate_chain), error);
  if (!error)
    context->use_private_key(asio::buffer(identity.private_key), asio::ssl::context::pem, error);
  if (error) return absl::InvalidArgumentError(absl::StrCat("TLS: ", error.message()));
  return context;
}

class HttpServerImpl : public HttpServer, public HttpHandler {
 public:
  HttpServerImpl(const HttpServerOptions& options, const KeyStore& keys, const Services& services,
                 Metrics& metrics)
      : options_(options),
        keys_(keys),
        metrics_(metrics),
        routes_(MakeRoutes({.services = services,
                            .metrics = metrics,
                            .config = options.config,
                            .version = options.version,
                            .fingerprint = options.fingerprint,
                            .ready = ready_})),
        workers_(std::max(options.threads, 1)) {}

  ~HttpServerImpl() override {
    StopAccepting();
    Drain(absl::InfinitePast());
    {
      // Work that is queued or under way still names this server; it is finite.
      std::unique_lock<std::mutex> lock(mutex_);
      closed_.wait(lock, [this] { return num_connections_ == 0; });
    }
    accept_io_.stop();
    for (Worker& worker : workers_) worker.loop.Stop();
    for (std::thread& thread : threads_) thread.join();
  }

  absl::Status Listen() {
    if (options_.tls != nullptr) {
      auto context = MakeTlsContext(*options_.tls);
      if (!context.ok()) return context.status();
      tls_ = *std::move(context);
    }
    error_code error;
    tcp::resolver resolver(acceptor_.get_executor());
    const auto results =
        resolver.resolve(options_.host, std::to_string(options_.port),
                         tcp::resolver::passive | tcp::resolver::numeric_service, error);
    if (error || results.empty()) {
      return absl::UnavailableError(
          absl::StrCat("http address ", options_.host, ": ", error.message()));
    }
    const tcp::endpoint endpoint = results.begin()->endpoint();
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error) {
      return absl::UnavailableError(absl::StrCat("cannot listen on http address ", options_.host,
                                                 ":", options_.port, ": ", error.message()));
    }
    port_ = acceptor_.local_endpoint().port();
    asio::post(acceptor_.get_executor(), [this] { Accept(); });
    threads_.emplace_back([this] {
      SetThreadName("http accept");
      accept_io_.run();
    });
    for (Worker& worker : workers_) {
      threads_.emplace_back([&worker] {
        SetThreadName("http");
        worker.loop.Run();
      });
    }
    return absl::OkStatus();
  }

  int port() const override { return port_; }
  void SetReady(bool ready) override { ready_ = ready; }

  void StopAccepting() override {
    if (draining_.exchange(true)) return;
    asio::post(acceptor_.get_executor(), [this] {
      error_code ignored;
      acceptor_.close(ignored);
    });
    ForEachConnection([](ConnectionHandle& connection) { connection.CloseWhenIdle(); });
  }

  void Drain(absl::Time deadline) override {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      if (closed_.wait_until(lock, absl::ToChronoTime(deadline),
                             [this] { return num_connections_ == 0; }))
        return;
    }
    ForEachConnection([](ConnectionHandle& connection) { connection.CloseNow(); });
    std::unique_lock<std::mutex> lock(mutex_);
    // Handlers may still hold a closed connection for the moment that a cancellation takes.
    closed_.wait_for(lock, std::chrono::seconds(5), [this] { return num_connections_ == 0; });
  }

  bool IsPublic(std::string_view method, std::string_view path) const override {
    return routes_.IsPublic(method, path);
  }

  std::optional<Principal> Authenticate(std::string_view method, std::string_view path,
                                        std::string_view authorization) override {
    if (IsPublic(method, path)) return Principal{"anonymous", 0};
    std::optional<Principal> principal = keys_.Authenticate(authorization);
    if (!principal) metrics_.AuthDenied("http");
    return principal;
  }

  void Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) override {
    if (draining_ && !IsPublic(request.method, request.path)) {
      exchange->Respond(ErrorResponse(
          WithDetail(absl::UnavailableError("the server is shutting down"), "", "draining")));
      return;
    }
    routes_.Dispatch(std::move(request), std::move(exchange));
  }

  void Answered(std::string_view path, int status) override {
    metrics_.Responded("http", routes_.MetricName(path), std::to_string(status));
  }

  bool draining() const override { return draining_; }

 private:
  struct Worker {
    int connections = 0;  // with mutex_; first, as the loop's end may end connections
    HttpLoop loop;
  };

  Worker& LeastBusy() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return *std::min_element(
        workers_.begin(), workers_.end(),
        [](const Worker& a, const Worker& b) { return a.connections < b.connections; });
  }

  void Accept() {
    Worker& worker = LeastBusy();
    acceptor_.async_accept(worker.loop.io(), [this, &worker](error_code error, tcp::socket socket) {
      if (!acceptor_.is_open()) return;
      if (!error) {
        Adopt(std::move(socket), worker);
        return Accept();
      }
      // Out of file descriptors, most likely: accepting again at once would spin.
      accept_pause_.expires_after(std::chrono::milliseconds(50));
      accept_pause_.async_wait([this](error_code wait_error) {
        if (!wait_error && acceptor_.is_open()) Accept();
      });
    });
  }

  void Adopt(tcp::socket socket, Worker& worker) {
    std::list<std::weak_ptr<ConnectionHandle>>::iterator place;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (num_connections_ >= options_.limits.max_connections) {
        // A short answer that fits the socket's buffer; a client that does not read it loses
        // nothing.
        static constexpr std::string_view kBusy =
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: "
            "0\r\nConnection: close\r\n\r\n";
        error_code ignored;
        socket.non_blocking(true, ignored);
        if (options_.tls == nullptr) socket.write_some(asio::buffer(kBusy), ignored);
        metrics_.Responded("http", "connection", "503");
        return;
      }
      ++num_connections_;
      ++worker.connections;
      place = connections_.emplace(connections_.end());
    }
    metrics_.ConnectionOpened("http");
    const auto connection =
        MakeConnection(std::move(socket), tls_.get(), *this, options_.limits,
                       worker.loop.delivery(), [this, &worker, place] { Forget(worker, place); });
    {
      // Before it reads: a drain must reach whoever has been answered.
      const std::lock_guard<std::mutex> lock(mutex_);
      *place = connection;
    }
    connection->Start();
    if (draining_)
      connection->CloseWhenIdle();  // StopAccepting may have come before it was in the list
  }

  void Forget(Worker& worker, std::list<std::weak_ptr<ConnectionHandle>>::iterator place) {
    metrics_.ConnectionClosed("http");
    const std::lock_guard<std::mutex> lock(mutex_);
    connections_.erase(place);
    --num_connections_;
    --worker.connections;
    closed_.notify_all();
  }

  template <typename F>
  void ForEachConnection(F f) {
    std::vector<std::shared_ptr<ConnectionHandle>> open;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (const auto& connection : connections_) {
        if (auto locked = connection.lock()) open.push_back(std::move(locked));
      }
    }
    for (const auto& connection : open) f(*connection);
  }

  const HttpServerOptions options_;
  const KeyStore& keys_;
  Metrics& metrics_;
  std::atomic<bool> ready_{false};
  std::atomic<bool> draining_{false};
  const RouteTable routes_;
  // Before the loops: destroying them ends the connections that are left, and they report here.
  std::mutex mutex_;
  std::condition_variable closed_;
  std::list<std::weak_ptr<ConnectionHandle>> connections_;
  int num_connections_ = 0;
  std::unique_ptr<asio::ssl::context> tls_;
  std::vector<Worker> workers_;
  // Accepting has a thread of its own: it waits for no answer.
  asio::io_context accept_io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> accept_work_{
      asio::make_work_guard(accept_io_)};
  tcp::acceptor acceptor_{accept_io_};
  asio::steady_timer accept_pause_{acceptor_.get_executor()};
  int port_ = 0;
  std::vector<std::thread> threads_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpServerOptions& options,
                                                              const KeyStore& keys,
                                                              const Services& services,
                                                              Metrics& metrics) {
  auto server = std::make_unique<HttpServerImpl>(options, keys, services, metrics);
  if (absl::Status status = server->Listen(); !status.ok()) return status;
  return server;
}

}  // namespace fairlead

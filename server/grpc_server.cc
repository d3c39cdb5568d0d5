// SPDX-License-Identifier: Apache-2.0
#include "server/grpc_server.h"

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "google/protobuf/empty.pb.h"
#include "grpc/health/v1/health.pb.h"
#include "kernels/strings.h"
#include "server/grpc/call.h"
#include "server/grpc/embed_call.h"
#include "server/grpc/health.h"
#include "server/grpc/inference_calls.h"
#include "server/grpc/long_calls.h"
#include "server/grpc/reflection.h"

namespace fairlead {
namespace {

constexpr int kMaxRequestBytes = 64 << 20;
constexpr int kMaxMetadataBytes = 16 << 10;
constexpr int kMaxStreamsPerConnection = 2048;
constexpr int kKeepaliveTimeMs = 60'000;
constexpr int kKeepaliveTimeoutMs = 20'000;
constexpr int kMinClientPingIntervalMs = 5'000;
constexpr int kHandshakeTimeoutMs = 10'000;
// What all connections together may hold in messages that are not handled yet.
constexpr size_t kMaxTransportBytes = size_t{1} << 30;
constexpr int kMaxIdleMs = 600'000;  // clients connect again by themselves
// gRPC says goodbye to each connection and waits for its answer before it closes: for a client that
// does not answer, no longer than this.
constexpr absl::Duration kGoodbye = absl::Seconds(1);

constexpr char kInferenceService[] = "fairlead.v1.Inference";
constexpr char kHealthService[] = "grpc.health.v1.Health";
constexpr char kReflectionV1[] = "grpc.reflection.v1.ServerReflection";
constexpr char kReflectionV1Alpha[] = "grpc.reflection.v1alpha.ServerReflection";

absl::Status DrainingError() { return absl::UnavailableError("the server is shutting down"); }

// What the methods work on; outlives every call.
struct Backend {
  Services services;
  HealthService& health;
  LongCalls& long_calls;
  const std::vector<std::string>& service_names;
  const pb::ServerInfoResponse& info;
};

struct Caller {
  Principal principal;
  absl::Time deadline;
};

struct Method {
  bool is_public = false;
  bool is_reflection = false;
  std::function<std::shared_ptr<GrpcCall>(const Backend&, const Caller&)> make;
};

template <typename Request, typename Response>
std::shared_ptr<GrpcCall> Unary(typename UnaryCall<Request, Response>::Handler handler,
                                typename UnaryCall<Request, Response>::Run run = nullptr) {
  return std::make_shared<UnaryCall<Request, Response>>(std::move(handler), std::move(run));
}

std::function<absl::Status(size_t, std::function<void()>)> OnServiceThreads(ModelService& service) {
  return [&service](size_t bytes, std::function<void()> work) {
    return service.Run(bytes, std::move(work));
  };
}

// Reads the request, whatever it is, and says what the model is for.
std::shared_ptr<GrpcCall> WrongTaskCall(const Backend& backend, std::string_view wanted) {
  return Unary<google::protobuf::Empty, google::protobuf::Empty>(
      [status = WrongTask(backend.services.model.model(), wanted)](
          const auto&, const auto&) -> absl::StatusOr<google::protobuf::Empty> { return status; });
}

template <typename Call>
std::shared_ptr<GrpcCall> MakeGenerate(const Backend& backend, const Caller& caller) {
  GenerateService* const service = backend.services.generate;
  if (service == nullptr) return WrongTaskCall(backend, "generates text");
  return std::make_shared<Call>(GenerateContext{service, caller.principal, caller.deadline});
}

void AddInference(std::map<std::string, Method, std::less<>>& methods) {
  const auto add = [&methods](const char* name, auto make) {
    methods[StrCat("/", kInferenceService, "/", name)].make = make;
  };
  add("Generate", MakeGenerate<GenerateCall>);
  add("GenerateOnce", MakeGenerate<GenerateOnceCall>);
  add("Embed", [](const Backend& backend, const Caller&) -> std::shared_ptr<GrpcCall> {
    EmbedService* const service = backend.services.embed;
    if (service == nullptr) return WrongTaskCall(backend, "makes embeddings");
    return std::make_shared<EmbedCall>(*service);
  });
  add("Tokenize", [](const Backend& backend, const Caller&) {
    return Unary<pb::TokenizeRequest, pb::TokenizeResponse>(
        [&service = backend.services.model](const auto& request, const auto& abandoned) {
          return service.Tokenize(request, abandoned);
        },
        OnServiceThreads(backend.services.model));
  });
  add("Detokenize", [](const Backend& backend, const Caller&) {
    return Unary<pb::DetokenizeRequest, pb::DetokenizeResponse>(
        [&service = backend.services.model](const auto& request, const auto&) {
          return service.Detokenize(request);
        },
        OnServiceThreads(backend.services.model));
  });
  add("ListModels", [](const Backend& backend, const Caller&) {
    return Unary<pb::ListModelsRequest, pb::ListModelsResponse>(
        [&service = backend.services.model](const auto&, const auto&) {
          return service.ListModels();
        });
  });
  add("ServerInfo", [](const Backend& backend, const Caller&) {
    return Unary<pb::ServerInfoRequest, pb::ServerInfoResponse>(
        [&info = backend.info](const auto&, const auto&) { return info; });
  });
}

void AddHealth(std::map<std::string, Method, std::less<>>& methods) {
  namespace v1 = grpc::health::v1;
  const auto add = [&methods](const char* name, auto make) {
    methods[StrCat("/", kHealthService, "/", name)] = {.is_public = true, .make = make};
  };
  add("Check", [](const Backend& backend, const Caller&) {
    return Unary<v1::HealthCheckRequest, v1::HealthCheckResponse>(
        [&health = backend.health](const auto& request, const auto&) {
          return health.Check(request);
        });
  });
  add("List", [](const Backend& backend, const Caller&) {
    return Unary<v1::HealthListRequest, v1::HealthListResponse>(
        [&health = backend.health](const auto&, const auto&) { return health.List(); });
  });
  add("Watch", [](const Backend& backend, const Caller&) {
    return backend.health.MakeWatch(backend.long_calls);
  });
}

void AddReflection(std::map<std::string, Method, std::less<>>& methods) {
  const auto add = [&methods](const char* service, auto make) {
    methods[StrCat("/", service, "/ServerReflectionInfo")] = {.is_reflection = true, .make = make};
  };
  add(kReflectionV1, [](const Backend& backend, const Caller&) {
    return MakeReflectionV1Call(backend.service_names, backend.long_calls);
  });
  add(kReflectionV1Alpha, [](const Backend& backend, const Caller&) {
    return MakeReflectionV1AlphaCall(backend.service_names, backend.long_calls);
  });
}

// The one list of what this port serves.
const std::map<std::string, Method, std::less<>>& Methods() {
  static const auto* methods = [] {
    auto* all = new std::map<std::string, Method, std::less<>>();
    AddInference(*all);
    AddHealth(*all);
    AddReflection(*all);
    return all;
  }();
  return *methods;
}

// A call that is answered with an error before any of it is read.
class RefusedCall final : public GrpcCall {
  void OnRequest(grpc::ByteBuffer&) override {}
  bool TakeMessage(grpc::ByteBuffer&) override { return false; }
};

std::vector<std::string> ServiceNames(bool reflection) {
  std::vector<std::string> names = {kInferenceService, kHealthService};
  if (reflection) names.insert(names.end(), {kReflectionV1, kReflectionV1Alpha});
  return names;
}

class GrpcServerImpl final : public GrpcServer, public grpc::CallbackGenericService {
 public:
  GrpcServerImpl(const GrpcServerOptions& options, const KeyStore& keys, const Services& services,
                 Metrics& metrics)
      : keys_(keys),
        metrics_(metrics),
        reflection_(options.reflection),
        info_(options.info),
        service_names_(ServiceNames(options.reflection)),
        health_({kInferenceService, kHealthService}),
        backend_{services, health_, long_calls_, service_names_, info_} {}

  ~GrpcServerImpl() override { Drain(absl::InfinitePast()); }

  absl::Status Listen(const GrpcServerOptions& options);

  int port() const override { return port_; }
  void SetServing(bool serving) override { health_.SetServing(serving); }
  void Drain(absl::Time deadline) override;

 private:
  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override;
  // Whether the call may go on, and who makes it. OK only with a method.
  absl::Status Admit(const grpc::GenericCallbackServerContext& context, const Method* method,
                     Principal& principal) const;
  // False when the deadline comes first.
  bool WaitUntilIdle(absl::Time deadline);

  const KeyStore& keys_;
  Metrics& metrics_;
  const bool reflection_;
  const pb::ServerInfoResponse info_;
  const std::vector<std::string> service_names_;
  LongCalls long_calls_;
  HealthService health_;
  const Backend backend_;
  std::atomic<bool> draining_{false};
  std::once_flag drained_;
  std::mutex mutex_;
  std::condition_variable idle_;
  int num_calls_ = 0;  // guarded by mutex_
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

absl::Status GrpcServerImpl::Admit(const grpc::GenericCallbackServerContext& context,
                                   const Method* method, Principal& principal) const {
  if (method == nullptr || !method->is_public) {
    const auto [first, last] = context.client_metadata().equal_range("authorization");
    std::string_view authorization;
    if (first != last && std::next(first) == last)
      authorization = {first->second.data(), first->second.size()};
    std::optional<Principal> known = keys_.Authenticate(authorization);
    if (!known) {
      metrics_.AuthDenied("grpc");
      return absl::UnauthenticatedError(
          "send a valid API key in the metadata: authorization: Bearer <key>");
    }
    principal = *std::move(known);
  }
  if (method == nullptr || (method->is_reflection && !reflection_))
    return absl::UnimplementedError(StrCat("there is no method ", context.method()));
  if (draining_ && !method->is_public) return DrainingError();
  return absl::OkStatus();
}

grpc::ServerGenericBidiReactor* GrpcServerImpl::CreateReactor(
    grpc::GenericCallbackServerContext* context) {
  const auto found = Methods().find(context->method());
  const Method* method = found == Methods().end() ? nullptr : &found->second;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++num_calls_;
  }
  // Never a name that a client made up: it becomes a label of a metric.
  const std::string route = method == nullptr ? "other" : found->first;
  GrpcCall::Finished finished = [this, route](const absl::Status& status) {
    metrics_.Responded("grpc", route, absl::StatusCodeToString(status.code()));
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--num_calls_ == 0) idle_.notify_all();
  };
  Caller caller;
  if (absl::Status status = Admit(*context, method, caller.principal); !status.ok()) {
    const auto call = std::make_shared<RefusedCall>();
    call->Refuse(status, std::move(finished));
    return call.get();
  }
  const std::chrono::system_clock::time_point deadline = context->deadline();
  caller.deadline = deadline == std::chrono::system_clock::time_point::max()
                        ? absl::InfiniteFuture()
                        : absl::FromChrono(deadline);
  const std::shared_ptr<GrpcCall> call = method->make(backend_, caller);
  call->Begin(std::move(finished));
  return call.get();
}

absl::Status GrpcServerImpl::Listen(const GrpcServerOptions& options) {
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (options.tls != nullptr) {
    // gRPC's TLS is 1.2 or 1.3.
    grpc::SslServerCredentialsOptions tls;
    tls.pem_key_cert_pairs.push_back({options.tls->private_key, options.tls->certificate_chain});
    credentials = grpc::SslServerCredentials(tls);
  }
  const bool is_ipv6 = absl::StrContains(options.host, ':');
  const std::string address = is_ipv6 ? StrCat("[", options.host, "]:", options.port)
                                      : StrCat(options.host, ":", options.port);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, credentials, &port_);
  builder.RegisterCallbackGenericService(this);
  builder.SetMaxReceiveMessageSize(kMaxRequestBytes);
  builder.SetResourceQuota(grpc::ResourceQuota("fairlead").Resize(kMaxTransportBytes));
  builder.SetMaxSendMessageSize(-1);
  // Otherwise a second server on the same port would silently take half of the connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, kMaxIdleMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kMinClientPingIntervalMs);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port_ == 0) {
    server_ = nullptr;
    return absl::UnavailableError(
        StrCat("cannot listen on ", address,
               " for gRPC: address already in use, or not one of this machine's"));
  }
  return absl::OkStatus();
}

bool GrpcServerImpl::WaitUntilIdle(absl::Time deadline) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto idle = [this] { return num_calls_ == 0; };
  if (deadline == absl::InfiniteFuture()) {
    idle_.wait(lock, idle);
    return true;
  }
  return idle_.wait_for(lock, absl::ToChronoNanoseconds(deadline - absl::Now()), idle);
}

void GrpcServerImpl::Drain(absl::Time deadline) {
  std::call_once(drained_, [this, deadline] {
    if (server_ == nullptr) return;
    draining_ = true;
    health_.SetServing(false);
    long_calls_.FinishAll(DrainingError());
    // Shutdown closes a connection as soon as its last call has ended; what the client has sent by
    // then and nobody has read resets it, and the end of an answer may be lost. So the calls end
    // first: the goodbye then reaches the client after all answers.
    const bool idle = WaitUntilIdle(deadline);
    server_->Shutdown(absl::ToChronoTime(absl::Now() + (idle ? kGoodbye : absl::ZeroDuration())));
    server_->Wait();
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options,
                                                              const KeyStore& keys,
                                                              const Services& services,
                                                              Metrics& metrics) {
  auto server = std::make_unique<GrpcServerImpl>(options, keys, services, metrics);
  if (absl::Status status = server->Listen(options); !status.ok()) return status;
  return server;
}

std::vector<GrpcMethodInfo> GrpcMethods() {
  std::vector<GrpcMethodInfo> list;
  for (const auto& [path, method] : Methods()) list.push_back({path, method.is_public});
  return list;
}

}  // namespace fairlead

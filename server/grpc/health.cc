// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/health.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace fairlead {
namespace {

constexpr size_t kMaxHealthRequestBytes = 1024;
constexpr size_t kMaxWatchers = 1024;

absl::Status TooLongError() {
  return absl::InvalidArgumentError(
      absl::StrCat("the service's name is too long; at most ", kMaxHealthRequestBytes, " bytes"));
}

}  // namespace

namespace pb_health = grpc::health::v1;

// Sends the status now, then each change of it. Only the newest waits for a slow client.
class HealthService::WatchCall final : public GrpcCall {
 public:
  WatchCall(HealthService& health, LongCalls& calls) : health_(health), calls_(calls) {}

  // With the service's lock held, so that the last status noted is the newest; Tell follows
  // without.
  void Note(HealthService::Status status) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (status == newest_) return;
    newest_ = status;
    waiting_ = true;
  }
  void Tell() { Pump(); }

  const std::string& service() const { return service_; }

 private:
  void OnRequest(grpc::ByteBuffer& bytes) override {
    // Anybody may call this without a key: what is kept must be small.
    if (bytes.Length() > kMaxHealthRequestBytes) return Finish(TooLongError());
    pb_health::HealthCheckRequest request;
    if (absl::Status status = ParseRequest(bytes, request); !status.ok()) return Finish(status);
    service_ = request.service();
    const auto self = std::static_pointer_cast<WatchCall>(shared_from_this());
    if (!calls_.Add(self)) return Finish(absl::UnavailableError("the server is shutting down"));
    {
      const std::lock_guard<std::mutex> lock(health_.mutex_);
      std::erase_if(health_.watchers_, [](const auto& other) { return other.expired(); });
      if (health_.watchers_.size() >= kMaxWatchers) {
        return Finish(absl::ResourceExhaustedError("too many health watches"));
      }
      health_.watchers_.push_back(self);
      Note(health_.StatusOf(service_));
    }
    Tell();
  }

  void OnAbandoned() override { Finish(absl::CancelledError("the client has left")); }

  bool TakeMessage(grpc::ByteBuffer& out) override {
    if (!std::exchange(waiting_, false)) return false;
    pb_health::HealthCheckResponse response;
    response.set_status(*newest_);
    out = QueuedCall::Serialize(response);
    return true;
  }

  HealthService& health_;
  LongCalls& calls_;
  std::string service_;
  std::optional<HealthService::Status> newest_;  // guarded by mutex_
  bool waiting_ = false;
};

HealthService::HealthService(std::vector<std::string> services) : services_(std::move(services)) {}

HealthService::Status HealthService::StatusOf(const std::string& service) const {
  if (service == "liveness") return pb_health::HealthCheckResponse::SERVING;
  const bool known = service.empty() || service == "readiness" ||
                     std::find(services_.begin(), services_.end(), service) != services_.end();
  if (!known) return pb_health::HealthCheckResponse::SERVICE_UNKNOWN;
  return serving_ ? pb_health::HealthCheckResponse::SERVING
                  : pb_health::HealthCheckResponse::NOT_SERVING;
}

void HealthService::SetServing(bool serving) {
  std::vector<std::shared_ptr<WatchCall>> watchers;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    serving_ = serving;
    for (const auto& weak : watchers_) {
      if (auto watcher = weak.lock()) {
        watcher->Note(StatusOf(watcher->service()));
        watchers.push_back(std::move(watcher));
      }
    }
  }
  for (const auto& watcher : watchers) watcher->Tell();
}

absl::StatusOr<pb_health::HealthCheckResponse> HealthService::Check(
    const pb_health::HealthCheckRequest& request) const {
  if (request.service().size() > kMaxHealthRequestBytes) return TooLongError();
  const std::lock_guard<std::mutex> lock(mutex_);
  pb_health::HealthCheckResponse response;
  response.set_status(StatusOf(request.service()));
  if (response.status() == pb_health::HealthCheckResponse::SERVICE_UNKNOWN) {
    return absl::NotFoundError(absl::StrCat("there is no service '", request.service(), "'"));
  }
  return response;
}

pb_health::HealthListResponse HealthService::List() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  pb_health::HealthListResponse response;
  std::vector<std::string> names = {"", "liveness", "readiness"};
  names.insert(names.end(), services_.begin(), services_.end());
  for (const std::string& name : names)
    (*response.mutable_statuses())[name].set_status(StatusOf(name));
  return response;
}

std::shared_ptr<GrpcCall> HealthService::MakeWatch(LongCalls& calls) {
  return std::make_shared<WatchCall>(*this, calls);
}

}  // namespace fairlead

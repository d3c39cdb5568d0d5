// SPDX-License-Identifier: Apache-2.0
// grpc.health.v1.Health: "" and every service serve or not together; "liveness" serves as long as
// the process answers, "readiness" while it takes requests. Thread-safe.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "grpc/health/v1/health.pb.h"
#include "server/grpc/call.h"
#include "server/grpc/long_calls.h"

namespace fairlead {

class HealthService {
 public:
  // Not serving until SetServing(true). `services`: names beside "", "liveness" and "readiness".
  explicit HealthService(std::vector<std::string> services);

  // Watchers are told.
  void SetServing(bool serving);

  absl::StatusOr<grpc::health::v1::HealthCheckResponse> Check(
      const grpc::health::v1::HealthCheckRequest& request) const;
  grpc::health::v1::HealthListResponse List() const;
  // A call of Watch; `calls` ends it when the server drains. Both outlive it.
  std::shared_ptr<GrpcCall> MakeWatch(LongCalls& calls);

 private:
  class WatchCall;
  using Status = grpc::health::v1::HealthCheckResponse::ServingStatus;

  // SERVICE_UNKNOWN for a name that is not known. mutex_ is held.
  Status StatusOf(const std::string& service) const;

  const std::vector<std::string> services_;
  mutable std::mutex mutex_;
  bool serving_ = false;
  std::vector<std::weak_ptr<WatchCall>> watchers_;
};

}  // namespace fairlead

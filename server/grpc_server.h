// SPDX-License-Identifier: Apache-2.0
// The gRPC port: fairlead.v1.Inference, grpc.health.v1.Health and reflection. Every call is checked
// for a key before anything else is looked at, its message and whether its method exists included;
// only the health methods are public. Thread-safe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "fairlead/v1/inference.pb.h"
#include "server/auth/keys.h"
#include "server/auth/tls.h"
#include "server/metrics.h"
#include "server/services.h"

namespace fairlead {

struct GrpcServerOptions {
  std::string host = "127.0.0.1";
  int port = 8001;                   // 0 takes a free one
  const TlsIdentity* tls = nullptr;  // null: plain
  bool reflection = true;
  pb::ServerInfoResponse info;  // what ServerInfo answers
};

class GrpcServer {
 public:
  // Binds and serves. keys, the service and metrics outlive the server. kUnavailable when the
  // address cannot be bound.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const GrpcServerOptions& options,
                                                           const KeyStore& keys,
                                                           const Services& services,
                                                           Metrics& metrics);
  virtual ~GrpcServer() = default;  // Drain with an expired deadline, if it has not been called

  virtual int port() const = 0;
  // Health: NOT_SERVING until the first call with true, and after one with false.
  virtual void SetServing(bool serving) = 0;
  // Refuses new calls with UNAVAILABLE, waits for those in progress until `deadline`, cancels the
  // rest and waits for their end, which the service owes them. Health is NOT_SERVING from here on.
  virtual void Drain(absl::Time deadline) = 0;
};

struct GrpcMethodInfo {
  std::string path;  // "/fairlead.v1.Inference/Generate"
  bool is_public;
};
// Every method, for tests that must reach all of them.
std::vector<GrpcMethodInfo> GrpcMethods();

}  // namespace fairlead

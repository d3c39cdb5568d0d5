// SPDX-License-Identifier: Apache-2.0
// A server under load, over one protocol.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "bench/serve/request.h"
#include "models/json.h"

namespace fairlead::serve_bench {

// `scheduled`, `id`, `session`, `turn` and `injected` are the caller's to fill in.
using OnRecord = std::function<void(Record)>;

class Target {
 public:
  virtual ~Target() = default;  // no request may be in flight

  // What serves: models, version, configuration, as far as the server says. Blocks. An error means
  // that nobody answers there, or not to us.
  virtual absl::StatusOr<Json> Describe() = 0;
  // Starts the request and returns; any thread. `done` is called once, on a thread of the target's,
  // never from inside Send; it must not block, since other answers wait behind it.
  virtual void Send(Request request, OnRecord done) = 0;
};

// Of all requests.
struct TargetOptions {
  std::string model = {};    // empty: the first that the server names
  std::string key = {};      // empty: none
  std::string ca_file = {};  // PEM; empty: the system's certificates
  double timeout_s = 600;
  double temperature = 0;
  bool ignore_eos = true;
  bool return_token_ids = false;     // for every request, not only where a later turn needs them
  Json extra_body = Json::object();  // HTTP: more members of every request's body
};

// `url`: http(s)://host:port, with or without the /v1 at its end. kInvalidArgument for a CA file
// that cannot be read.
absl::StatusOr<std::unique_ptr<Target>> MakeHttpTarget(std::string url, TargetOptions options);
// `address`: host:port. TLS when `tls`.
absl::StatusOr<std::unique_ptr<Target>> MakeGrpcTarget(const std::string& address, bool tls,
                                                       TargetOptions options);

}  // namespace fairlead::serve_bench

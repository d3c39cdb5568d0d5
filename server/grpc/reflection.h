// SPDX-License-Identifier: Apache-2.0
// grpc.reflection.v1 and v1alpha: tells clients our services and messages from the descriptors
// compiled in. gRPC 1.51's own plugin has v1alpha only, and cannot ask for a key. Thread-safe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/grpc/call.h"
#include "server/grpc/long_calls.h"

namespace fairlead {

// A call of ServerReflectionInfo; `services` are the full names it lists. Both arguments outlive
// it.
std::shared_ptr<GrpcCall> MakeReflectionV1Call(const std::vector<std::string>& services,
                                               LongCalls& calls);
std::shared_ptr<GrpcCall> MakeReflectionV1AlphaCall(const std::vector<std::string>& services,
                                                    LongCalls& calls);

}  // namespace fairlead

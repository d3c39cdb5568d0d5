// SPDX-License-Identifier: Apache-2.0
// absl::Status as a gRPC status: the same code, and the details of google.rpc that say which field,
// why, and when to try again. Any thread.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace fairlead {

// The details: BadRequest for the field of a FieldError, ErrorInfo (domain "fairlead", the status's
// code word in upper case) for an ErrorCode, RetryInfo for RESOURCE_EXHAUSTED and UNAVAILABLE.
// Without any of them the status has no details.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace fairlead

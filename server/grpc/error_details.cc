// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/error_details.h"

#include <string>

#include "absl/strings/ascii.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "models/detokenizer.h"
#include "server/errors.h"

namespace fairlead {
namespace {

constexpr int kRetrySeconds = 1;

bool IsWorthRetrying(absl::StatusCode code) {
  return code == absl::StatusCode::kResourceExhausted || code == absl::StatusCode::kUnavailable;
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  // Proto strings and the grpc-message header are UTF-8; a message may quote what a client sent.
  const std::string message =
      ReplaceInvalidUtf8({status.message().data(), status.message().size()});
  google::rpc::Status out;
  if (const std::string field = ErrorParam(status); !field.empty()) {
    google::rpc::BadRequest details;
    auto& violation = *details.add_field_violations();
    violation.set_field(field);
    violation.set_description(message);
    out.add_details()->PackFrom(details);
  }
  if (const std::string code = ErrorCode(status); !code.empty()) {
    google::rpc::ErrorInfo details;
    details.set_reason(absl::AsciiStrToUpper(code));
    details.set_domain("fairlead");
    out.add_details()->PackFrom(details);
  }
  if (IsWorthRetrying(status.code())) {
    google::rpc::RetryInfo details;
    details.mutable_retry_delay()->set_seconds(kRetrySeconds);
    out.add_details()->PackFrom(details);
  }
  const auto code = static_cast<grpc::StatusCode>(status.code());  // the same numbers
  if (out.details_size() == 0) return grpc::Status(code, message);
  out.set_code(static_cast<int>(status.code()));
  out.set_message(message);
  return grpc::Status(code, message, out.SerializeAsString());
}

}  // namespace fairlead

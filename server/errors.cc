// SPDX-License-Identifier: Apache-2.0
#include "server/errors.h"

#include <optional>

#include "absl/strings/cord.h"

namespace fairlead {
namespace {

constexpr std::string_view kParamUrl = "fairlead/param";
constexpr std::string_view kCodeUrl = "fairlead/code";

std::string Payload(const absl::Status& status, std::string_view url) {
  const auto payload = status.GetPayload(absl::string_view(url.data(), url.size()));
  return payload ? std::string(*payload) : std::string();
}

std::string_view TypeOf(int http_status) {
  switch (http_status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    case 501:
      return "not_supported_error";
    case 503:
      return "unavailable_error";
    case 504:
      return "timeout_error";
    default:
      return http_status >= 500 ? "server_error" : "invalid_request_error";
  }
}

Json NullIfEmpty(std::string_view text) { return text.empty() ? Json(nullptr) : Json(text); }

}  // namespace

absl::Status WithDetail(absl::Status status, std::string_view param, std::string_view code) {
  if (!param.empty())
    status.SetPayload({kParamUrl.data(), kParamUrl.size()}, absl::Cord(std::string(param)));
  if (!code.empty())
    status.SetPayload({kCodeUrl.data(), kCodeUrl.size()}, absl::Cord(std::string(code)));
  return status;
}

absl::Status FieldError(std::string_view param, std::string_view message, std::string_view code) {
  return WithDetail(absl::InvalidArgumentError({message.data(), message.size()}), param, code);
}

absl::Status RenameField(const absl::Status& status, std::string_view from, std::string_view to) {
  if (ErrorParam(status) != from) return status;
  std::string message(status.message());
  if (const size_t at = message.find(from); at != std::string::npos)
    message.replace(at, from.size(), to);
  return WithDetail(absl::Status(status.code(), message), to, ErrorCode(status));
}

absl::Status RequestCancelled() { return absl::CancelledError("the request was cancelled"); }

std::string ErrorParam(const absl::Status& status) { return Payload(status, kParamUrl); }
std::string ErrorCode(const absl::Status& status) { return Payload(status, kCodeUrl); }

int HttpStatusOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kFailedPrecondition:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kCancelled:
      return 499;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

Json ErrorBody(int http_status, std::string_view message, std::string_view param,
               std::string_view code) {
  return Json{{"error",
               {{"message", message},
                {"type", TypeOf(http_status)},
                {"param", NullIfEmpty(param)},
                {"code", NullIfEmpty(code)}}}};
}

Json ErrorBody(const absl::Status& status) {
  const absl::string_view message = status.message();
  return ErrorBody(HttpStatusOf(status), {message.data(), message.size()}, ErrorParam(status),
                   ErrorCode(status));
}

}  // namespace fairlead

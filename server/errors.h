// SPDX-License-Identifier: Apache-2.0
// absl::Status on its way out: the HTTP status, OpenAI's error object, and the gRPC status for each
// code. Any thread.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "models/json.h"

namespace fairlead {

// A caller's error about one field. `param` is the field's name in the request ("temperature"),
// `code` a stable word
// ("context_length_exceeded", "model_not_found", "queue_full"); both may be empty.
absl::Status FieldError(std::string_view param, std::string_view message,
                        std::string_view code = "");
absl::Status WithDetail(absl::Status status, std::string_view param, std::string_view code);
// An error about the field `from` as one about `to`, also where its message names it first; others
// as they are.
absl::Status RenameField(const absl::Status& status, std::string_view from, std::string_view to);
// What ends a request whose client has left or called it off.
absl::Status RequestCancelled();
std::string ErrorParam(const absl::Status& status);
std::string ErrorCode(const absl::Status& status);

// 400 401 403 404 413 429 499 500 501 503 504.
int HttpStatusOf(const absl::Status& status);
// {"error": {"message", "type", "param", "code"}} with OpenAI's shape and llama-server's type
// names.
Json ErrorBody(const absl::Status& status);
Json ErrorBody(int http_status, std::string_view message, std::string_view param = "",
               std::string_view code = "");

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// A small HTTP/1.1 client for streamed answers, http:// and https:// (the system's certificates).
// One thread.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace fairlead {

struct Url {
  bool tls = false;
  std::string host;    // an IPv6 address without its brackets
  std::string port;    // "80", "443" by default
  std::string prefix;  // path before the API's own, without a slash at its end
};

// kInvalidArgument for anything but http(s)://host[:port][/path].
absl::StatusOr<Url> ParseUrl(const std::string& text);

// POSTs a JSON body to url.prefix + path and calls on_data for each `data:` line of the answer,
// without the prefix. `key` may be empty. Errors: kUnavailable (no connection, cut off), or the
// server's own words.
absl::Status PostForEvents(const Url& url, const std::string& path, const std::string& key,
                           const std::string& body,
                           const std::function<void(const std::string&)>& on_data);

}  // namespace fairlead

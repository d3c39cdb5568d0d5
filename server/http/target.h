// SPDX-License-Identifier: Apache-2.0
// The path that a request names. Pure functions: any thread.
#pragma once

#include <string>
#include <string_view>

namespace fairlead {

// Of a request target in origin form ("/a?b") or absolute form ("http://host/a?b"), RFC 9112
// section 3.2: without the query, percent escapes decoded (RFC 3986 section 2.1). An escape that is
// none stays as it is; other forms are returned as they are.
std::string PathOfTarget(std::string_view target);

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// Escapes of string literals, as Python's unicode-escape codec reads them.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace fairlead::jinja {

// `body` is what stands between the quotes. Errors: a cut \x, \u or \U, a code point that is none
// or a surrogate (no UTF-8 text has one), \N{...}.
absl::StatusOr<std::string> UnescapeLiteral(std::string_view body);

}  // namespace fairlead::jinja

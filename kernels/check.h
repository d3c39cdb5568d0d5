// SPDX-License-Identifier: Apache-2.0
// CHECK: for what only this program or its hardware can get wrong. It prints and aborts; a
// supervisor restarts us. What a caller or a file can get wrong is an absl::Status instead.
#pragma once

#include <string_view>

namespace fairlead {
// `detail` may be empty.
[[noreturn]] void CheckFailed(const char* file, int line, const char* what,
                              std::string_view detail = {});
}  // namespace fairlead

#define FAIRLEAD_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::fairlead::CheckFailed(__FILE__, __LINE__, #condition))

// With the values that explain it: `detail` (a string) is only evaluated on failure.
#define FAIRLEAD_CHECK_MSG(condition, detail) \
  ((condition) ? static_cast<void>(0)         \
               : ::fairlead::CheckFailed(__FILE__, __LINE__, #condition, (detail)))

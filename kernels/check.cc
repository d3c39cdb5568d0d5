// SPDX-License-Identifier: Apache-2.0
#include "kernels/check.h"

#include <cstdio>
#include <cstdlib>

namespace fairlead {

void CheckFailed(const char* file, int line, const char* what, std::string_view detail) {
  std::fprintf(stderr, "CHECK failed at %s:%d: %s%s%.*s\n", file, line, what,
               detail.empty() ? "" : ": ", static_cast<int>(detail.size()), detail.data());
  std::fflush(stderr);
  std::abort();
}

}  // namespace fairlead

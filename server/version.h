// SPDX-License-Identifier: Apache-2.0
// The version, as CMakeLists.txt of the project states it.
#pragma once

#include <string_view>

namespace fairlead {

inline constexpr std::string_view kVersion = FAIRLEAD_VERSION;

}  // namespace fairlead

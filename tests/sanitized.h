// SPDX-License-Identifier: Apache-2.0
// Whether this is a sanitizer's build. It runs some 20 times slower and looks for other faults than
// wrong numbers: tests with many rounds of the same kind do fewer there, and check the same in
// each.
#pragma once

namespace fairlead {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace fairlead

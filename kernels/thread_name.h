// SPDX-License-Identifier: Apache-2.0
// Names of threads, as `top -H`, debuggers and profilers show them.
#pragma once

#include <pthread.h>

namespace fairlead {

// The calling thread's; at most 15 characters.
inline void SetThreadName(const char* name) { pthread_setname_np(pthread_self(), name); }

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// The executor's global memory: what kernels may read and write besides shared memory. Each
// allocation is known by its exact bounds. Any thread.
#pragma once

#include <cstddef>

namespace fairlead::simt {

// Page-aligned, zeroed; null when there is no memory. `bytes` may be 0.
void* AllocateGlobal(size_t bytes);
void FreeGlobal(void* data);  // null is nothing

// Host memory that kernels may use for as long as this lives: a test's, or a launch's parameters.
class GlobalRange {
 public:
  GlobalRange(const void* data, size_t bytes);
  ~GlobalRange();
  GlobalRange(const GlobalRange&) = delete;
  GlobalRange& operator=(const GlobalRange&) = delete;

 private:
  const void* data_;
};

// Whether one allocation or range holds all of it.
bool IsGlobal(const void* data, size_t bytes);

}  // namespace fairlead::simt

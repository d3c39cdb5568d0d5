// SPDX-License-Identifier: Apache-2.0
// Scratch memory that only grows, so that an op allocates nothing once the largest call was seen.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <type_traits>

#include "kernels/check.h"

namespace fairlead {

// 64-byte aligned storage of plain values. One thread at a time. Growing drops what was there.
template <typename T>
class GrowOnlyArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  // At least `size` values, uninitialised when they are new.
  T* Reserve(size_t size) {
    if (size > size_) {
      const size_t bytes = (size * sizeof(T) + 63) / 64 * 64;
      data_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
      FAIRLEAD_CHECK(data_ != nullptr);
      size_ = size;
    }
    return data_.get();
  }
  T* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
  size_t size_ = 0;
};

}  // namespace fairlead

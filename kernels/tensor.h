// SPDX-License-Identifier: Apache-2.0
// A view of device memory: row-major, packed. Owns nothing; copying it copies a pointer.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "kernels/dtype.h"

namespace fairlead {

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int rank = 0;
  std::array<int64_t, 4> dim = {};

  Tensor() = default;
  Tensor(void* data_in, DType dtype_in, std::initializer_list<int64_t> dims)
      : data(data_in), dtype(dtype_in) {
    for (const int64_t d : dims) dim[rank++] = d;
  }

  int64_t elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dim[i];
    return n;
  }
  size_t bytes() const { return RowBytes(dtype, elements()); }
  explicit operator bool() const { return data != nullptr; }

  // Only where the program runs on the device that owns the memory.
  template <typename T>
  T* As() const {
    return static_cast<T*>(data);
  }
};

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// Tensors in a device's memory for something that is timed, and random matrices. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <vector>

#include "absl/status/status.h"
#include "kernels/device.h"
#include "kernels/tensor.h"

namespace fairlead::bench {

// Owns what it hands out. When memory runs out, tensors are empty and status() says why.
class DeviceTensors {
 public:
  DeviceTensors(Device& device, Stream& stream) : device_(device), stream_(stream) {}

  // Normal-ish values of mean 0, in the device's activation dtype. Values do not change how long
  // an op takes, except where a chip's clock falls with the bits that switch: so no zeros.
  Tensor Activations(std::initializer_list<int64_t> dims);
  Tensor Floats(std::initializer_list<int64_t> dims);  // the same as f32
  Tensor Constant(float value, std::initializer_list<int64_t> dims);
  Tensor Values(const std::vector<float>& values, std::initializer_list<int64_t> dims);
  Tensor Ints(const std::vector<int32_t>& values, std::initializer_list<int64_t> dims);
  Tensor Output(DType dtype, std::initializer_list<int64_t> dims);  // zeros
  // `bytes` of device memory that begin with `count` bytes of `values`; null when there are none.
  void* Place(size_t bytes, const void* values, size_t count);

  const absl::Status& status() const { return status_; }

 private:
  Tensor Normals(DType dtype, std::initializer_list<int64_t> dims);

  Device& device_;
  Stream& stream_;
  std::deque<Buffer> buffers_;
  absl::Status status_;
};

// A matrix as files store it, with values of about 1 / sqrt(cols): f32, f16, bf16, q8_0 or q4_0
// (CHECK). One row, repeated.
std::vector<std::byte> RandomMatrix(DType dtype, int64_t rows, int64_t cols);

}  // namespace fairlead::bench

// SPDX-License-Identifier: Apache-2.0
#include "bench/common/device_tensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <utility>

#include "kernels/check.h"
#include "kernels/half.h"

namespace fairlead::bench {
namespace {

int64_t Elements(std::initializer_list<int64_t> dims) {
  return std::accumulate(dims.begin(), dims.end(), int64_t{1}, std::multiplies<>());
}

template <typename T>
void Put(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof(value));
}

void PutValue(DType dtype, float value, std::byte* at) {
  switch (dtype) {
    case DType::kF32:
      return Put(at, value);
    case DType::kF16:
      return Put(at, F32ToF16(value));
    case DType::kBF16:
      return Put(at, F32ToBF16(value));
    default:
      FAIRLEAD_CHECK(false && "a dtype of plain values");
  }
}

// Sums of twelve uniform numbers, so of variance 1.
float NormalValue(std::mt19937& random) {
  float sum = -6;
  for (int i = 0; i < 12; ++i) sum += static_cast<float>(random() >> 8) * 0x1p-24f;
  return sum;
}

}  // namespace

void* DeviceTensors::Place(size_t bytes, const void* values, size_t count) {
  if (!status_.ok()) return nullptr;
  absl::StatusOr<Buffer> buffer = device_.Allocate(std::max<size_t>(bytes, 64));
  status_ = buffer.status();
  if (!status_.ok()) return nullptr;
  buffers_.push_back(*std::move(buffer));
  if (count > 0) {
    stream_.CopyToDevice(buffers_.back().data(), values, count);
    stream_.Wait();
  }
  return buffers_.back().data();
}

Tensor DeviceTensors::Normals(DType dtype, std::initializer_list<int64_t> dims) {
  // A short pattern, repeated; its length is a prime, so that no two rows are alike.
  constexpr int kPattern = 4093;
  const size_t size = RowBytes(dtype, 1);
  std::mt19937 random(1);
  std::vector<std::byte> pattern(kPattern * size);
  for (int i = 0; i < kPattern; ++i)
    PutValue(dtype, NormalValue(random), pattern.data() + static_cast<size_t>(i) * size);
  std::vector<std::byte> bytes(RowBytes(dtype, Elements(dims)));
  for (size_t at = 0; at < bytes.size(); at += pattern.size()) {
    std::copy_n(pattern.begin(), std::min(pattern.size(), bytes.size() - at),
                bytes.begin() + static_cast<ptrdiff_t>(at));
  }
  return Tensor(Place(bytes.size(), bytes.data(), bytes.size()), dtype, dims);
}

Tensor DeviceTensors::Activations(std::initializer_list<int64_t> dims) {
  return Normals(device_.info().activation_dtype, dims);
}

Tensor DeviceTensors::Floats(std::initializer_list<int64_t> dims) {
  return Normals(DType::kF32, dims);
}

Tensor DeviceTensors::Constant(float value, std::initializer_list<int64_t> dims) {
  return Values(std::vector<float>(Elements(dims), value), dims);
}

Tensor DeviceTensors::Values(const std::vector<float>& values,
                             std::initializer_list<int64_t> dims) {
  FAIRLEAD_CHECK(static_cast<int64_t>(values.size()) == Elements(dims));
  const size_t bytes = values.size() * sizeof(float);
  return Tensor(Place(bytes, values.data(), bytes), DType::kF32, dims);
}

Tensor DeviceTensors::Ints(const std::vector<int32_t>& values,
                           std::initializer_list<int64_t> dims) {
  FAIRLEAD_CHECK(static_cast<int64_t>(values.size()) == Elements(dims));
  const size_t bytes = values.size() * sizeof(int32_t);
  return Tensor(Place(bytes, values.data(), bytes), DType::kI32, dims);
}

Tensor DeviceTensors::Output(DType dtype, std::initializer_list<int64_t> dims) {
  return Tensor(Place(RowBytes(dtype, Elements(dims)), nullptr, 0), dtype, dims);
}

std::vector<std::byte> RandomMatrix(DType dtype, int64_t rows, int64_t cols) {
  const float deviation = 1 / std::sqrt(static_cast<float>(cols));
  const DTypeInfo& info = Info(dtype);
  std::mt19937 random(2);
  std::vector<std::byte> row(RowBytes(dtype, cols));
  for (size_t at = 0; at < row.size(); at += info.block_bytes) {
    if (!IsQuantized(dtype)) {
      PutValue(dtype, deviation * NormalValue(random), row.data() + at);
      continue;
    }
    FAIRLEAD_CHECK(dtype == DType::kQ8_0 || dtype == DType::kQ4_0);
    // A scale, then whole numbers, which are uniform: their deviation is their reach / sqrt(3).
    const float reach = dtype == DType::kQ8_0 ? 128 : 8;
    Put(row.data() + at, F32ToF16(deviation * std::sqrt(3.0f) / reach));
    for (int i = 2; i < info.block_bytes; ++i)
      row[at + static_cast<size_t>(i)] = static_cast<std::byte>(random() >> 24);
  }
  std::vector<std::byte> matrix;
  matrix.reserve(row.size() * static_cast<size_t>(rows));
  for (int64_t i = 0; i < rows; ++i) matrix.insert(matrix.end(), row.begin(), row.end());
  return matrix;
}

}  // namespace fairlead::bench

// SPDX-License-Identifier: Apache-2.0
// Several small arrays that live on the host and on the device at the same offsets, so that one
// copy moves them all: a step's metadata up, its results down. Engine thread only. The host side
// must rest from CopyToDevice or CopyToHost until the stream's Wait, or a fence after it. There are
// two, so that a step may be prepared while another is under way; the device has its arrays one
// step after the other anyway.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <type_traits>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/check.h"
#include "kernels/device.h"
#include "kernels/tensor.h"

namespace fairlead {

class Mirror {
 public:
  template <typename T>
  struct Array {
    absl::Span<T> host;
    Tensor device;
  };

  // What one array of so many 4-byte elements takes: every array starts on a cache line.
  static constexpr size_t BytesFor(int64_t elements) {
    return (static_cast<size_t>(elements) * 4 + 63) / 64 * 64;
  }

  // Errors: the device's.
  static absl::StatusOr<Mirror> Create(Device& device, size_t bytes) {
    absl::StatusOr<Buffer> buffer = device.Allocate(bytes);
    if (!buffer.ok()) return buffer.status();
    return Mirror(*std::move(buffer));
  }

  // Goes on with the other host side, without arrays. What was added before stays there.
  void Flip() {
    host_.swap(other_host_);
    used_ = 0;
  }
  void Clear() { used_ = 0; }

  // Appends an array of i32 or f32. Allocates nothing: Create was asked for enough.
  template <typename T>
  Array<T> Add(std::initializer_list<int64_t> dims) {
    static_assert(std::is_same_v<T, int32_t> || std::is_same_v<T, float>);
    const DType dtype = std::is_same_v<T, float> ? DType::kF32 : DType::kI32;
    Tensor tensor(static_cast<std::byte*>(device_.data()) + used_, dtype, dims);
    T* const host = reinterpret_cast<T*>(host_.get() + used_);
    const int64_t elements = tensor.elements();
    used_ += BytesFor(elements);
    FAIRLEAD_CHECK(used_ <= device_.bytes());
    return {absl::MakeSpan(host, static_cast<size_t>(elements)), tensor};
  }

  void CopyToDevice(Stream& stream) { stream.CopyToDevice(device_.data(), host_.get(), used_); }
  void CopyToHost(Stream& stream) { stream.CopyToHost(host_.get(), device_.data(), used_); }

 private:
  explicit Mirror(Buffer buffer)
      : device_(std::move(buffer)),
        host_(std::make_unique<std::byte[]>(device_.bytes())),
        other_host_(std::make_unique<std::byte[]>(device_.bytes())) {}

  Buffer device_;
  std::unique_ptr<std::byte[]> host_;
  std::unique_ptr<std::byte[]> other_host_;
  size_t used_ = 0;
};

}  // namespace fairlead

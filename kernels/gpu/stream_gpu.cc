// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/stream_gpu.h"

#include <cstring>

namespace fairlead::FAIRLEAD_GPU {

GpuStream::~GpuStream() {
  FAIRLEAD_GPU::Wait(handle_);  // the GPU may still read what is staged
  ring_.reset();
  DestroyStream(handle_);
  if (staging_ != nullptr) ReleasePinned(device_, staging_);
}

WeightRing& GpuStream::ring() {
  if (ring_ == nullptr) ring_ = std::make_unique<WeightRing>(device_, handle_, streamed_);
  return *ring_;
}

std::byte* GpuStream::Stage(size_t bytes) {
  constexpr size_t kAlign = 256;
  const size_t begin = (used_ + kAlign - 1) / kAlign * kAlign;
  if (begin > kStagingBytes || bytes > kStagingBytes - begin) return nullptr;
  if (staging_ == nullptr) {
    staging_ = static_cast<std::byte*>(AllocatePinned(device_, kStagingBytes));
    if (staging_ == nullptr) return nullptr;
  }
  used_ = begin + bytes;
  return staging_ + begin;
}

void GpuStream::CopyToDevice(void* device, const void* host, size_t bytes) {
  if (bytes == 0) return;
  if (std::byte* staged = Stage(bytes); staged != nullptr) {
    std::memcpy(staged, host, bytes);
    host = staged;
  }
  FAIRLEAD_GPU::CopyToDevice(handle_, device, host, bytes);
}

void GpuStream::CopyToHost(void* host, const void* device, size_t bytes) {
  if (bytes == 0) return;
  void* to = host;
  std::byte* staged = Stage(bytes);
  if (staged == nullptr && !results_.empty()) {
    Wait();  // results come in order, also where one overwrites another
    staged = Stage(bytes);
  }
  if (staged != nullptr) {
    results_.push_back({host, staged, bytes});
    to = staged;
  }
  FAIRLEAD_GPU::CopyToHost(handle_, to, device, bytes);
}

void GpuStream::Wait() {
  FAIRLEAD_GPU::Wait(handle_);
  for (const Result& result : results_) std::memcpy(result.host, result.staged, result.bytes);
  results_.clear();
  used_ = 0;
}

}  // namespace fairlead::FAIRLEAD_GPU

// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/stream_gpu.h"

#include <algorithm>
#include <cstring>

#include "kernels/check.h"

namespace fairlead::FAIRLEAD_GPU {

GpuStream::GpuStream(int device, Buffer scratch, std::shared_ptr<const StreamedWeights> streamed)
    : device_(device),
      handle_(CreateStream(device)),
      scratch_(std::move(scratch)),
      streamed_(std::move(streamed)) {
  for (Mark& mark : marks_) {
    mark.begin = CreateEvent(device, /*timed=*/true);
    mark.end = CreateEvent(device, /*timed=*/true);
  }
}

GpuStream::~GpuStream() {
  FAIRLEAD_GPU::Wait(handle_);  // the GPU may still read what is staged
  ring_.reset();
  DestroyStream(handle_);
  for (const Mark& mark : marks_) {
    DestroyEvent(mark.begin);
    DestroyEvent(mark.end);
  }
  for (const Part& part : parts_) {
    if (part.staging != nullptr) ReleasePinned(device_, part.staging);
  }
}

WeightRing& GpuStream::ring() {
  if (ring_ == nullptr) ring_ = std::make_unique<WeightRing>(device_, handle_, streamed_);
  return *ring_;
}

void GpuStream::Begin() {
  Mark& now = mark(next_);
  if (now.begun) return;
  Record(handle_, now.begin);
  now.begun = true;
}

std::byte* GpuStream::Stage(size_t bytes) {
  constexpr size_t kAlign = 256;
  Part& now = part(next_);
  const size_t begin = (now.used + kAlign - 1) / kAlign * kAlign;
  if (begin > kStagingBytes || bytes > kStagingBytes - begin) return nullptr;
  if (now.staging == nullptr) {
    now.staging = static_cast<std::byte*>(AllocatePinned(device_, kStagingBytes));
    if (now.staging == nullptr) return nullptr;
  }
  now.used = begin + bytes;
  return now.staging + begin;
}

void GpuStream::CopyToDevice(void* device, const void* host, size_t bytes) {
  if (bytes == 0) return;
  Begin();
  if (std::byte* staged = Stage(bytes); staged != nullptr) {
    std::memcpy(staged, host, bytes);
    host = staged;
  }
  FAIRLEAD_GPU::CopyToDevice(handle_, device, host, bytes);
}

void GpuStream::CopyToHost(void* host, const void* device, size_t bytes) {
  if (bytes == 0) return;
  Begin();
  void* to = host;
  std::byte* staged = Stage(bytes);
  if (staged == nullptr) {
    Wait();  // results come in order, also where one overwrites another
    staged = Stage(bytes);
  }
  if (staged != nullptr) {
    part(next_).results.push_back({host, staged, bytes});
    to = staged;
  }
  FAIRLEAD_GPU::CopyToHost(handle_, to, device, bytes);
}

void GpuStream::HandOver(Part& part) {
  for (const Result& result : part.results) {
    std::memcpy(result.host, result.staged, result.bytes);
  }
  part.results.clear();
  part.used = 0;
}

void GpuStream::Wait() {
  FAIRLEAD_GPU::Wait(handle_);
  for (; passed_ < next_; ++passed_) HandOver(part(passed_));
  HandOver(part(next_));
}

int64_t GpuStream::Fence() {
  const int64_t fence = next_;
  WaitFor(fence - 2);  // its part is the next one
  Begin();
  Record(handle_, mark(fence).end);
  mark(fence).ended = true;
  ++next_;
  mark(next_).begun = mark(next_).ended = false;
  return fence;
}

void GpuStream::WaitFor(int64_t fence) {
  FAIRLEAD_CHECK(fence < next_);
  if (fence < passed_) return;
  WaitForEvent(mark(fence).end);
  for (; passed_ <= fence; ++passed_) HandOver(part(passed_));
}

std::optional<double> GpuStream::IdleSecondsBefore(int64_t fence) {
  FAIRLEAD_CHECK(fence < passed_ && fence + kMarks > next_ + 1);
  if (fence == 0 || fence - 1 + kMarks <= next_ || !mark(fence - 1).ended) return std::nullopt;
  const double seconds = SecondsBetween(mark(fence - 1).end, mark(fence).begin);
  return seconds < 0 ? std::nullopt : std::optional<double>(seconds);
}

std::unique_ptr<Graph> GpuStream::EndCapture() {
  GraphHandle handle = FAIRLEAD_GPU::EndCapture(handle_);
  if (handle.empty()) return nullptr;
  return std::make_unique<GpuGraph>(std::move(handle));
}

}  // namespace fairlead::FAIRLEAD_GPU

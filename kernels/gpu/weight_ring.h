// SPDX-License-Identifier: Apache-2.0
// Weights that stay in host memory, on their way through device memory: one is multiplied while the
// next is copied. A stream's own, used by its thread. Compiled once per target.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/gpu/gpu.h"
#include "kernels/gpu/packed_weight.h"
#include "kernels/gpu/streamed_weights.h"

namespace fairlead::FAIRLEAD_GPU {

class WeightRing {
 public:
  // Takes WeightRingBytes of device memory, which must be there. `compute` and the weights outlive
  // it, and it takes none that is larger than those that are there now.
  WeightRing(int device, const StreamHandle& compute,
             std::shared_ptr<const StreamedWeights> weights);
  ~WeightRing();
  WeightRing(const WeightRing&) = delete;
  WeightRing& operator=(const WeightRing&) = delete;

  // Where the weight is for what is launched on `compute` until Release.
  std::byte* Acquire(const GpuPackedWeight& weight);
  // What reads the weight is launched; the one that was packed after it is likely to be next.
  void Release();

 private:
  struct Slot {
    std::byte* data = nullptr;
    uint64_t weight = StreamedWeights::kNone;  // what is in it, or on its way
    EventHandle ready, released;
    bool used = false;  // `released` has been recorded
  };

  Slot* Find(uint64_t weight);
  void Load(Slot& slot, uint64_t id, const std::byte* host, size_t bytes);
  Slot& Other() { return &slots_[0] == current_ ? slots_[1] : slots_[0]; }

  const int device_;
  const StreamHandle& compute_;
  const std::shared_ptr<const StreamedWeights> weights_;
  const size_t slot_bytes_;
  const StreamHandle copies_;
  std::array<Slot, 2> slots_;
  Slot* current_ = nullptr;  // the last acquired
};

// Of the device memory that a ring takes for these weights.
size_t WeightRingBytes(const StreamedWeights& weights);

}  // namespace fairlead::FAIRLEAD_GPU

// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/weight_ring.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

// As drivers round an allocation.
size_t SlotBytes(const StreamedWeights& weights) {
  constexpr size_t kPage = size_t{2} << 20;
  return (weights.largest() + kPage - 1) / kPage * kPage;
}

}  // namespace

size_t WeightRingBytes(const StreamedWeights& weights) { return 2 * SlotBytes(weights); }

WeightRing::WeightRing(int device, const StreamHandle& compute,
                       std::shared_ptr<const StreamedWeights> weights)
    : device_(device),
      compute_(compute),
      weights_(std::move(weights)),
      slot_bytes_(SlotBytes(*weights_)),
      copies_(CreateStream(device)) {
  for (Slot& slot : slots_) {
    slot.data = static_cast<std::byte*>(AllocateMemory(device, slot_bytes_));
    FAIRLEAD_CHECK_MSG(slot.data != nullptr,
                       absl::StrCat("no memory for ", slot_bytes_, " bytes of streamed weights"));
    slot.ready = CreateEvent(device);
    slot.released = CreateEvent(device);
  }
}

WeightRing::~WeightRing() {
  Wait(copies_);
  DestroyStream(copies_);
  for (const Slot& slot : slots_) {
    DestroyEvent(slot.ready);
    DestroyEvent(slot.released);
    ReleaseMemory(device_, slot.data);
  }
}

WeightRing::Slot* WeightRing::Find(uint64_t weight) {
  for (Slot& slot : slots_) {
    if (slot.weight == weight) return &slot;
  }
  return nullptr;
}

void WeightRing::Load(Slot& slot, uint64_t id, const std::byte* host, size_t bytes) {
  if (slot.used) WaitFor(copies_, slot.released);
  CopyToDevice(copies_, slot.data, host, bytes);
  Record(copies_, slot.ready);
  slot.weight = id;
}

std::byte* WeightRing::Acquire(const GpuPackedWeight& weight) {
  FAIRLEAD_CHECK(weight.host_bytes() <= slot_bytes_);
  Slot* slot = Find(weight.streamed_id());
  if (slot == nullptr) {
    slot = &Other();
    Load(*slot, weight.streamed_id(), weight.host(), weight.host_bytes());
  }
  WaitFor(compute_, slot->ready);
  current_ = slot;
  return slot->data;
}

void WeightRing::Release() {
  Record(compute_, current_->released);
  current_->used = true;
  const StreamedWeights::Entry next = weights_->After(current_->weight);
  if (next.id != StreamedWeights::kNone && next.bytes <= slot_bytes_ && Find(next.id) == nullptr) {
    Load(Other(), next.id, next.host, next.bytes);
  }
}

}  // namespace fairlead::FAIRLEAD_GPU

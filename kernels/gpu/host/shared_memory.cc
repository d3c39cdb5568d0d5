// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/host/shared_memory.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace fairlead::simt {
namespace {

constexpr size_t kAlign = 128;

}  // namespace

bool g_accesses_checked = false;

SharedMemory::SharedMemory()
    : memory_(kMaxSharedBytes + kAlign), bytes_(g_accesses_checked ? kMaxSharedBytes : 0) {
  const auto at = reinterpret_cast<uintptr_t>(memory_.data());
  begin_ = memory_.data() + (kAlign - at % kAlign) % kAlign;
}

void SharedMemory::Reset(size_t dynamic_bytes) {
  ++block_;
  used_ = 0;
  variables_.clear();
  dynamic_ = Place(dynamic_bytes, kAlign);
}

std::byte* SharedMemory::Place(size_t bytes, size_t align) {
  const size_t at = (used_ + kRedZone + align - 1) / align * align;
  if (at + bytes + kRedZone > kMaxSharedBytes) return nullptr;
  used_ = at + bytes;
  if (bytes_.empty()) return begin_ + at;
  for (size_t i = at; i < at + bytes; ++i) bytes_[i] = {.block = block_, .inside = true};
  return begin_ + at;
}

std::byte* SharedMemory::Variable(const void* key, size_t bytes, size_t align) {
  for (const Variable_& variable : variables_) {
    if (variable.key == key) return begin_ + variable.offset;
  }
  std::byte* data = Place(bytes, align);
  if (data != nullptr) variables_.push_back({key, static_cast<size_t>(data - begin_)});
  return data;
}

bool SharedMemory::Access::Conflicts(const Accessor& by) const {
  if (thread == kNobody || thread == by.thread || barriers != by.barriers) return false;
  return warp != by.warp || warp_syncs == by.warp_syncs;
}

void SharedMemory::Access::Join(const Accessor& by) {
  // Those that are ordered before this one need not be known: who is not ordered after them is not
  // ordered after this one.
  const bool concurrent = Conflicts(by);
  thread = concurrent ? kSeveral : by.thread;
  warp = concurrent && warp != by.warp ? kSeveral : by.warp;
  barriers = by.barriers;
  warp_syncs = by.warp_syncs;
}

// Null when not all of it is a variable's.
SharedMemory::Byte* SharedMemory::Bytes(const void* address, size_t bytes) {
  const size_t at = static_cast<const std::byte*>(address) - begin_;
  if (at + bytes > kMaxSharedBytes) return nullptr;
  Byte* first = &bytes_[at];
  const bool inside = std::all_of(first, first + bytes,
                                  [this](const Byte& b) { return b.block == block_ && b.inside; });
  return inside ? first : nullptr;
}

SharedMemory::Finding SharedMemory::Outside(const void* address, size_t bytes,
                                            const char* verb) const {
  return {FaultKind::kSharedMemory,
          absl::StrCat(verb, " of ", bytes, " bytes of shared memory outside of its variables, at ",
                       static_cast<const std::byte*>(address) - begin_)};
}

SharedMemory::Finding SharedMemory::Read(const void* address, size_t bytes, const Accessor& by) {
  Byte* first = Bytes(address, bytes);
  if (first == nullptr) return Outside(address, bytes, "a read");
  for (Byte* b = first; b < first + bytes; ++b) {
    if (!b->written) {
      return {FaultKind::kUninitialised, "a read of shared memory that nobody has written"};
    }
    if (b->write.Conflicts(by)) {
      return {FaultKind::kRace, absl::StrCat("a read of shared memory that thread ",
                                             b->write.thread, " writes without a barrier between")};
    }
    b->read.Join(by);
  }
  return {};
}

SharedMemory::Finding SharedMemory::Write(const void* address, size_t bytes, const Accessor& by) {
  Byte* first = Bytes(address, bytes);
  if (first == nullptr) return Outside(address, bytes, "a write");
  for (Byte* b = first; b < first + bytes; ++b) {
    for (const Access* other : {&b->write, &b->read}) {
      if (!other->Conflicts(by)) continue;
      const std::string who = other->thread == kSeveral ? std::string("other threads")
                                                        : absl::StrCat("thread ", other->thread);
      return {FaultKind::kRace, absl::StrCat("a write to shared memory that ", who,
                                             other == &b->write ? " writes" : " reads",
                                             " without a barrier between")};
    }
    b->written = true;
    b->write = {
        .thread = by.thread, .warp = by.warp, .barriers = by.barriers, .warp_syncs = by.warp_syncs};
  }
  return {};
}

}  // namespace fairlead::simt

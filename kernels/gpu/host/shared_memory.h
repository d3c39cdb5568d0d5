// SPDX-License-Identifier: Apache-2.0
// Shared memory of a block: its variables with red zones between them, and who touched each byte
// last. Internal to kernels/gpu/host; one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/gpu/host/simt.h"

namespace fairlead::simt {

// Whether accesses are looked at; access.cc says so before main. Else none is remembered.
extern bool g_accesses_checked;

class SharedMemory {
 public:
  static constexpr size_t kRedZone = 128;

  SharedMemory();

  // For a new block: no variables but the dynamic one, nothing written.
  void Reset(size_t dynamic_bytes);
  // Null when it does not fit.
  std::byte* Variable(const void* key, size_t bytes, size_t align);
  std::byte* dynamic() const { return dynamic_; }
  size_t used() const { return used_; }

  bool Holds(const void* address) const {
    return address >= begin_ && address < begin_ + kMaxSharedBytes;
  }

  // Who accesses: ordered after others of the block by barriers, of the warp by warp_syncs too.
  struct Accessor {
    int thread, warp;
    uint32_t barriers, warp_syncs;
  };
  struct Finding {
    FaultKind kind;
    std::string what;
  };
  // Empty `what`: no fault. The access is remembered.
  Finding Read(const void* address, size_t bytes, const Accessor& by);
  Finding Write(const void* address, size_t bytes, const Accessor& by);

 private:
  static constexpr int kNobody = -1, kSeveral = -2;
  // The last access of a kind.
  struct Access {
    int thread = kNobody;  // kSeveral: since the last barrier
    int warp = kNobody;    // likewise
    uint32_t barriers = 0, warp_syncs = 0;

    bool Conflicts(const Accessor& by) const;
    void Join(const Accessor& by);
  };
  struct Byte {
    uint32_t block = 0;   // that the rest is of; others': nothing yet
    bool inside = false;  // of a variable
    bool written = false;
    Access write = {}, read = {};
  };
  struct Variable_ {
    const void* key;
    size_t offset;
  };

  std::byte* Place(size_t bytes, size_t align);
  Byte* Bytes(const void* address, size_t bytes);
  Finding Outside(const void* address, size_t bytes, const char* verb) const;

  std::vector<std::byte> memory_;
  std::byte* begin_ = nullptr;
  std::byte* dynamic_ = nullptr;
  size_t used_ = 0;
  uint32_t block_ = 0;
  std::vector<Variable_> variables_;
  std::vector<Byte> bytes_;
};

}  // namespace fairlead::simt

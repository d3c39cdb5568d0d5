// SPDX-License-Identifier: Apache-2.0
// A device that runs out of memory at a chosen moment. Loading must return a Status whichever
// allocation fails: a test counts the calls of a load that succeeds, then repeats it once for each
// of them.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

#include "kernels/device.h"

namespace fairlead {

// Thread-safe as any Device. `inner` must outlive it.
class FaultDevice : public Device {
 public:
  explicit FaultDevice(Device& inner) : inner_(inner) {}

  // The k-th Allocate or PackWeight from now, counted from 0, returns RESOURCE_EXHAUSTED; negative:
  // none does.
  void FailAt(int64_t k);
  // Allocate and PackWeight calls since the last FailAt, the failed one included.
  int64_t calls() const { return calls_; }

  const DeviceInfo& info() const override { return inner_.info(); }
  size_t FreeMemory() const override { return inner_.FreeMemory(); }
  absl::StatusOr<Buffer> Allocate(size_t bytes) override;
  size_t KvBlockBytes(const KvShape& shape) const override { return inner_.KvBlockBytes(shape); }
  size_t PackedBytes(DType dtype, int64_t rows, int64_t cols, int groups) const override {
    return inner_.PackedBytes(dtype, rows, cols, groups);
  }
  absl::StatusOr<std::unique_ptr<PackedWeight>> PackWeight(const PackWeightArgs& args) override;
  std::unique_ptr<Stream> NewStream() override { return inner_.NewStream(); }
  const Ops& ops() const override { return inner_.ops(); }

 private:
  absl::Status NextCall(const char* what);

  Device& inner_;
  std::atomic<int64_t> calls_{0};
  std::atomic<int64_t> fail_at_{-1};
};

}  // namespace fairlead

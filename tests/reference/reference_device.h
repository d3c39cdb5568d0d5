// SPDX-License-Identifier: Apache-2.0
// "reference": a complete Device in naive scalar code, written to be obviously right. Every backend
// is compared with it. Sums in double, weights read element by element from the file's layout, its
// own KV layout, streams that run at once. For tests only; never linked into the server.
// Thread-safe as any Device.
#pragma once

#include <cstddef>
#include <memory>

#include "kernels/device.h"

namespace fairlead::reference {

struct ReferenceOptions {
  DType kv_dtype = DType::kF32;  // or what the device stores that is compared with it
  size_t memory_bytes = size_t{4} << 30;
};

std::unique_ptr<Device> MakeReferenceDevice(const ReferenceOptions& options = {});

}  // namespace fairlead::reference

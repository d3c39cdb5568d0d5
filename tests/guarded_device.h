// SPDX-License-Identifier: Apache-2.0
// "guarded": a discrete accelerator played by a CPU device, so that code written against Device
// meets the rules of a GPU before there is one.
//  - Its memory is unreadable (PROT_NONE) except to the ops and copies that name it, while they
//  run: a host that looks into
//    device memory, or an op that touches a tensor outside its args, dies with SIGSEGV.
//  - Its streams run late, each on a thread of its own: nothing starts before Wait. A host buffer
//  that is changed or freed
//    between a copy and Wait is copied as it is then, and the target of a CopyToHost holds garbage
//    until Wait.
// Thread-safe as any Device. Buffers must not be freed while queued work names them; the stream
// thread would fault.
#pragma once

#include <memory>

#include "kernels/device.h"

namespace fairlead {

// `inner` must be a device whose memory is the host's, since its ops get pointers into mapped
// pages: "cpu" or "reference".
std::unique_ptr<Device> MakeGuardedDevice(std::unique_ptr<Device> inner);

}  // namespace fairlead

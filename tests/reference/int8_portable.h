// SPDX-License-Identifier: Apache-2.0
// The integer product of int8_matmul.h in plain C++: what the kernels of all instruction sets are
// compared with, bit for bit.
#pragma once

#include "kernels/cpu/int8_matmul.h"

namespace fairlead::reference {

extern const Int8Kernels kInt8Portable;      // by blocks
extern const Int8Kernels kInt8PortableSpan;  // by spans

}  // namespace fairlead::reference

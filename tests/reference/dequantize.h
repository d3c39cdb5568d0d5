// SPDX-License-Identifier: Apache-2.0
// One element of a row of weights in the layout that files have. Formats: GGUF specification. Any
// thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace fairlead::reference {

// The float value of element `index` of the row (or whole run of rows) that starts at `data`.
float DequantizeElement(DType dtype, const std::byte* data, int64_t index);

// Where a block keeps its f16 scales, each -1 where it has none: mxfp4's is a byte.
struct ScalePlaces {
  int d, minimum;  // minimum: also dmin
};
ScalePlaces ScalesAt(DType dtype);

// Largest size of the terms that element is the sum of: |scale * q| + |minimum| and the like.
// Rounding errors of an implementation that sums the terms apart (scale * sum(q x) + minimum *
// sum(x)) are relative to this.
float ElementMagnitude(DType dtype, const std::byte* data, int64_t index);

}  // namespace fairlead::reference

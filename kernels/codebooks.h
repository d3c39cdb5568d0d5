// SPDX-License-Identifier: Apache-2.0
// What the 4-bit indices of some dtypes stand for (ggml-common.h, kvalues_iq4nl and kvalues_mxfp4).
#pragma once

#include <cstdint>

namespace fairlead {

// iq4_nl, iq4_xs: denser where weights are.
alignas(16) inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                      1,    13,   25,  38,  53,  69,  89,  113};
// mxfp4: the values of e2m1, doubled.
alignas(16) inline constexpr int8_t kFp4Values[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                                      0, -1, -2, -3, -4, -6, -8, -12};

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "kernels/dtype.h"

#include <array>

namespace fairlead {
namespace {

constexpr std::array<DTypeInfo, kNumDTypes> kInfo = {{
    {"f32", 1, 4},
    {"f16", 1, 2},
    {"bf16", 1, 2},
    {"i32", 1, 4},
    {"q8_0", 32, 34},  // f16 scale, 32 int8
    {"q4_0", 32, 18},  // f16 scale, 32 nibbles, value = scale * (q - 8)
    {"q4_1", 32, 20},  // f16 scale, f16 minimum, 32 nibbles, value = scale * q + minimum
    {"q5_0", 32, 22},  // f16 scale, 32 fifth bits, 32 nibbles, value = scale * (q - 16)
    {"q5_1", 32, 24},  // with an f16 minimum after the scale, value = scale * q + minimum
    // In sub-blocks of 32 with a 6-bit scale and minimum each, which f16 d and dmin multiply:
    // value = d * scale * q - dmin * minimum.
    {"q4_k", 256, 144},
    {"q5_k", 256, 176},  // with 256 fifth bits
    // 6-bit q and an int8 scale for each 16: value = d * scale * (q - 32).
    {"q6_k", 256, 210},
    // Nibbles are indices of a table (codebooks.h).
    {"iq4_nl", 32, 18},    // f16 scale, value = scale * table[q]
    {"mxfp4", 32, 17},     // 8-bit exponent e, value = 2^(e - 128) * table[q]
    {"iq4_xs", 256, 136},  // f16 d, a 6-bit scale for each 32: value = d * (scale - 32) * table[q]
    // 3-bit q and a 6-bit scale for each 16: value = d * (scale - 32) * (q - 4).
    {"q3_k", 256, 110},
    // 2-bit q, a 4-bit scale and minimum for each 16: value = d * scale * q - dmin * minimum.
    {"q2_k", 256, 84},
    {"f8_e4m3", 1, 1},
}};

}  // namespace

const DTypeInfo& Info(DType dtype) { return kInfo[static_cast<size_t>(dtype)]; }

std::optional<DType> ParseDType(std::string_view name) {
  for (int i = 0; i < kNumDTypes; ++i) {
    if (kInfo[i].name == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

}  // namespace fairlead

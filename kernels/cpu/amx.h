// SPDX-License-Identifier: Apache-2.0
// What kernels on AMX tiles share: is the unit there, and the shapes of the eight tiles. Any
// thread.
#pragma once

#include <cstdint>

namespace fairlead {

// Bits of CPUID leaf 7's edx, which GCC 12 cannot name in __builtin_cpu_supports.
inline constexpr uint32_t kAmxBf16Bit = 1u << 22;
inline constexpr uint32_t kAmxTileBit = 1u << 24;
inline constexpr uint32_t kAmxInt8Bit = 1u << 25;

// Whether the processor has all of `bits`, and the operating system keeps this process's tiles,
// for which it asks the first time. False on other processors than x86-64's.
bool HasAmx(uint32_t bits);

// What ldtilecfg reads: rows of each tile and their bytes.
struct alignas(64) AmxTileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(AmxTileConfig) == 64);

}  // namespace fairlead

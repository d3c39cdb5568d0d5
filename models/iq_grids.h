// SPDX-License-Identifier: Apache-2.0
// The grids of GGUF's IQ blocks (ggml-common.h, iq1s_grid and so on): an index in a block stands
// for the levels of several elements, element i in bits [kBits i, kBits i + kBits) of the word.
// IQ1 and IQ2: 8 elements of 2 bits; IQ3: 4 elements of 3 bits. What value a level is, the block's
// decoder knows.
#pragma once

#include <array>
#include <cstdint>

namespace fairlead {

extern const std::array<uint16_t, 2048> kIq1Grid;  // of IQ1_S and IQ1_M
extern const std::array<uint16_t, 256> kIq2XxsGrid;
extern const std::array<uint16_t, 512> kIq2XsGrid;
extern const std::array<uint16_t, 1024> kIq2SGrid;
extern const std::array<uint16_t, 256> kIq3XxsGrid;
extern const std::array<uint16_t, 512> kIq3SGrid;

}  // namespace fairlead

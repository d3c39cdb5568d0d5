// SPDX-License-Identifier: Apache-2.0
// One panel of a packed weight, written from rows of the file and read back. The layouts are those
// of packed_weight.h. No state; any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/packed_weight.h"

namespace fairlead {

// rows: each cols elements in the file's layout, not aligned. out: PackedBlockBytes(dtype) *
// kPanelRows for every block of cols, 4-byte aligned.
void PackPanel(DType dtype, const std::byte* const (&rows)[kPanelRows], int64_t cols,
               std::byte* out);

// Row `lane` of one block of a panel as f32; out has Info(dtype).block_elements.
void DequantizePanelBlock(DType dtype, const std::byte* block, int lane, float* out);

}  // namespace fairlead

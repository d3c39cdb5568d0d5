// SPDX-License-Identifier: Apache-2.0
// The weight of one linear layer as quantised checkpoints have it, codes with scales and zero
// points, and how it becomes a dtype that we compute: w = scale * (code - zero). Immutable; any
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/dtype.h"

namespace fairlead {

// Where the code of output `row` and input `col` is; words are 32 bits, the first code lowest.
enum class CodeLayout {
  kPackedRows,     // [rows, words of cols]: compressed-tensors
  kPackedColumns,  // [words of cols, rows]: GPTQ
  kAwq,            // [cols, words of rows]; a word holds the rows 0 2 4 6 1 3 5 7 of its eight
  kInt8,           // [rows, cols], signed bytes
  kF8E4M3,         // [rows, cols], floats: no zero points
};

enum class ZeroLayout {
  kNone,           // zero_point for all
  kPackedRows,     // [words of rows, groups]: compressed-tensors
  kPackedColumns,  // [groups, words of rows]: GPTQ
  kAwq,            // [groups, words of rows], ordered as the codes
  kInt8,           // [row blocks, groups], signed bytes, added to zero_point
};

enum class ScaleType { kF32, kF16, kBF16, kE8M0 };

struct QuantizedMatrix {
  int64_t rows = 0, cols = 0;
  CodeLayout code_layout = CodeLayout::kInt8;
  int bits = 8;  // of a code: 4 or 8
  const std::byte* codes = nullptr;

  // A scale and a zero point hold for block_rows x block_cols weights; "group" counts the blocks
  // along a row. With act-order, group_of says the group of each column instead.
  int64_t block_rows = 1, block_cols = 0, groups = 1;
  std::shared_ptr<const std::vector<int32_t>> group_of;
  ScaleType scale_type = ScaleType::kF32;
  const std::byte* scales = nullptr;
  int64_t scale_row_step = 0, scale_group_step = 0;  // in elements

  ZeroLayout zero_layout = ZeroLayout::kNone;
  const std::byte* zeros = nullptr;
  // What is added to each packed word of zero points: the first GPTQ format stores them less one.
  uint32_t zero_word_offset = 0;
  int zero_point = 0;

  int64_t Group(int64_t col) const {
    return group_of ? (*group_of)[static_cast<size_t>(col)] : col / block_cols;
  }
  float Scale(int64_t row, int64_t group) const;
  int Zero(int64_t row, int64_t group) const;
};

// A dtype that holds every value exactly: q4_0 or q8_0 where all zero points are in the middle,
// q5_0 for other zero points of 4-bit codes. This needs 32 inputs in a row under one scale, and
// scales that f16 holds. Where there is none: `otherwise`. Reads the scales and zero points.
DType ChooseDType(const QuantizedMatrix& matrix, DType otherwise);

// The values of `rows` rows from `first` on in `dtype`, rows * RowBytes(dtype, cols) bytes. f32,
// f16 and bf16 are the f32 product, rounded once.
void MakeValues(const QuantizedMatrix& matrix, DType dtype, int64_t first, int64_t rows,
                std::byte* out);

}  // namespace fairlead

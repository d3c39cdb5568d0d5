// SPDX-License-Identifier: Apache-2.0
#include "models/quantized_matrix.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/half.h"

namespace fairlead {
namespace {

constexpr int kBlock = 32;  // elements of a q4_0, q5_0 or q8_0 block
// GPTQ and AWQ store neighbouring rows side by side: so many rows are made together that a cache
// line is used up while it is there.
constexpr int64_t kTileRows = 128;

template <typename T>
T Load(const std::byte* base, int64_t index) {
  T value;
  std::memcpy(&value, base + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

template <typename T>
void Store(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof(value));
}

// Where in its word the row of a kAwq layout is.
int AwqShift(int64_t row) {
  const int place = static_cast<int>(row % 8);
  return 4 * (place % 2 * 4 + place / 2);
}

float ScaleValue(const std::byte* scales, ScaleType type, int64_t index) {
  switch (type) {
    case ScaleType::kF32:
      return Load<float>(scales, index);
    case ScaleType::kF16:
      return F16ToF32(Load<uint16_t>(scales, index));
    case ScaleType::kBF16:
      return BF16ToF32(Load<uint16_t>(scales, index));
    case ScaleType::kE8M0:
      break;
  }
  const auto exponent = Load<uint8_t>(scales, index);  // of two, less 127
  if (exponent == 0xff) return std::numeric_limits<float>::quiet_NaN();
  return exponent == 0 ? 0x1p-127f : std::bit_cast<float>(uint32_t{exponent} << 23);
}

// `count` codes from words that are `step` words apart.
void UnpackWords(const std::byte* words, int64_t step, int bits, int count, int* out) {
  const int per_word = 32 / bits;
  const uint32_t mask = (1u << bits) - 1;
  for (int i = 0; i < count; i += per_word, words += 4 * step) {
    auto word = Load<uint32_t>(words, 0);
    const int end = std::min(count, i + per_word);
    for (int j = i; j < end; ++j, word >>= bits) out[j] = static_cast<int>(word & mask);
  }
}

// The codes of `count` columns from `col` on, a multiple of 32; FP8 ones as their bytes.
void ReadCodes(const QuantizedMatrix& m, int64_t row, int64_t col, int count, int* out) {
  const int per_word = 32 / m.bits;
  switch (m.code_layout) {
    case CodeLayout::kPackedRows: {
      const int64_t words = (m.cols + per_word - 1) / per_word;
      return UnpackWords(m.codes + 4 * (row * words + col / per_word), 1, m.bits, count, out);
    }
    case CodeLayout::kPackedColumns:
      return UnpackWords(m.codes + 4 * (col / per_word * m.rows + row), m.rows, m.bits, count, out);
    case CodeLayout::kAwq: {
      const int64_t step = m.rows / 8;
      const std::byte* word = m.codes + 4 * (col * step + row / 8);
      const int shift = AwqShift(row);
      for (int i = 0; i < count; ++i, word += 4 * step)
        out[i] = static_cast<int>(Load<uint32_t>(word, 0) >> shift & 15);
      return;
    }
    case CodeLayout::kInt8: {
      const std::byte* codes = m.codes + row * m.cols + col;
      for (int i = 0; i < count; ++i) out[i] = Load<int8_t>(codes, i);
      return;
    }
    case CodeLayout::kF8E4M3: {
      const std::byte* codes = m.codes + row * m.cols + col;
      for (int i = 0; i < count; ++i) out[i] = Load<uint8_t>(codes, i);
      return;
    }
  }
}

// Open Compute Project, 8-bit floating point specification.
float F8E4M3Value(uint8_t bits) {
  const float sign = bits & 0x80 ? -1.0f : 1.0f;
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) return std::numeric_limits<float>::quiet_NaN();
  if (exponent == 0) return sign * static_cast<float>(mantissa) * 0x1p-9f;
  return sign * std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
}

std::array<float, 256> F8E4M3Values() {
  std::array<float, 256> values;
  for (int i = 0; i < 256; ++i) values[i] = F8E4M3Value(static_cast<uint8_t>(i));
  return values;
}
const std::array<float, 256> kF8E4M3Values = F8E4M3Values();

void StoreFloats(DType dtype, const float* values, int count, std::byte* out) {
  if (dtype == DType::kF32) {
    std::memcpy(out, values, sizeof(float) * static_cast<size_t>(count));
  } else if (dtype == DType::kF16) {
    for (int i = 0; i < count; ++i) Store(out + 2 * i, F32ToF16(values[i]));
  } else {
    for (int i = 0; i < count; ++i) Store(out + 2 * i, F32ToBF16(values[i]));
  }
}

void MakeFloats(const QuantizedMatrix& m, DType dtype, int64_t row, int64_t col, int count,
                std::byte* out_row) {
  int codes[kBlock];
  float values[kBlock];
  ReadCodes(m, row, col, count, codes);
  for (int i = 0; i < count;) {
    const int64_t group = m.Group(col + i);
    const float scale = m.Scale(row, group);
    const int zero = m.Zero(row, group);
    int end = count;  // of the run with one scale
    if (m.group_of) {
      end = i + 1;
    } else if (const int64_t left = (group + 1) * m.block_cols - (col + i); left < count - i) {
      end = i + static_cast<int>(left);
    }
    if (m.code_layout == CodeLayout::kF8E4M3) {
      for (; i < end; ++i) values[i] = kF8E4M3Values[codes[i]] * scale;
    } else {
      for (; i < end; ++i) values[i] = static_cast<float>(codes[i] - zero) * scale;
    }
  }
  StoreFloats(dtype, values, count, out_row + RowBytes(dtype, col));
}

void MakeBlock(const QuantizedMatrix& m, DType dtype, int64_t row, int64_t col,
               std::byte* out_row) {
  int codes[kBlock];
  ReadCodes(m, row, col, kBlock, codes);
  const int64_t group = m.Group(col);
  const int zero = m.Zero(row, group);
  for (int& code : codes) code -= zero;
  std::byte* block = out_row + col / kBlock * Info(dtype).block_bytes;
  Store(block, F32ToF16(m.Scale(row, group)));
  if (dtype == DType::kQ8_0) {
    for (int i = 0; i < kBlock; ++i) Store(block + 2 + i, static_cast<int8_t>(codes[i]));
    return;
  }
  // Nibbles: the first 16 elements low, the others high. q5_0 has the fifth bits before them.
  const bool five = dtype == DType::kQ5_0;
  for (int& code : codes) code += five ? 16 : 8;
  std::byte* nibbles = block + 2;
  if (five) {
    uint32_t fifth = 0;
    for (int i = 0; i < kBlock; ++i) fifth |= static_cast<uint32_t>(codes[i] >> 4 & 1) << i;
    Store(nibbles, fifth);
    nibbles += sizeof(fifth);
  }
  for (int i = 0; i < kBlock / 2; ++i) {
    Store(nibbles + i, static_cast<uint8_t>((codes[i] & 15) | (codes[i + kBlock / 2] & 15) << 4));
  }
}

// Whether each block of 32 inputs has one scale.
bool FitsBlocks(const QuantizedMatrix& m) {
  if (m.cols % kBlock != 0) return false;
  if (!m.group_of) return m.block_cols % kBlock == 0 || m.block_cols >= m.cols;
  const std::vector<int32_t>& groups = *m.group_of;
  for (size_t i = 0; i < groups.size(); ++i) {
    if (groups[i] != groups[i / kBlock * kBlock]) return false;
  }
  return true;
}

// Calls visit(row, group) for each block until it returns false; whether it never did.
template <typename Visit>
bool AllBlocks(const QuantizedMatrix& m, Visit visit) {
  for (int64_t row = 0; row < m.rows; row += m.block_rows) {
    for (int64_t group = 0; group < m.groups; ++group) {
      if (!visit(row, group)) return false;
    }
  }
  return true;
}

bool HalfHoldsScales(const QuantizedMatrix& m) {
  if (m.scale_type == ScaleType::kF16) return true;
  return AllBlocks(m, [&](int64_t row, int64_t group) {
    const float scale = m.Scale(row, group);
    return F16ToF32(F32ToF16(scale)) == scale;
  });
}

}  // namespace

float QuantizedMatrix::Scale(int64_t row, int64_t group) const {
  return ScaleValue(scales, scale_type,
                    row / block_rows * scale_row_step + group * scale_group_step);
}

int QuantizedMatrix::Zero(int64_t row, int64_t group) const {
  const int per_word = 32 / bits;
  const uint32_t mask = (1u << bits) - 1;
  const int shift = bits * static_cast<int>(row % per_word);
  switch (zero_layout) {
    case ZeroLayout::kNone:
      break;
    case ZeroLayout::kPackedRows:
      return static_cast<int>(Load<uint32_t>(zeros, row / per_word * groups + group) >> shift &
                              mask);
    case ZeroLayout::kPackedColumns: {
      const auto word = Load<uint32_t>(zeros, group * (rows / per_word) + row / per_word);
      return static_cast<int>((word + zero_word_offset) >> shift & mask);
    }
    case ZeroLayout::kAwq:
      return static_cast<int>(Load<uint32_t>(zeros, group * (rows / 8) + row / 8) >> AwqShift(row) &
                              15);
    case ZeroLayout::kInt8:
      return zero_point +
             Load<int8_t>(zeros, row / block_rows * scale_row_step + group * scale_group_step);
  }
  return zero_point;
}

DType ChooseDType(const QuantizedMatrix& m, DType otherwise) {
  if (m.code_layout == CodeLayout::kF8E4M3 || !FitsBlocks(m) || !HalfHoldsScales(m))
    return otherwise;
  const int middle = m.code_layout == CodeLayout::kInt8 ? 0 : 1 << (m.bits - 1);
  const auto zeros_from_to = [&](int low, int high) {
    return AllBlocks(m, [&](int64_t row, int64_t group) {
      const int zero = m.Zero(row, group);
      return low <= zero && zero <= high;
    });
  };
  // Packed zero points of one block of rows differ from row to row; block_rows is 1 there.
  if (zeros_from_to(middle, middle)) return m.bits == 4 ? DType::kQ4_0 : DType::kQ8_0;
  return m.bits == 4 && zeros_from_to(0, 15) ? DType::kQ5_0 : otherwise;
}

void MakeValues(const QuantizedMatrix& m, DType dtype, int64_t first, int64_t rows,
                std::byte* out) {
  const size_t row_bytes = RowBytes(dtype, m.cols);
  for (int64_t tile = first; tile < first + rows; tile += kTileRows) {
    const int64_t end = std::min(first + rows, tile + kTileRows);
    for (int64_t col = 0; col < m.cols; col += kBlock) {
      const int count = static_cast<int>(std::min<int64_t>(kBlock, m.cols - col));
      for (int64_t row = tile; row < end; ++row) {
        std::byte* out_row = out + static_cast<size_t>(row - first) * row_bytes;
        if (IsQuantized(dtype)) {
          MakeBlock(m, dtype, row, col, out_row);
        } else {
          MakeFloats(m, dtype, row, col, count, out_row);
        }
      }
    }
  }
}

}  // namespace fairlead

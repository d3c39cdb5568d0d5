// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/packed_weight.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/check.h"
#include "kernels/half.h"

namespace fairlead {
namespace {

constexpr int kMaxBlock = 256;

// Where the planes begin, and where the last one ends.
struct Offsets {
  size_t high, sub_scales, scales, powers, end;
};

int64_t PaddedRows(int64_t rows) { return (rows + kTileRows - 1) / kTileRows * kTileRows; }

Offsets OffsetsOf(DType dtype, int64_t rows, int64_t cols) {
  const GpuFormat& format = kGpuFormats[static_cast<size_t>(dtype)];
  FAIRLEAD_CHECK_MSG(format.value_bits > 0, Info(dtype).name);
  const auto aligned = [](size_t bytes) { return (bytes + 255) / 256 * 256; };
  const int64_t padded = PaddedRows(rows);
  FAIRLEAD_CHECK(padded <= INT32_MAX - kTileRows);
  FAIRLEAD_CHECK(GpuChunks(dtype, cols) <= INT32_MAX - kTileRows);
  const size_t chunks = static_cast<size_t>(padded * GpuChunks(dtype, cols));
  const size_t blocks = static_cast<size_t>(padded * (cols / Info(dtype).block_elements));
  Offsets at;
  at.high = aligned(chunks * GpuChunkBytes(format));
  at.sub_scales = at.high + aligned(chunks * 4 * format.high_words);
  at.scales = at.sub_scales + aligned(chunks * format.sub_scale_bytes);
  at.powers = at.scales + aligned(blocks * format.scale_bytes);
  at.end = at.powers + aligned(padded * sizeof(float));
  return at;
}

unsigned Byte(const std::byte* bytes, int64_t i) { return std::to_integer<unsigned>(bytes[i]); }

// ---- q of a block of the file, in order; unsigned

void UnpackNibbles(const std::byte* from, uint8_t* q) {
  for (int i = 0; i < 16; ++i) {
    q[i] = static_cast<uint8_t>(Byte(from, i) & 15);
    q[i + 16] = static_cast<uint8_t>(Byte(from, i) >> 4);
  }
}

void AddFifthBits(const std::byte* from, uint8_t* q) {
  for (int i = 0; i < 32; ++i) q[i] |= (Byte(from, i / 8) >> i % 8 & 1) << 4;
}

// q4_k: d, dmin, scales[12], qs[128]; q5_k: qh[32] before qs. 64 elements share 32 bytes of qs, the
// low nibbles first; bit s of qh[l] is element 32 s + l's.
void UnpackK(const std::byte* block, bool fifth_bits, uint8_t* q) {
  const std::byte* qs = block + (fifth_bits ? 48 : 16);
  for (int i = 0; i < 256; ++i) {
    const int s = i / 32, l = i % 32;
    unsigned value = Byte(qs, s / 2 * 32 + l) >> 4 * (s % 2) & 15;
    if (fifth_bits) value |= (Byte(block + 16, l) >> s & 1) << 4;
    q[i] = static_cast<uint8_t>(value);
  }
}

// ql[128], qh[64], scales[16], d. In either half of 128 elements, l, l + 32, l + 64, l + 96 have
// the low nibbles of ql[l], ql[l + 32], then the high ones, and two bits each of qh[l].
void UnpackQ6K(const std::byte* block, uint8_t* q) {
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, quarter = i % 128 / 32, l = i % 32;
    const unsigned low = Byte(block, 64 * half + 32 * (quarter % 2) + l) >> 4 * (quarter / 2) & 15;
    const unsigned high = Byte(block + 128, 32 * half + l) >> 2 * quarter & 3;
    q[i] = static_cast<uint8_t>(low | high << 4);
  }
}

// Two bits each as qh of q6_k has them.
void UnpackTwoBits(const std::byte* from, uint8_t* q) {
  for (int i = 0; i < 256; ++i) {
    q[i] = static_cast<uint8_t>(Byte(from, i / 128 * 32 + i % 32) >> 2 * (i % 128 / 32) & 3);
  }
}

// hmask[32], qs[64], scales[12], d: bit s of hmask[l] is element 32 s + l's.
void UnpackQ3K(const std::byte* block, uint8_t* q) {
  UnpackTwoBits(block + 32, q);
  for (int i = 0; i < 256; ++i) q[i] |= (Byte(block, i % 32) >> i / 32 & 1) << 2;
}

void UnpackIntegers(DType dtype, const std::byte* block, uint8_t* q) {
  switch (dtype) {
    case DType::kQ8_0:
      for (int i = 0; i < 32; ++i) q[i] = static_cast<uint8_t>(Byte(block, 2 + i) ^ 0x80);
      return;
    case DType::kQ4_0:
      return UnpackNibbles(block + 2, q);
    case DType::kQ4_1:
      return UnpackNibbles(block + 4, q);
    case DType::kQ5_0:
      UnpackNibbles(block + 6, q);
      return AddFifthBits(block + 2, q);
    case DType::kQ5_1:
      UnpackNibbles(block + 8, q);
      return AddFifthBits(block + 4, q);
    case DType::kQ4_K:
    case DType::kQ5_K:
      return UnpackK(block, dtype == DType::kQ5_K, q);
    case DType::kQ6_K:
      return UnpackQ6K(block, q);
    case DType::kIQ4_NL:
      return UnpackNibbles(block + 2, q);
    case DType::kMXFP4:
      return UnpackNibbles(block + 1, q);
    case DType::kIQ4_XS:  // d, high bits of the scales, scales[4], qs[128]
      for (int s = 0; s < 8; ++s) UnpackNibbles(block + 8 + 16 * s, q + 32 * s);
      return;
    case DType::kQ3_K:
      return UnpackQ3K(block, q);
    case DType::kQ2_K:  // scales[16], qs[64], d, dmin
      return UnpackTwoBits(block + 16, q);
    default:
      FAIRLEAD_CHECK_MSG(false, Info(dtype).name);
  }
}

// ---- planes

// A chunk's quads as words of `values` (8 or 4 bits of each q) and `high` (the bits above 4).
void PackQuads(const GpuFormat& format, const uint8_t* q, std::byte* values, std::byte* high) {
  const int quads = GpuChunkElements(format) / 4;
  const int quads_a_word = 8 / format.value_bits;
  const uint32_t low_mask = (0xffu >> (8 - format.value_bits)) * 0x01010101u;
  const int high_quads_a_word = format.high_words > 0 ? quads / format.high_words : 1;
  uint32_t value_words[4] = {}, high_words[2] = {};
  for (int i = 0; i < quads; ++i) {
    uint32_t quad = 0;
    for (int b = 0; b < 4; ++b) quad |= uint32_t{q[4 * i + b]} << 8 * b;
    value_words[i / quads_a_word] |= (quad & low_mask) << format.value_bits * (i % quads_a_word);
    if (format.high_words > 0) {
      high_words[i / high_quads_a_word] |= (quad >> format.value_bits & 0x0f0f0f0fu)
                                           << format.high_words * (i % high_quads_a_word);
    }
  }
  std::memcpy(values, value_words, GpuChunkBytes(format));
  if (format.high_words > 0) std::memcpy(high, high_words, 4 * format.high_words);
}

// The scale and the minimum of sub-block s of q4_k and q5_k, 6 bits each in 12 bytes.
uint16_t KSubScale(const std::byte* packed, int s) {
  const unsigned scale =
      s < 4 ? Byte(packed, s) & 63 : (Byte(packed, s + 4) & 15) | Byte(packed, s - 4) >> 6 << 4;
  const unsigned minimum =
      s < 4 ? Byte(packed, s + 4) & 63 : Byte(packed, s + 4) >> 4 | Byte(packed, s) >> 6 << 4;
  return static_cast<uint16_t>(scale | minimum << 8);
}

// The scale of sub-block s: of 32 elements of iq4_xs, of 16 of q3_k.
int Iq4XsSubScale(const std::byte* block, int s) {
  const unsigned low = Byte(block + 4, s / 2) >> 4 * (s % 2) & 15;
  const unsigned high = (Byte(block, 2) | Byte(block, 3) << 8) >> 2 * s & 3;
  return static_cast<int>(low | high << 4) - 32;
}
int Q3KSubScale(const std::byte* block, int s) {
  const unsigned low = Byte(block + 96, s % 8) >> (s < 8 ? 0 : 4) & 15;
  const unsigned high = Byte(block + 104, s % 4) >> 2 * (s / 4) & 3;
  return static_cast<int>(low | high << 4) - 32;
}

float HalfAt(const std::byte* bytes) {
  uint16_t half;
  std::memcpy(&half, bytes, 2);
  return F16ToF32(half);
}

// Where a block's scales stand that go to the plane of scales.
int ScalesAt(DType dtype) {
  return dtype == DType::kQ6_K ? 208 : dtype == DType::kQ3_K ? 108 : dtype == DType::kQ2_K ? 80 : 0;
}

// The largest |q * scale| + |minimum| that the block's dtype and scales allow.
float BlockMagnitude(DType dtype, const std::byte* block) {
  if (dtype == DType::kMXFP4) return std::ldexp(12.0f, static_cast<int>(Byte(block, 0)) - 128);
  const float d = std::fabs(HalfAt(block + ScalesAt(dtype)));
  float largest = 0.0f;
  switch (dtype) {
    case DType::kQ8_0:
      return 128 * d;
    case DType::kQ4_0:
      return 8 * d;
    case DType::kQ5_0:
      return 16 * d;
    case DType::kQ4_1:
      return 15 * d + std::fabs(HalfAt(block + 2));
    case DType::kQ5_1:
      return 31 * d + std::fabs(HalfAt(block + 2));
    case DType::kQ4_K:
    case DType::kQ5_K:
      for (int s = 0; s < 8; ++s) {
        const unsigned sub_scale = KSubScale(block + 4, s);
        const float q = dtype == DType::kQ4_K ? 15 : 31;
        largest = std::max(largest,
                           q * d * static_cast<float>(sub_scale & 0xff) +
                               std::fabs(HalfAt(block + 2)) * static_cast<float>(sub_scale >> 8));
      }
      return largest;
    case DType::kQ6_K:
      for (int s = 0; s < 16; ++s) {
        const auto scale = std::to_integer<int8_t>(block[192 + s]);
        largest = std::max(largest, 32 * d * std::fabs(static_cast<float>(scale)));
      }
      return largest;
    case DType::kIQ4_NL:
      return 127 * d;
    case DType::kIQ4_XS:
      for (int s = 0; s < 8; ++s) {
        const int scale = std::abs(Iq4XsSubScale(block, s));
        largest = std::max(largest, 127 * d * static_cast<float>(scale));
      }
      return largest;
    case DType::kQ3_K:
      for (int s = 0; s < 16; ++s) {
        const int scale = std::abs(Q3KSubScale(block, s));
        largest = std::max(largest, 4 * d * static_cast<float>(scale));
      }
      return largest;
    case DType::kQ2_K:
      for (int s = 0; s < 16; ++s) {
        const unsigned both = Byte(block, s);
        largest =
            std::max(largest, 3 * d * static_cast<float>(both & 15) +
                                  std::fabs(HalfAt(block + 82)) * static_cast<float>(both >> 4));
      }
      return largest;
    default:
      FAIRLEAD_CHECK_MSG(false, Info(dtype).name);
  }
}

// |element| of a plain dtype.
float PlainMagnitude(DType dtype, const std::byte* element) {
  if (dtype == DType::kF16) return std::fabs(HalfAt(element));
  uint32_t bits = 0;  // bf16 is the upper half of f32
  if (dtype == DType::kF32) {
    std::memcpy(&bits, element, 4);
  } else {
    bits = Byte(element, 0) << 16 | Byte(element, 1) << 24;
  }
  return std::fabs(std::bit_cast<float>(bits));
}

float PowerOf(float magnitude) {
  if (!(magnitude > 0) || std::isinf(magnitude)) return 1.0f;
  int exponent;
  std::frexp(magnitude, &exponent);  // magnitude < 2^exponent
  return std::ldexp(1.0f, std::clamp(15 - exponent, -126, 126));
}

// The places of one row in the planes.
struct RowPlaces {
  DType dtype;
  const GpuFormat& format;
  std::byte* out;
  Offsets at;
  int row, chunks, blocks;

  std::byte* values(int chunk) const {
    return out + GpuChunkIndex(row, chunk, chunks) * GpuChunkBytes(format);
  }
  std::byte* high(int chunk) const {
    return out + at.high + GpuChunkIndex(row, chunk, chunks) * 4 * format.high_words;
  }
  std::byte* sub_scales(int chunk) const {
    return out + at.sub_scales + GpuChunkIndex(row, chunk, chunks) * format.sub_scale_bytes;
  }
  std::byte* scales(int block) const {
    return out + at.scales + GpuBlockIndex(row, block, blocks) * format.scale_bytes;
  }
  void SetPower(float power) const {
    std::memcpy(out + at.powers + row * sizeof(float), &power, sizeof(float));
  }
};

void PackZeros(const RowPlaces& to) {
  for (int chunk = 0; chunk < to.chunks; ++chunk) {
    std::memset(to.values(chunk), 0, GpuChunkBytes(to.format));
    std::memset(to.high(chunk), 0, 4 * to.format.high_words);
    std::memset(to.sub_scales(chunk), 0, to.format.sub_scale_bytes);
  }
  for (int block = 0; block < to.blocks; ++block) {
    std::memset(to.scales(block), 0, to.format.scale_bytes);
  }
  to.SetPower(1.0f);
}

void PackPlainRow(const std::byte* from, int64_t cols, const RowPlaces& to) {
  const int elements = GpuChunkElements(to.format);
  float magnitude = 0.0f;
  for (int64_t k = 0; k < cols; ++k) {
    magnitude = std::max(magnitude, PlainMagnitude(to.dtype, from + RowBytes(to.dtype, k)));
  }
  to.SetPower(PowerOf(magnitude));
  for (int chunk = 0; chunk < to.chunks; ++chunk) {
    const int64_t k = int64_t{chunk} * elements;
    const size_t bytes = RowBytes(to.dtype, std::min<int64_t>(elements, cols - k));
    std::memcpy(to.values(chunk), from + RowBytes(to.dtype, k), bytes);
    std::memset(to.values(chunk) + bytes, 0, 16 - bytes);
  }
}

// What the plane of sub_scales has for the 32 elements from 32 s on.
uint16_t SubScales(DType dtype, const std::byte* block, int s) {
  const auto two_bytes = [](int first, int second) {
    return static_cast<uint16_t>((first & 0xff) | (second & 0xff) << 8);
  };
  switch (dtype) {
    case DType::kQ6_K:
      return two_bytes(static_cast<int>(Byte(block, 192 + 2 * s)),
                       static_cast<int>(Byte(block, 193 + 2 * s)));
    case DType::kIQ4_XS:
      return two_bytes(Iq4XsSubScale(block, s), 0);
    case DType::kQ3_K:
      return two_bytes(Q3KSubScale(block, 2 * s), Q3KSubScale(block, 2 * s + 1));
    case DType::kQ2_K:
      return two_bytes(static_cast<int>(Byte(block, 2 * s)),
                       static_cast<int>(Byte(block, 2 * s + 1)));
    default:
      return KSubScale(block + 4, s);
  }
}

// The scales of a block; its chunks are `first` and those that follow.
void PackScales(const std::byte* block, int b, int first, const RowPlaces& to) {
  std::memcpy(to.scales(b), block + ScalesAt(to.dtype), to.format.scale_bytes);
  if (to.format.sub_scale_bytes == 0) return;
  for (int s = 0; s < 8; ++s) {
    const uint16_t scales = SubScales(to.dtype, block, s);
    std::memcpy(to.sub_scales(first + s), &scales, to.format.sub_scale_bytes);
  }
}

void PackQuantizedRow(const std::byte* from, const RowPlaces& to) {
  const DTypeInfo& info = Info(to.dtype);
  const int elements = GpuChunkElements(to.format);
  uint8_t q[kMaxBlock];
  float magnitude = 0.0f;
  int chunk = 0;
  for (int b = 0; b < to.blocks; ++b, from += info.block_bytes) {
    magnitude = std::max(magnitude, BlockMagnitude(to.dtype, from));
    UnpackIntegers(to.dtype, from, q);
    PackScales(from, b, chunk, to);
    for (int i = 0; i < info.block_elements; i += elements, ++chunk) {
      PackQuads(to.format, q + i, to.values(chunk), to.high(chunk));
    }
  }
  to.SetPower(PowerOf(magnitude));
}

// The rows of all parts, asked for in ascending order.
class SourceRows {
 public:
  explicit SourceRows(const PackWeightArgs& args)
      : part_(args.parts.begin()), row_bytes_(RowBytes(args.dtype, args.cols)) {}

  const std::byte* Row(int64_t row) {
    for (; row >= first_ + part_->rows; ++part_) first_ += part_->rows;
    return part_->data + (row - first_) * row_bytes_;
  }

 private:
  const WeightPart* part_;
  int64_t first_ = 0;  // row that is the part's first
  size_t row_bytes_;
};

int64_t RowsOf(const PackWeightArgs& args) {
  int64_t rows = 0;
  for (const WeightPart& part : args.parts) rows += part.rows;
  return rows;
}

}  // namespace

int64_t GpuRows(int64_t weight_rows, int groups) {
  return groups * PaddedRows(weight_rows / groups);
}

int64_t GpuChunks(DType dtype, int64_t cols) {
  const int elements = GpuChunkElements(kGpuFormats[static_cast<size_t>(dtype)]);
  return (cols + elements - 1) / elements;
}

size_t GpuPackedBytes(DType dtype, int64_t rows, int64_t cols) {
  return OffsetsOf(dtype, rows, cols).end;
}

GpuPlanes GpuPlanesAt(DType dtype, int64_t rows, int64_t cols, const std::byte* data) {
  const Offsets at = OffsetsOf(dtype, rows, cols);
  return {.values = data,
          .high = data + at.high,
          .sub_scales = data + at.sub_scales,
          .scales = data + at.scales,
          .powers = reinterpret_cast<const float*>(data + at.powers),
          .chunks = static_cast<int>(GpuChunks(dtype, cols))};
}

void PackGpuRows(const PackWeightArgs& args, int64_t begin, int64_t end, std::byte* out) {
  const int64_t rows = RowsOf(args), group_rows = rows / args.groups;
  const int64_t padded = PaddedRows(group_rows);  // of a group
  const int block_elements = Info(args.dtype).block_elements;
  FAIRLEAD_CHECK(begin >= 0 && end <= args.groups * padded && args.cols % block_elements == 0);
  FAIRLEAD_CHECK(begin % kTileRows == 0 && (end % kTileRows == 0 || end == rows));
  RowPlaces to = {.dtype = args.dtype,
                  .format = kGpuFormats[static_cast<size_t>(args.dtype)],
                  .out = out,
                  .at = OffsetsOf(args.dtype, end - begin, args.cols),
                  .row = 0,
                  .chunks = static_cast<int>(GpuChunks(args.dtype, args.cols)),
                  .blocks = static_cast<int>(args.cols / block_elements)};
  SourceRows source(args);
  for (int64_t row = begin; row < PaddedRows(end); ++row) {
    to.row = static_cast<int>(row - begin);
    if (row % padded >= group_rows) {
      PackZeros(to);
      continue;
    }
    const std::byte* from = source.Row(row / padded * group_rows + row % padded);
    IsQuantized(args.dtype) ? PackQuantizedRow(from, to) : PackPlainRow(from, args.cols, to);
  }
}

std::array<GpuSlice, 5> GpuSlices(DType dtype, int64_t rows, int64_t cols, int64_t begin,
                                  int64_t end) {
  const GpuFormat& format = kGpuFormats[static_cast<size_t>(dtype)];
  const Offsets whole = OffsetsOf(dtype, rows, cols);
  const Offsets part = OffsetsOf(dtype, end - begin, cols);
  const auto chunks = static_cast<size_t>(GpuChunks(dtype, cols));
  const auto blocks = static_cast<size_t>(cols / Info(dtype).block_elements);
  const auto slice = [&](size_t from, size_t to, size_t row_bytes) {
    return GpuSlice{from, to + static_cast<size_t>(begin) * row_bytes,
                    static_cast<size_t>(PaddedRows(end - begin)) * row_bytes};
  };
  return {slice(0, 0, chunks * GpuChunkBytes(format)),
          slice(part.high, whole.high, chunks * 4 * format.high_words),
          slice(part.sub_scales, whole.sub_scales, chunks * format.sub_scale_bytes),
          slice(part.scales, whole.scales, blocks * format.scale_bytes),
          slice(part.powers, whole.powers, sizeof(float))};
}

void PackGpuWeight(const PackWeightArgs& args, std::byte* out) {
  PackGpuRows(args, 0, GpuRows(RowsOf(args), args.groups), out);
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/packed_weight.h"

#include <algorithm>
#include <cstring>

#include "kernels/check.h"

namespace fairlead {
namespace {

constexpr int kMaxBlock = 256;

// Where the planes begin, and where the last one ends.
struct Offsets {
  size_t high, sub_scales, scales, end;
};

Offsets OffsetsOf(DType dtype, int64_t rows, int64_t cols) {
  const GpuFormat& format = kGpuFormats[static_cast<size_t>(dtype)];
  FAIRLEAD_CHECK_MSG(format.value_bits > 0, Info(dtype).name);
  const auto aligned = [](size_t bytes) { return (bytes + 255) / 256 * 256; };
  const size_t chunks = static_cast<size_t>(rows * GpuChunks(dtype, cols));
  const size_t blocks = static_cast<size_t>(rows * (cols / Info(dtype).block_elements));
  Offsets at;
  at.high = aligned(chunks * 16);
  at.sub_scales = at.high + aligned(chunks * 4 * format.high_words);
  at.scales = at.sub_scales + aligned(chunks * format.sub_scale_bytes);
  at.end = at.scales + aligned(blocks * format.scale_bytes);
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
    default:
      FAIRLEAD_CHECK_MSG(false, Info(dtype).name);
  }
}

// ---- planes

// A chunk's quads as words of `values` (8 or 4 bits of each q) and `high` (the bits above 4).
void PackQuads(const GpuFormat& format, const uint8_t* q, std::byte* values, std::byte* high) {
  const int quads = 32 / format.value_bits;
  const int quads_a_word = 8 / format.value_bits;
  const int high_quads_a_word = format.high_words > 0 ? quads / format.high_words : 1;
  uint32_t value_words[4] = {}, high_words[2] = {};
  for (int i = 0; i < quads; ++i) {
    uint32_t quad = 0;
    for (int b = 0; b < 4; ++b) quad |= uint32_t{q[4 * i + b]} << 8 * b;
    const uint32_t low = format.value_bits == 8 ? quad : quad & 0x0f0f0f0fu;
    value_words[i / quads_a_word] |= low << format.value_bits * (i % quads_a_word);
    if (format.high_words > 0) {
      high_words[i / high_quads_a_word] |= (quad >> 4 & 0x0f0f0f0fu)
                                           << format.high_words * (i % high_quads_a_word);
    }
  }
  std::memcpy(values, value_words, 16);
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

// The scales of a block that is not plain; `sub_scales` has eight of them.
void PackScales(DType dtype, const std::byte* block, std::byte* sub_scales, std::byte* scales) {
  const GpuFormat& format = kGpuFormats[static_cast<size_t>(dtype)];
  if (dtype == DType::kQ6_K) {
    std::memcpy(sub_scales, block + 192, 16);
    std::memcpy(scales, block + 208, 2);
    return;
  }
  std::memcpy(scales, block, format.scale_bytes);
  if (format.sub_scale_bytes == 0) return;
  for (int s = 0; s < 8; ++s) {
    const uint16_t sub_scale = KSubScale(block + 4, s);
    std::memcpy(sub_scales + 2 * s, &sub_scale, 2);
  }
}

struct MutablePlanes {
  std::byte *values, *high, *sub_scales, *scales;
};

// Row `row` of the weight, which is in the file's layout at `from`.
void PackRow(DType dtype, int64_t cols, int64_t row, const std::byte* from,
             const MutablePlanes& to) {
  const GpuFormat& format = kGpuFormats[static_cast<size_t>(dtype)];
  int64_t chunk = row * GpuChunks(dtype, cols);
  if (!IsQuantized(dtype)) {
    const size_t bytes = RowBytes(dtype, cols);
    std::byte* values = to.values + chunk * 16;
    std::memcpy(values, from, bytes);
    std::memset(values + bytes, 0, GpuChunks(dtype, cols) * 16 - bytes);
    return;
  }
  const DTypeInfo& info = Info(dtype);
  const int elements = 128 / format.value_bits;
  const int64_t blocks = cols / info.block_elements;
  uint8_t q[kMaxBlock];
  for (int64_t b = 0; b < blocks; ++b, from += info.block_bytes) {
    UnpackIntegers(dtype, from, q);
    PackScales(dtype, from, to.sub_scales + chunk * format.sub_scale_bytes,
               to.scales + (row * blocks + b) * format.scale_bytes);
    for (int i = 0; i < info.block_elements; i += elements, ++chunk) {
      PackQuads(format, q + i, to.values + chunk * 16, to.high + chunk * 4 * format.high_words);
    }
  }
}

}  // namespace

int64_t GpuChunks(DType dtype, int64_t cols) {
  const int elements = 128 / kGpuFormats[static_cast<size_t>(dtype)].value_bits;
  return (cols + elements - 1) / elements;
}

size_t GpuPackedBytes(DType dtype, int64_t rows, int64_t cols) {
  return OffsetsOf(dtype, rows, cols).end;
}

GpuPlanes GpuPlanesAt(DType dtype, int64_t rows, int64_t cols, const std::byte* data) {
  const Offsets at = OffsetsOf(dtype, rows, cols);
  return {data, data + at.high, data + at.sub_scales, data + at.scales};
}

void PackGpuRows(const PackWeightArgs& args, int64_t begin, int64_t end, std::byte* out) {
  int64_t rows = 0;
  for (const WeightPart& part : args.parts) rows += part.rows;
  FAIRLEAD_CHECK(begin >= 0 && end <= rows && args.cols % Info(args.dtype).block_elements == 0);
  const Offsets at = OffsetsOf(args.dtype, end - begin, args.cols);
  const MutablePlanes planes = {out, out + at.high, out + at.sub_scales, out + at.scales};
  const size_t row_bytes = RowBytes(args.dtype, args.cols);
  int64_t first = 0;  // row of the weight that is the part's first
  for (const WeightPart& part : args.parts) {
    for (int64_t row = std::max(begin, first); row < std::min(end, first + part.rows); ++row) {
      PackRow(args.dtype, args.cols, row - begin, part.data + (row - first) * row_bytes, planes);
    }
    first += part.rows;
  }
}

std::array<GpuSlice, 4> GpuSlices(DType dtype, int64_t rows, int64_t cols, int64_t begin,
                                  int64_t end) {
  const GpuFormat& format = kGpuFormats[static_cast<size_t>(dtype)];
  const Offsets whole = OffsetsOf(dtype, rows, cols);
  const Offsets part = OffsetsOf(dtype, end - begin, cols);
  const size_t chunks = static_cast<size_t>(GpuChunks(dtype, cols));
  const size_t blocks = static_cast<size_t>(cols / Info(dtype).block_elements);
  const auto slice = [&](size_t from, size_t to, size_t row_bytes) {
    return GpuSlice{from, to + static_cast<size_t>(begin) * row_bytes,
                    static_cast<size_t>(end - begin) * row_bytes};
  };
  return {slice(0, 0, chunks * 16), slice(part.high, whole.high, chunks * 4 * format.high_words),
          slice(part.sub_scales, whole.sub_scales, chunks * format.sub_scale_bytes),
          slice(part.scales, whole.scales, blocks * format.scale_bytes)};
}

void PackGpuWeight(const PackWeightArgs& args, std::byte* out) {
  int64_t rows = 0;
  for (const WeightPart& part : args.parts) rows += part.rows;
  PackGpuRows(args, 0, rows, out);
}

}  // namespace fairlead

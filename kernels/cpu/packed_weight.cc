// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/packed_weight.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/half.h"
#ifdef FAIRLEAD_WITH_ONEDNN
#include "kernels/cpu/matmul_onednn.h"
#endif

namespace fairlead {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr int kBlock = 32;  // elements of a quantised block

// The rows of all parts as one matrix. Rows past the end are zeros.
class SourceRows {
 public:
  SourceRows(const PackWeightArgs& args, const std::byte* zeros)
      : parts_(args.parts), row_bytes_(RowBytes(args.dtype, args.cols)), zeros_(zeros) {}

  const std::byte* Row(int64_t row) const {
    for (const WeightPart& part : parts_) {
      if (row < part.rows) return part.data + row * row_bytes_;
      row -= part.rows;
    }
    return zeros_;
  }

 private:
  absl::Span<const WeightPart> parts_;
  size_t row_bytes_;
  const std::byte* zeros_;
};

// Columns per pass over the 16 rows: a tile of source and target stays in L1.
constexpr int64_t kTransposeColumns = 64;

template <typename T>
void PackPlainPanel(const std::byte* const (&rows)[kPanelRows], int64_t cols, std::byte* out) {
  T* to = reinterpret_cast<T*>(out);
  for (int64_t begin = 0; begin < cols; begin += kTransposeColumns) {
    const int64_t end = std::min(cols, begin + kTransposeColumns);
    for (int r = 0; r < kPanelRows; ++r) {
      const std::byte* from = rows[r];
      for (int64_t k = begin; k < end; ++k) {
        std::memcpy(to + k * kPanelRows + r, from + k * sizeof(T), sizeof(T));
      }
    }
  }
}

void PackQ8Panel(const std::byte* const (&rows)[kPanelRows], int64_t cols, std::byte* out) {
  constexpr int kFileBlock = 2 + kBlock;
  for (int64_t b = 0; b < cols / kBlock; ++b, out += kFileBlock * kPanelRows) {
    for (int r = 0; r < kPanelRows; ++r) {
      const std::byte* from = rows[r] + b * kFileBlock;
      std::memcpy(out + 2 * r, from, 2);
      std::byte* to = out + 2 * kPanelRows + r;
      for (int k = 0; k < kBlock; ++k) to[k * kPanelRows] = from[2 + k];
    }
  }
}

// Eight bytes whose low nibbles hold values, to one nibble each: byte i becomes nibble i.
uint32_t JoinNibbles(uint64_t bytes) {
  bytes &= 0x0f0f0f0f0f0f0f0full;
  bytes = (bytes | bytes >> 4) & 0x00ff00ff00ff00ffull;
  bytes = (bytes | bytes >> 8) & 0x0000ffff0000ffffull;
  return static_cast<uint32_t>(bytes | bytes >> 16);
}

// A file block is d (and m), then 16 bytes: byte i holds element i low and element i + 16 high.
void PackQ4Panel(const std::byte* const (&rows)[kPanelRows], int64_t cols, int scales,
                 std::byte* out) {
  const int file_block = 2 * scales + kBlock / 2;
  for (int64_t b = 0; b < cols / kBlock; ++b, out += file_block * kPanelRows) {
    for (int r = 0; r < kPanelRows; ++r) {
      const std::byte* from = rows[r] + b * file_block;
      for (int s = 0; s < scales; ++s) std::memcpy(out + 2 * (s * kPanelRows + r), from + 2 * s, 2);
      uint64_t half[2];
      std::memcpy(half, from + 2 * scales, sizeof(half));
      const uint32_t groups[4] = {JoinNibbles(half[0]), JoinNibbles(half[1]),
                                  JoinNibbles(half[0] >> 4), JoinNibbles(half[1] >> 4)};
      std::byte* to = out + 2 * scales * kPanelRows + 4 * r;
      for (int g = 0; g < 4; ++g) std::memcpy(to + g * 4 * kPanelRows, &groups[g], 4);
    }
  }
}

void PackPanel(DType dtype, const std::byte* const (&rows)[kPanelRows], int64_t cols,
               std::byte* out) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return PackPlainPanel<uint32_t>(rows, cols, out);
    case DType::kF16:
    case DType::kBF16:
      return PackPlainPanel<uint16_t>(rows, cols, out);
    case DType::kQ8_0:
      return PackQ8Panel(rows, cols, out);
    case DType::kQ4_0:
      return PackQ4Panel(rows, cols, /*scales=*/1, out);
    case DType::kQ4_1:
      return PackQ4Panel(rows, cols, /*scales=*/2, out);
  }
}

absl::StatusOr<int64_t> CheckedRows(const PackWeightArgs& args) {
  if (args.dtype == DType::kI32) {
    return absl::InvalidArgumentError(
        "weight dtype i32: allowed are f32, f16, bf16, q8_0, q4_0 and q4_1");
  }
  const int block = Info(args.dtype).block_elements;
  if (args.cols <= 0 || args.cols % block != 0) {
    return absl::InvalidArgumentError(absl::StrCat("weight of ", args.cols,
                                                   " columns: ", std::string(Info(args.dtype).name),
                                                   " needs a positive multiple of ", block));
  }
  int64_t rows = 0;
  for (const WeightPart& part : args.parts) rows += part.rows;
  if (rows <= 0) return absl::InvalidArgumentError("weight without rows: at least 1 is needed");
  return rows;
}

template <typename T>
T Load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

// One quantised block of row `lane` of a panel. Every product d * q is exact in f32, so each
// element is rounded once at most, as the fused multiply-add of the vector code does.
void DequantizeBlock(DType dtype, const std::byte* block, int lane, float* out) {
  const float d = F16ToF32(Load<uint16_t>(block + 2 * lane));
  block += 2 * kPanelRows;
  if (dtype == DType::kQ8_0) {
    for (int k = 0; k < kBlock; ++k) out[k] = d * Load<int8_t>(block + k * kPanelRows + lane);
    return;
  }
  float m = -8.0f * d;
  if (dtype == DType::kQ4_1) {
    m = F16ToF32(Load<uint16_t>(block + 2 * lane));
    block += 2 * kPanelRows;
  }
  for (int k = 0; k < kBlock; ++k) {
    const uint32_t group = Load<uint32_t>(block + (k / 8 * kPanelRows + lane) * 4);
    out[k] = d * static_cast<float>(group >> 4 * (k % 8) & 15u) + m;
  }
}

}  // namespace

CpuPackedWeight::CpuPackedWeight(DType dtype, int64_t rows, int64_t cols)
    : PackedWeight(dtype, rows, cols), panels_((rows + kPanelRows - 1) / kPanelRows) {}

CpuPackedWeight::CpuPackedWeight(DType dtype, int64_t rows, int64_t cols,
                                 std::unique_ptr<DensePlan> plan)
    : PackedWeight(dtype, rows, cols), panels_(0), plan_(std::move(plan)) {}

void CpuPackedWeight::Free::operator()(std::byte* data) const { std::free(data); }

absl::StatusOr<std::unique_ptr<CpuPackedWeight>> CpuPackedWeight::Allocate(DType dtype,
                                                                           int64_t rows,
                                                                           int64_t cols) {
  std::unique_ptr<CpuPackedWeight> weight(new CpuPackedWeight(dtype, rows, cols));
  const bool huge = weight->bytes() >= 2 * kHugePage;
  const size_t alignment = huge ? kHugePage : 64;
  const size_t bytes = (weight->bytes() + alignment - 1) / alignment * alignment;
  weight->data_.reset(static_cast<std::byte*>(std::aligned_alloc(alignment, bytes)));
  if (weight->data_ == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for a weight of ", bytes, " bytes"));
  }
  if (huge)
    madvise(weight->data_.get(), bytes, MADV_HUGEPAGE);  // a hint: failing costs TLB misses only
  return weight;
}

void CpuPackedWeight::DequantizeRow(int64_t row, float* out) const {
  const std::byte* panel_data = panel(row / kPanelRows);
  const int lane = static_cast<int>(row % kPanelRows);
  if (IsQuantized(dtype())) {
    for (int64_t k = 0; k < cols(); k += kBlock, panel_data += block_bytes()) {
      DequantizeBlock(dtype(), panel_data, lane, out + k);
    }
    return;
  }
  for (int64_t k = 0; k < cols(); ++k, panel_data += block_bytes()) {
    if (dtype() == DType::kF32) {
      out[k] = Load<float>(panel_data + 4 * lane);
    } else {
      const uint16_t bits = Load<uint16_t>(panel_data + 2 * lane);
      out[k] = dtype() == DType::kF16 ? F16ToF32(bits) : BF16ToF32(bits);
    }
  }
}

absl::StatusOr<std::unique_ptr<PackedWeight>> PackCpuWeight(const PackWeightArgs& args,
                                                            Numerics numerics, ThreadPool& pool) {
  absl::StatusOr<int64_t> rows = CheckedRows(args);
  if (!rows.ok()) return rows.status();
#ifdef FAIRLEAD_WITH_ONEDNN
  if (auto plan = PackOnednnWeight(args, *rows, numerics, pool)) {
    return std::make_unique<CpuPackedWeight>(args.dtype, *rows, args.cols, std::move(plan));
  }
#endif
  absl::StatusOr<std::unique_ptr<CpuPackedWeight>> weight =
      CpuPackedWeight::Allocate(args.dtype, *rows, args.cols);
  if (!weight.ok()) return weight.status();
  const std::unique_ptr<std::byte[]> zeros(new std::byte[RowBytes(args.dtype, args.cols)]());
  const SourceRows source(args, zeros.get());
  pool.ParallelFor((*weight)->panels(), [&](int64_t panel, int) {
    const std::byte* from[kPanelRows];
    for (int r = 0; r < kPanelRows; ++r) from[r] = source.Row(panel * kPanelRows + r);
    PackPanel(args.dtype, from, args.cols, (*weight)->mutable_panel(panel));
  });
  return std::move(*weight);
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/packed_weight.h"

#include <sys/mman.h>

#include <cstdlib>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/panel.h"
#include "kernels/pack_args.h"
#ifdef FAIRLEAD_WITH_ONEDNN
#include "kernels/cpu/matmul_onednn.h"
#endif

namespace fairlead {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

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
  weight->owned_.reset(static_cast<std::byte*>(std::aligned_alloc(alignment, bytes)));
  weight->data_ = weight->owned_.get();
  if (weight->data_ == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for a weight of ", bytes, " bytes"));
  }
  if (huge)
    madvise(weight->owned_.get(), bytes, MADV_HUGEPAGE);  // a hint: failing costs TLB misses only
  return weight;
}

std::unique_ptr<CpuPackedWeight> CpuPackedWeight::Borrow(DType dtype, int64_t rows, int64_t cols,
                                                         absl::Span<const std::byte> image) {
  std::unique_ptr<CpuPackedWeight> weight(new CpuPackedWeight(dtype, rows, cols));
  if (image.size() != weight->bytes() || reinterpret_cast<uintptr_t>(image.data()) % 64 != 0) {
    return nullptr;
  }
  weight->data_ = image.data();
  return weight;
}

void CpuPackedWeight::DequantizeRow(int64_t row, float* out) const {
  const std::byte* block = panel(row / kPanelRows);
  const int lane = static_cast<int>(row % kPanelRows);
  for (int64_t k = 0; k < cols(); k += block_k(), block += block_bytes()) {
    DequantizePanelBlock(dtype(), block, lane, out + k);
  }
}

absl::StatusOr<std::unique_ptr<PackedWeight>> PackCpuWeight(const PackWeightArgs& args,
                                                            Numerics numerics, ThreadPool& pool) {
  absl::StatusOr<int64_t> rows = RowsToPack(args);
  if (!rows.ok()) return rows.status();
#ifdef FAIRLEAD_WITH_ONEDNN
  if (auto plan = PackOnednnWeight(args, *rows, numerics, pool)) {
    return std::make_unique<CpuPackedWeight>(args.dtype, *rows, args.cols, std::move(plan));
  }
#endif
  if (!args.image.empty()) {
    if (auto weight = CpuPackedWeight::Borrow(args.dtype, *rows, args.cols, args.image)) {
      return weight;
    }
  }
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

// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/packed_weight.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cpu/panel.h"
#include "kernels/pack_args.h"
#ifdef FAIRLEAD_WITH_ONEDNN
#include "kernels/cpu/matmul_onednn.h"
#endif

namespace fairlead {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

// The rows of all parts as one matrix of `group_rows` after another.
class SourceRows {
 public:
  SourceRows(const PackWeightArgs& args, int64_t group_rows)
      : parts_(args.parts),
        row_bytes_(RowBytes(args.dtype, args.cols)),
        group_rows_(group_rows),
        zeros_(row_bytes_) {}

  // Of a group; rows past its end are zeros.
  const std::byte* Row(int64_t group, int64_t row) const {
    if (row >= group_rows_) return zeros_.data();
    row += group * group_rows_;
    for (const WeightPart& part : parts_) {
      if (row < part.rows) return part.data + row * row_bytes_;
      row -= part.rows;
    }
    return zeros_.data();
  }

 private:
  absl::Span<const WeightPart> parts_;
  size_t row_bytes_;
  int64_t group_rows_;
  std::vector<std::byte> zeros_;
};

#ifdef FAIRLEAD_WITH_ONEDNN
// The parts, or pieces of them, that are the rows [begin, end).
std::vector<WeightPart> PartsOf(const PackWeightArgs& args, int64_t begin, int64_t end) {
  std::vector<WeightPart> parts;
  int64_t first = 0;  // row that is the part's first
  for (const WeightPart& part : args.parts) {
    const int64_t from = std::max(begin, first), to = std::min(end, first + part.rows);
    if (from < to) {
      parts.push_back({part.data + (from - first) * RowBytes(args.dtype, args.cols), to - from});
    }
    first += part.rows;
  }
  return parts;
}

// One for each group, or none.
std::vector<std::unique_ptr<DensePlan>> PackPlans(const PackWeightArgs& args, int64_t group_rows,
                                                  Numerics numerics, ThreadPool& pool) {
  std::vector<std::unique_ptr<DensePlan>> plans;
  for (int64_t g = 0; g < args.groups; ++g) {
    const std::vector<WeightPart> parts = PartsOf(args, g * group_rows, (g + 1) * group_rows);
    PackWeightArgs group = args;
    group.parts = parts;
    group.groups = 1;
    auto plan = PackOnednnWeight(group, group_rows, numerics, pool);
    if (plan == nullptr) return {};
    plans.push_back(std::move(plan));
  }
  return plans;
}
#endif

}  // namespace

CpuPackedWeight::CpuPackedWeight(DType dtype, int64_t rows, int64_t cols, int groups)
    : PackedWeight(dtype, rows, cols, groups),
      panels_(groups * ((group_rows() + kPanelRows - 1) / kPanelRows)) {}

CpuPackedWeight::CpuPackedWeight(DType dtype, int64_t rows, int64_t cols,
                                 std::vector<std::unique_ptr<DensePlan>> plans)
    : PackedWeight(dtype, rows, cols, static_cast<int>(plans.size())), panels_(0) {
  if (plans.size() == 1) {
    plan_ = std::move(plans[0]);
    return;
  }
  for (std::unique_ptr<DensePlan>& plan : plans) {
    std::vector<std::unique_ptr<DensePlan>> own;
    own.push_back(std::move(plan));
    groups_.push_back(std::make_unique<CpuPackedWeight>(dtype, group_rows(), cols, std::move(own)));
  }
}

size_t CpuPackedWeight::bytes() const {
  if (panels_ > 0) return panels_ * panel_bytes();
  if (plan_ != nullptr) return plan_->bytes();
  size_t bytes = 0;
  for (const auto& group : groups_) bytes += group->bytes();
  return bytes;
}

void CpuPackedWeight::SetData(const std::byte* data) {
  data_ = data;
  if (groups() == 1) return;
  for (int i = 0; i < groups(); ++i) {
    groups_.emplace_back(new CpuPackedWeight(dtype(), group_rows(), cols(), 1));
    groups_.back()->data_ = panel(i * group_panels());
  }
}

void CpuPackedWeight::Free::operator()(std::byte* data) const { std::free(data); }

absl::StatusOr<std::unique_ptr<CpuPackedWeight>> CpuPackedWeight::Allocate(DType dtype,
                                                                           int64_t rows,
                                                                           int64_t cols,
                                                                           int groups) {
  std::unique_ptr<CpuPackedWeight> weight(new CpuPackedWeight(dtype, rows, cols, groups));
  const bool huge = weight->bytes() >= 2 * kHugePage;
  const size_t alignment = huge ? kHugePage : 64;
  const size_t bytes = (weight->bytes() + alignment - 1) / alignment * alignment;
  weight->owned_.reset(static_cast<std::byte*>(std::aligned_alloc(alignment, bytes)));
  if (weight->owned_ == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for a weight of ", bytes, " bytes"));
  }
  weight->SetData(weight->owned_.get());
  if (huge)
    madvise(weight->owned_.get(), bytes, MADV_HUGEPAGE);  // a hint: failing costs TLB misses only
  return weight;
}

std::unique_ptr<CpuPackedWeight> CpuPackedWeight::Borrow(DType dtype, int64_t rows, int64_t cols,
                                                         int groups,
                                                         absl::Span<const std::byte> image) {
  std::unique_ptr<CpuPackedWeight> weight(new CpuPackedWeight(dtype, rows, cols, groups));
  if (image.size() != weight->bytes() || reinterpret_cast<uintptr_t>(image.data()) % 64 != 0) {
    return nullptr;
  }
  weight->SetData(image.data());
  return weight;
}

void CpuPackedWeight::DequantizeRow(int64_t row, float* out) const {
  const std::byte* block = panel(row / kPanelRows);
  const int lane = static_cast<int>(row % kPanelRows);
  for (int64_t k = 0; k < cols(); k += block_k(), block += block_bytes()) {
    DequantizePanelBlock(dtype(), block, lane, out + k);
  }
}

void CpuPackedWeight::AddRow(int64_t row, float* out) const {
  constexpr int kLargestBlock = 256;
  FAIRLEAD_CHECK(block_k() <= kLargestBlock);
  const std::byte* block = panel(row / kPanelRows);
  const int lane = static_cast<int>(row % kPanelRows);
  float values[kLargestBlock];
  for (int64_t k = 0; k < cols(); k += block_k(), block += block_bytes()) {
    DequantizePanelBlock(dtype(), block, lane, values);
    for (int i = 0; i < block_k(); ++i) out[k + i] += values[i];
  }
}

absl::StatusOr<std::unique_ptr<PackedWeight>> PackCpuWeight(const PackWeightArgs& args,
                                                            Numerics numerics, ThreadPool& pool) {
  absl::StatusOr<int64_t> rows = RowsToPack(args);
  if (!rows.ok()) return rows.status();
#ifdef FAIRLEAD_WITH_ONEDNN
  if (auto plans = PackPlans(args, *rows / args.groups, numerics, pool); !plans.empty()) {
    return std::make_unique<CpuPackedWeight>(args.dtype, *rows, args.cols, std::move(plans));
  }
#endif
  if (!args.image.empty()) {
    if (auto weight =
            CpuPackedWeight::Borrow(args.dtype, *rows, args.cols, args.groups, args.image)) {
      return weight;
    }
  }
  absl::StatusOr<std::unique_ptr<CpuPackedWeight>> weight =
      CpuPackedWeight::Allocate(args.dtype, *rows, args.cols, args.groups);
  if (!weight.ok()) return weight.status();
  const SourceRows source(args, (*weight)->group_rows());
  const int64_t group_panels = (*weight)->group_panels();
  pool.ParallelFor((*weight)->panels(), [&](int64_t panel, int) {
    const std::byte* from[kPanelRows];
    const int64_t first = panel % group_panels * kPanelRows;
    for (int r = 0; r < kPanelRows; ++r) from[r] = source.Row(panel / group_panels, first + r);
    PackPanel(args.dtype, from, args.cols, (*weight)->mutable_panel(panel));
  });
  return std::move(*weight);
}

}  // namespace fairlead

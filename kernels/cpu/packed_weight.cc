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
constexpr size_t kLeastOfWaste = 32;  // wasted bytes are at most one in so many

// Of a weight whose parts are made, so many are made and packed at once: a source may hold
// neighbouring rows side by side.
constexpr int64_t kMadePanels = 8;

#ifdef FAIRLEAD_WITH_ONEDNN
// One for each group, or none.
std::vector<std::unique_ptr<DensePlan>> PackPlans(const PackWeightArgs& args, int64_t group_rows,
                                                  Numerics numerics, ThreadPool& pool) {
  std::vector<std::unique_ptr<DensePlan>> plans;
  for (int64_t g = 0; g < args.groups; ++g) {
    const std::vector<WeightPart> parts = CutParts(args, g * group_rows, (g + 1) * group_rows);
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

// Panels of a group, from `begin` on. Rows past the group's end are zeros.
void PackSlab(const PackWeightArgs& args, int64_t group, int64_t begin, int64_t end,
              const std::vector<std::byte>& zeros, CpuPackedWeight& weight) {
  const int64_t before = group * weight.group_rows();
  const PartsInMemory source(args, before + begin * kPanelRows,
                             before + std::min(end * kPanelRows, weight.group_rows()));
  auto part = source.parts().begin();
  int64_t row = 0;  // of the part
  for (int64_t panel = begin; panel < end; ++panel) {
    const std::byte* from[kPanelRows];
    for (const std::byte*& data : from) {
      if (part != source.parts().end() && row == part->rows) {
        ++part;
        row = 0;
      }
      const bool ended = part == source.parts().end();
      data = ended ? zeros.data() : part->data + static_cast<size_t>(row++) * zeros.size();
    }
    PackPanel(args.dtype, from, args.cols,
              weight.mutable_panel(group * weight.group_panels() + panel));
  }
}

void PackPanels(const PackWeightArgs& args, ThreadPool& pool, CpuPackedWeight& weight) {
  const bool is_made = std::any_of(args.parts.begin(), args.parts.end(),
                                   [](const WeightPart& part) { return bool{part.make}; });
  const int64_t panels = weight.group_panels(), most = is_made ? kMadePanels : 1;
  const int64_t slabs = (panels + most - 1) / most;  // of a group
  const std::vector<std::byte> zeros(RowBytes(args.dtype, args.cols));
  pool.ParallelFor(slabs * args.groups, [&](int64_t slab, int) {
    const int64_t begin = slab % slabs * most;
    PackSlab(args, slab / slabs, begin, std::min(begin + most, panels), zeros, weight);
  });
}

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
  // A huge page at the end is there as a whole: only where that wastes little.
  const size_t in_huge_pages =
      (bytes - weight->bytes()) * kLeastOfWaste <= bytes ? bytes : bytes - kHugePage;
  weight->owned_.reset(static_cast<std::byte*>(std::aligned_alloc(alignment, bytes)));
  if (weight->owned_ == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for a weight of ", bytes, " bytes"));
  }
  weight->SetData(weight->owned_.get());
  if (huge)
    madvise(weight->owned_.get(), in_huge_pages, MADV_HUGEPAGE);  // failing costs TLB misses only
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
  PackPanels(args, pool, **weight);
  return std::move(*weight);
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/weight_upload.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace fairlead::FAIRLEAD_GPU {

WeightUpload::WeightUpload(int device, int threads) : device_(device), pool_(threads) {
  for (int i = 0; i < pool_.threads(); ++i) lanes_.push_back({.stream = CreateStream(device)});
}

WeightUpload::~WeightUpload() {
  ReleaseSlabs();
  for (const Lane& lane : lanes_) DestroyStream(lane.stream);
}

void WeightUpload::ReleaseSlabs() {
  for (Lane& lane : lanes_) {
    if (lane.slab != nullptr) ReleasePinned(device_, lane.slab);
    lane.slab = nullptr;
  }
  slab_bytes_ = 0;
}

absl::Status WeightUpload::Reserve(size_t bytes) {
  if (bytes <= slab_bytes_) return absl::OkStatus();
  ReleaseSlabs();
  for (Lane& lane : lanes_) {
    lane.slab = static_cast<std::byte*>(AllocatePinned(device_, bytes));
    if (lane.slab == nullptr) {
      ReleaseSlabs();
      return absl::ResourceExhaustedError(
          absl::StrCat("cannot pin ", lanes_.size(), " times ", bytes,
                       " bytes of host memory, which loading weights takes"));
    }
  }
  slab_bytes_ = bytes;
  return absl::OkStatus();
}

// Rows that a thread packs at once.
int64_t WeightUpload::SlabRows(const PackWeightArgs& args, int64_t rows) {
  const auto tile_bytes = static_cast<int64_t>(GpuPackedBytes(args.dtype, kTileRows, args.cols));
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  return kTileRows * std::clamp<int64_t>(static_cast<int64_t>(kSlabBytes) / tile_bytes, 1, tiles);
}

// copy(lane, slice): a part of the lane's slab to where it belongs.
template <typename Copy>
absl::Status WeightUpload::Pack(const PackWeightArgs& args, int64_t rows, const Copy& copy) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int64_t slab_rows = SlabRows(args, rows);
  const size_t bytes = GpuPackedBytes(args.dtype, slab_rows, args.cols);
  if (absl::Status status = Reserve(std::max(bytes, kSlabBytes)); !status.ok()) return status;
  pool_.ParallelFor((rows + slab_rows - 1) / slab_rows, [&](int64_t slab, int worker) {
    const Lane& lane = lanes_[static_cast<size_t>(worker)];
    const int64_t begin = slab * slab_rows, end = std::min(begin + slab_rows, rows);
    Wait(lane.stream);  // what is in the slab has been copied
    PackGpuRows(args, begin, end, lane.slab);
    for (const GpuSlice& slice : GpuSlices(args.dtype, rows, args.cols, begin, end)) {
      if (slice.bytes > 0) copy(lane, slice);
    }
  });
  for (const Lane& lane : lanes_) Wait(lane.stream);
  return absl::OkStatus();
}

absl::Status WeightUpload::Upload(const PackWeightArgs& args, int64_t rows, std::byte* data) {
  return Pack(args, rows, [data](const Lane& lane, const GpuSlice& slice) {
    CopyToDevice(lane.stream, data + slice.to, lane.slab + slice.from, slice.bytes);
  });
}

absl::Status WeightUpload::PackToHost(const PackWeightArgs& args, int64_t rows, std::byte* data) {
  return Pack(args, rows, [data](const Lane& lane, const GpuSlice& slice) {
    std::memcpy(data + slice.to, lane.slab + slice.from, slice.bytes);
  });
}

}  // namespace fairlead::FAIRLEAD_GPU

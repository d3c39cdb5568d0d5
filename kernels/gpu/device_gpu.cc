// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/device_gpu.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cpu/host_info.h"
#include "kernels/gpu/experts.h"
#include "kernels/gpu/kv_layout.h"
#include "kernels/gpu/matmul_mma.h"
#include "kernels/gpu/ops_gpu.h"
#include "kernels/gpu/packed_weight.h"
#include "kernels/gpu/stream_gpu.h"
#include "kernels/gpu/weight_upload.h"
#include "kernels/pack_args.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

// Of the host, that pack weights; these make as many bytes as the bus takes.
constexpr int kLoadThreads = 8;

DeviceInfo MakeInfo(std::string_view name, int index, Numerics numerics, DType kv_dtype) {
  const GpuSummary gpu = DescribeDevice(index);
  return {.name = std::string(name),
          .description = gpu.description,
          .numerics = numerics,
          .activation_dtype = DType::kF32,
          .kv_dtype = kv_dtype,
          .memory_bytes = gpu.memory_bytes,
          .weight_dtypes = {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0,
                            DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K,
                            DType::kQ6_K, DType::kIQ4_NL, DType::kMXFP4, DType::kIQ4_XS,
                            DType::kQ3_K, DType::kQ2_K},
          .streams_weights = true,
          .graphs = true,
          .asynchronous = true};
}

// A stream's own: attention's sums of splits, and a matmul's rounded activations. A decode of one
// sequence takes 1 MiB for some 8,000 tokens of context (32 heads of 128), 64 tokens by 65,000
// columns take 8 MiB; where there is not enough for all, splits and tokens take turns, with the
// same results. What is free is told without that of one stream, so that it is there for it.
constexpr size_t kLeastScratch = size_t{8} << 20, kMostScratch = size_t{64} << 20;
size_t ScratchBytes(size_t memory_bytes) {
  return std::clamp(memory_bytes / 2048 / 256 * 256, kLeastScratch, kMostScratch);
}

class GpuDevice final : public Device {
 public:
  GpuDevice(int index, DeviceInfo info, int threads)
      : index_(index),
        info_(std::move(info)),
        upload_(index, threads),
        ops_(info_.kv_dtype, info_.numerics) {}

  const DeviceInfo& info() const override { return info_; }
  size_t FreeMemory() const override {
    const size_t available = AvailableMemory(index_);
    const size_t kept = ScratchBytes(info_.memory_bytes) + WeightRingBytes(*streamed_);
    return available - std::min(available, kept);
  }
  absl::StatusOr<Buffer> Allocate(size_t bytes) override;
  size_t KvBlockBytes(const KvShape& shape) const override {
    return KvLayout(shape, info_.kv_dtype).block_bytes();
  }
  size_t PackedBytes(DType dtype, int64_t rows, int64_t cols, int groups) const override {
    constexpr size_t kPage = size_t{2} << 20;  // as drivers round an allocation
    return (GpuPackedBytes(dtype, GpuRows(rows, groups), cols) + kPage - 1) / kPage * kPage;
  }
  absl::StatusOr<std::unique_ptr<PackedWeight>> PackWeight(const PackWeightArgs& args) override;
  std::unique_ptr<Stream> NewStream() override;
  const Ops& ops() const override { return ops_; }
  DeviceTelemetry Telemetry() const override { return ReadTelemetry(index_); }

 private:
  absl::StatusOr<std::unique_ptr<PackedWeight>> PackStreamed(const PackWeightArgs& args,
                                                             int64_t rows);

  const int index_;
  const DeviceInfo info_;
  const std::shared_ptr<StreamedWeights> streamed_ = std::make_shared<StreamedWeights>();
  WeightUpload upload_;
  const GpuOps ops_;
};

absl::StatusOr<Buffer> GpuDevice::Allocate(size_t bytes) {
  const size_t free = FreeMemory();
  void* data = bytes <= free ? AllocateMemory(index_, bytes) : nullptr;
  if (data == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat(info_.name, ": cannot allocate ", bytes, " bytes; ", free, " bytes are free"));
  }
  return Buffer(data, bytes, [index = index_](void* p) { ReleaseMemory(index, p); });
}

std::unique_ptr<Stream> GpuDevice::NewStream() {
  size_t bytes = ScratchBytes(info_.memory_bytes);
  void* data = AllocateMemory(index_, bytes);
  while (data == nullptr && bytes > kLeastScratch) {
    bytes /= 2;
    data = AllocateMemory(index_, bytes);
  }
  FAIRLEAD_CHECK_MSG(data != nullptr,
                     absl::StrCat(info_.name, ": no memory for a stream's ", bytes, " bytes"));
  return std::make_unique<GpuStream>(
      index_, Buffer(data, bytes, [index = index_](void* p) { ReleaseMemory(index, p); }),
      streamed_);
}

absl::StatusOr<std::unique_ptr<PackedWeight>> GpuDevice::PackStreamed(const PackWeightArgs& args,
                                                                      int64_t rows) {
  const size_t bytes = GpuPackedBytes(args.dtype, GpuRows(rows, args.groups), args.cols);
  void* data = AllocatePinned(index_, bytes);
  if (data == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat(info_.name, ": cannot pin ", bytes,
                     " bytes of host memory for weights that do not stay on the GPU"));
  }
  Buffer host(data, bytes, [index = index_](void* p) { ReleasePinned(index, p); });
  if (absl::Status status =
          upload_.PackToHost(args, GpuRows(rows, args.groups), static_cast<std::byte*>(data));
      !status.ok()) {
    return status;
  }
  return std::make_unique<GpuPackedWeight>(args.dtype, rows, args.cols, args.groups,
                                           std::move(host), streamed_);
}

absl::StatusOr<std::unique_ptr<PackedWeight>> GpuDevice::PackWeight(const PackWeightArgs& given) {
  const absl::StatusOr<int64_t> rows = RowsToPack(given);
  if (!rows.ok()) return rows.status();
  const PartsInMemory source(given, 0, *rows);
  PackWeightArgs args = given;
  args.parts = source.parts();
  if (info_.numerics != Numerics::kFloat32 &&
      MmaMemoryBytes(args.dtype, args.cols, kMmaTogether) +
              ExpertTiles::MemoryBytes(RouteArgs::kMaxSlots, args.groups, 1) >
          kLeastScratch) {
    return absl::InvalidArgumentError(absl::StrCat(info_.name, ": a weight of ", args.cols,
                                                   " columns; only float32 numerics take so many"));
  }
  if (args.streamed && args.embedding) {
    return absl::InvalidArgumentError("a table of embeddings stays on the device");
  }
  if (args.streamed) return PackStreamed(args, *rows);
  const int64_t plane_rows = GpuRows(*rows, args.groups);
  const size_t bytes = GpuPackedBytes(args.dtype, plane_rows, args.cols);
  absl::StatusOr<Buffer> buffer = Allocate(bytes);
  if (!buffer.ok()) return buffer.status();
  if (absl::Status status =
          upload_.Upload(args, plane_rows, static_cast<std::byte*>(buffer->data()));
      !status.ok()) {
    return status;
  }
  return std::make_unique<GpuPackedWeight>(args.dtype, *rows, args.cols, args.groups,
                                           *std::move(buffer));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenGpuDevice(std::string_view name, int index,
                                                      const DeviceOptions& options) {
  const DType fallback = options.numerics == Numerics::kFloat32 ? DType::kF32 : DType::kF16;
  const DType kv_dtype = options.kv_dtype.value_or(fallback);
  if (kv_dtype != DType::kF32 && kv_dtype != DType::kF16 && kv_dtype != DType::kBF16 &&
      kv_dtype != DType::kQ8_0 && kv_dtype != DType::kF8_E4M3) {
    return absl::InvalidArgumentError(
        absl::StrCat("a KV cache of ", std::string(Info(kv_dtype).name),
                     "; allowed are f32, f16, bf16, q8_0 and f8_e4m3"));
  }
  const int threads = std::min(options.threads > 0 ? options.threads : UsableCpus(), kLoadThreads);
  return std::make_unique<GpuDevice>(index, MakeInfo(name, index, options.numerics, kv_dtype),
                                     threads);
}

}  // namespace fairlead::FAIRLEAD_GPU

// SPDX-License-Identifier: Apache-2.0
#include "tests/reference/reference_device.h"

#include <atomic>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "kernels/pack_args.h"
#include "kernels/strings.h"
#include "tests/reference/reference_ops.h"

namespace fairlead::reference {
namespace {

constexpr std::align_val_t kAlignment{64};

class ReferenceStream : public Stream {
 public:
  void CopyToDevice(void* device, const void* host, size_t bytes) override {
    if (bytes > 0) std::memcpy(device, host, bytes);
  }
  void CopyToHost(void* host, const void* device, size_t bytes) override {
    if (bytes > 0) std::memcpy(host, device, bytes);
  }
  void Wait() override {}
};

class ReferenceDevice : public Device {
 public:
  explicit ReferenceDevice(const ReferenceOptions& options)
      : plain_ops_(options.kv_dtype), ops_(MakeCheckedOps(plain_ops_)) {
    info_.name = "reference";
    info_.description = "naive scalar arithmetic";
    info_.numerics = Numerics::kFloat32;
    info_.activation_dtype = DType::kF32;
    info_.kv_dtype = options.kv_dtype;
    info_.memory_bytes = options.memory_bytes;
    info_.weight_dtypes = {DType::kF32,   DType::kF16,    DType::kBF16, DType::kQ8_0,
                           DType::kQ4_0,  DType::kQ4_1,   DType::kQ5_0, DType::kQ5_1,
                           DType::kQ4_K,  DType::kQ5_K,   DType::kQ6_K, DType::kIQ4_NL,
                           DType::kMXFP4, DType::kIQ4_XS, DType::kQ3_K, DType::kQ2_K};
  }

  const DeviceInfo& info() const override { return info_; }
  size_t FreeMemory() const override { return info_.memory_bytes - used_bytes_; }

  absl::StatusOr<Buffer> Allocate(size_t bytes) override {
    if (bytes > info_.memory_bytes || used_bytes_.fetch_add(bytes) > info_.memory_bytes - bytes) {
      if (bytes <= info_.memory_bytes) used_bytes_ -= bytes;
      return absl::ResourceExhaustedError(
          StrCat("reference: ", bytes, " bytes do not fit in ", FreeMemory()));
    }
    void* data = ::operator new(bytes, kAlignment);
    std::memset(data, 0, bytes);
    return Buffer(data, bytes, [this, bytes](void* freed) {
      ::operator delete(freed, kAlignment);
      used_bytes_ -= bytes;
    });
  }

  size_t KvBlockBytes(const KvShape& shape) const override {
    return KvView::BlockBytes(shape, info_.kv_dtype);
  }

  absl::StatusOr<std::unique_ptr<PackedWeight>> PackWeight(const PackWeightArgs& args) override {
    if (!IsWeightType(args.dtype) || args.cols <= 0 ||
        args.cols % Info(args.dtype).block_elements != 0) {
      return absl::InvalidArgumentError(StrCat("reference: no weights of ", Info(args.dtype).name,
                                               " with ", args.cols, " columns"));
    }
    int64_t rows = 0;
    for (const WeightPart& part : args.parts) rows += part.rows;
    const PartsInMemory source(args, 0, rows);
    std::vector<std::byte> data;
    for (const WeightPart& part : source.parts()) {
      data.insert(data.end(), part.data,
                  part.data + static_cast<size_t>(part.rows) * RowBytes(args.dtype, args.cols));
    }
    if (args.groups < 1 || rows % args.groups != 0) {
      return absl::InvalidArgumentError(
          StrCat("reference: ", rows, " rows in ", args.groups, " groups"));
    }
    return std::make_unique<ReferenceWeight>(args.dtype, rows, args.cols, args.groups,
                                             std::move(data));
  }

  std::unique_ptr<Stream> NewStream() override { return std::make_unique<ReferenceStream>(); }
  const Ops& ops() const override { return *ops_; }

 private:
  DeviceInfo info_;
  std::atomic<size_t> used_bytes_{0};
  ReferenceOps plain_ops_;
  std::unique_ptr<Ops> ops_;
};

}  // namespace

std::unique_ptr<Device> MakeReferenceDevice(const ReferenceOptions& options) {
  return std::make_unique<ReferenceDevice>(options);
}

}  // namespace fairlead::reference

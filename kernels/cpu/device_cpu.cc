// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/device_cpu.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/host_info.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/ops_cpu.h"
#include "kernels/cpu/simd_matmul.h"
#include "kernels/cpu/tile_attention.h"

namespace fairlead {
namespace {

constexpr int kMaxThreads = 1024;
constexpr size_t kHugePageBytes = size_t{2} << 20;

class CpuStream final : public Stream {
 public:
  void CopyToDevice(void* device, const void* host, size_t bytes) override {
    if (bytes > 0) std::memcpy(device, host, bytes);
  }
  void CopyToHost(void* host, const void* device, size_t bytes) override {
    if (bytes > 0) std::memcpy(host, device, bytes);
  }
  void Wait() override {}
};

// "amx_int8, ": what multiplies quantised weights, where that is not f32.
std::string Int8Description(Numerics numerics) {
  const Int8Mode mode = Int8ModeFor(numerics);
  return mode.kernels == nullptr ? "" : absl::StrCat(mode.kernels->name, ", ");
}

KvFormat DefaultKvFormat(Numerics numerics) {
  if (numerics == Numerics::kFloat32) return {.dtype = DType::kF32};
  if (numerics == Numerics::kFast && TileAttention() != nullptr) {
    return {.dtype = DType::kBF16, .paired = true};
  }
  return {.dtype = DType::kF16};
}

DeviceInfo MakeInfo(Numerics numerics, DType kv_dtype, int threads) {
  return {.name = "cpu",
          .description = absl::StrCat(
              CpuModelName(), ", ", absl::AsciiStrToLower(std::string(SimdTargetName())), ", ",
              Int8Description(numerics), threads, threads == 1 ? " thread" : " threads"),
          .numerics = numerics,
          .activation_dtype = DType::kF32,
          .kv_dtype = kv_dtype,
          .memory_bytes = TotalMemoryBytes(),
          .weight_dtypes = {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0,
                            DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K,
                            DType::kQ6_K, DType::kIQ4_NL, DType::kMXFP4, DType::kIQ4_XS,
                            DType::kQ3_K, DType::kQ2_K}};
}

class CpuDevice final : public Device {
 public:
  CpuDevice(Numerics numerics, const KvFormat& kv_format, int threads)
      : info_(MakeInfo(numerics, kv_format.dtype, threads)),
        kv_format_(kv_format),
        ops_(threads, kv_format, Int8ModeFor(numerics)) {}

  const DeviceInfo& info() const override { return info_; }
  size_t FreeMemory() const override { return FreeMemoryBytes(); }
  absl::StatusOr<Buffer> Allocate(size_t bytes) override;

  bool Populate(void* data, size_t bytes) override;
  size_t KvBlockBytes(const KvShape& shape) const override {
    return KvLayout(shape, kv_format_).block_bytes();
  }

  absl::StatusOr<std::unique_ptr<PackedWeight>> PackWeight(const PackWeightArgs& args) override {
    return ops_.PackWeight(args, info_.numerics);
  }

  std::unique_ptr<Stream> NewStream() override { return std::make_unique<CpuStream>(); }
  const Ops& ops() const override { return ops_; }

 private:
  const DeviceInfo info_;
  const KvFormat kv_format_;
  const CpuOps ops_;
};

// The kernel zeroes pages when they are first touched, so a large cache costs nothing until it is
// used.
absl::StatusOr<Buffer> CpuDevice::Allocate(size_t bytes) {
  const size_t free = FreeMemory();
  const size_t mapped = std::max<size_t>(bytes, 1);
  void* data = MAP_FAILED;
  if (bytes <= free) {
    data = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cpu: cannot allocate ", bytes, " bytes; ", free, " bytes are free"));
  }
  // Fewer TLB misses for weights and caches; only a hint, so a refusal changes nothing.
  if (mapped >= kHugePageBytes) madvise(data, mapped, MADV_HUGEPAGE);
  return Buffer(data, bytes, [mapped](void* p) { munmap(p, mapped); });
}

// Linux 5.14; older ones say EINVAL.
bool CpuDevice::Populate(void* data, size_t bytes) {
  constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE, which C libraries know since 2.34
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes + page - 1) / page * page;
  return madvise(reinterpret_cast<void*>(begin), end - begin, kPopulateWrite) == 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenCpuDevice(const DeviceOptions& options) {
  if (options.threads < 0 || options.threads > kMaxThreads) {
    return absl::InvalidArgumentError(absl::StrCat("threads: ", options.threads,
                                                   "; allowed are 1 to ", kMaxThreads,
                                                   ", or 0 for one per usable core"));
  }
  KvFormat kv_format = DefaultKvFormat(options.numerics);
  const DType kv_dtype = options.kv_dtype.value_or(kv_format.dtype);
  if (kv_dtype != kv_format.dtype) kv_format = {.dtype = kv_dtype};
  if (kv_dtype != DType::kF32 && kv_dtype != DType::kF16 && kv_dtype != DType::kBF16 &&
      kv_dtype != DType::kQ8_0 && kv_dtype != DType::kF8_E4M3) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv_dtype: ", std::string(Info(kv_dtype).name),
                     "; the cpu's caches are f32, f16, bf16, q8_0 or f8_e4m3"));
  }
  const int threads = options.threads > 0 ? options.threads : std::min(UsableCpus(), kMaxThreads);
  return std::make_unique<CpuDevice>(options.numerics, kv_format, threads);
}

}  // namespace fairlead

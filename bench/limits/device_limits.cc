// SPDX-License-Identifier: Apache-2.0
#include "bench/limits/device_limits.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <utility>

#include "bench/common/device_tensors.h"
#include "bench/common/launch_timer.h"
#include "kernels/ops.h"

namespace fairlead::bench {
namespace {

constexpr int64_t kColumns = 4096;  // of the matrix that is copied

class Measurement {
 public:
  Measurement(Device& device, const DeviceLimitOptions& options)
      : device_(device), options_(options), stream_(device.NewStream()) {}

  // Each adds its limits.
  absl::Status Memory() {
    const DType dtype = device_.info().activation_dtype;
    const auto rows = std::max<int64_t>(
        1, static_cast<int64_t>(options_.memory_bytes / RowBytes(dtype, 2 * kColumns)));
    DeviceTensors tensors(device_, *stream_);
    std::vector<int32_t> row(2 * rows);
    std::iota(row.begin(), row.end(), 0);
    const Tensor x = tensors.Activations({2 * rows, kColumns});
    const Tensor out = tensors.Output(dtype, {2 * rows, kColumns});
    const Tensor index = tensors.Ints(row, {2 * rows});
    if (!tensors.status().ok()) return tensors.status();
    const Tensor pairs(x.data, dtype, {rows, 2 * kColumns});
    const Tensor gated(out.data, dtype, {rows, kColumns});
    const auto bytes = static_cast<double>(x.bytes());
    Add("memory_copy", "GatherRows", "GB/s", 2 * bytes,
        [&] { device_.ops().GatherRows(*stream_, {.x = x, .row = index, .out = out}); });
    Add("memory_copy", "ActivateAndMul", "GB/s", 1.5 * bytes, [&] {
      device_.ops().ActivateAndMul(*stream_,
                                   {.x = pairs, .out = gated, .activation = Activation::kSilu});
    });
    return absl::OkStatus();
  }

  absl::Status Matmul(DType dtype) {
    const int64_t n = options_.matmul;
    DeviceTensors tensors(device_, *stream_);
    const Tensor x = tensors.Activations({n, n});
    const Tensor out = tensors.Output(device_.info().activation_dtype, {n, n});
    if (!tensors.status().ok()) return tensors.status();
    const std::vector<std::byte> bytes = RandomMatrix(dtype, n, n);
    const WeightPart part{bytes.data(), n};
    const auto weight =
        device_.PackWeight({.dtype = dtype, .cols = n, .parts = absl::MakeConstSpan(&part, 1)});
    if (!weight.ok()) return weight.status();
    const double operations = 2.0 * static_cast<double>(n) * static_cast<double>(n * n);
    Add("matmul", std::string(Info(dtype).name), "GFLOP/s", operations,
        [&] { device_.ops().Matmul(*stream_, {.x = x, .weight = weight->get(), .out = out}); });
    return absl::OkStatus();
  }

  absl::Status Transfers() {
    std::vector<std::byte> host(options_.transfer_bytes, std::byte{1});
    auto buffer = device_.Allocate(host.size());
    if (!buffer.ok()) return buffer.status();
    void* data = buffer->data();
    const auto bytes = static_cast<double>(host.size());
    Add("host_to_device", "", "GB/s", bytes,
        [&] { stream_->CopyToDevice(data, host.data(), host.size()); });
    Add("device_to_host", "", "GB/s", bytes,
        [&] { stream_->CopyToHost(host.data(), data, host.size()); });
    return absl::OkStatus();
  }

  std::vector<Limit> TakeLimits() { return std::move(limits_); }

 private:
  void Add(std::string name, std::string isa, std::string unit, double work,
           const std::function<void()>& launch) {
    Limit limit{.name = std::move(name), .isa = std::move(isa), .unit = std::move(unit)};
    const LaunchTiming timing = {.repetitions = options_.repetitions, .time = options_.time};
    for (const double seconds : TimeLaunches(*stream_, launch, timing))
      limit.samples.push_back(work / seconds / 1e9);
    limits_.push_back(std::move(limit));
  }

  Device& device_;
  const DeviceLimitOptions& options_;
  const std::unique_ptr<Stream> stream_;
  std::vector<Limit> limits_;
};

}  // namespace

absl::StatusOr<std::vector<Limit>> MeasureDeviceLimits(Device& device,
                                                       const DeviceLimitOptions& options) {
  Measurement measurement(device, options);
  absl::Status status = measurement.Memory();
  const std::vector<DType>& has = device.info().weight_dtypes;
  for (const DType dtype : options.dtypes) {
    if (status.ok() && std::find(has.begin(), has.end(), dtype) != has.end())
      status = measurement.Matmul(dtype);
  }
  if (status.ok()) status = measurement.Transfers();
  if (!status.ok()) return status;
  return measurement.TakeLimits();
}

DeviceLimitOptions TinyDeviceLimits() {
  return {.memory_bytes = size_t{1} << 20,
          .transfer_bytes = size_t{1} << 20,
          .matmul = 256,
          .repetitions = 2,
          .time = absl::Milliseconds(5)};
}

}  // namespace fairlead::bench

// SPDX-License-Identifier: Apache-2.0
// The only seam between this program and an accelerator. No vendor header here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/dtype.h"
#include "kernels/telemetry.h"
#include "kernels/tensor.h"

namespace fairlead {

// Named trade-offs between speed and fidelity, the same on every device (kernels/README.md states
// who rounds where).
enum class Numerics { kFloat32, kPrecise, kFast };
std::string_view NumericsName(Numerics numerics);

// Owned device memory, freed on destruction. Move-only. Allocated before "ready", never in the step
// loop.
class Buffer {
 public:
  Buffer() = default;
  Buffer(void* data, size_t bytes, std::function<void(void*)> release)
      : data_(data), bytes_(bytes), release_(std::move(release)) {}
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    if (this == &other) return *this;
    Reset();
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    release_ = std::exchange(other.release_, nullptr);
    return *this;
  }
  ~Buffer() { Reset(); }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void Reset() {
    if (data_ != nullptr && release_) release_(data_);
    data_ = nullptr;
  }

  void* data_ = nullptr;
  size_t bytes_ = 0;
  std::function<void(void*)> release_;
};

// A weight matrix [rows, cols] in the layout its device multiplies best, in the dtype of the file
// (never widened). Made once at load by Device::PackWeight, immutable afterwards; ops of the same
// device read it.
class PackedWeight {
 public:
  PackedWeight(DType dtype, int64_t rows, int64_t cols, int groups = 1)
      : dtype_(dtype), rows_(rows), cols_(cols), groups_(groups) {}
  virtual ~PackedWeight() = default;
  PackedWeight(const PackedWeight&) = delete;
  PackedWeight& operator=(const PackedWeight&) = delete;

  DType dtype() const { return dtype_; }
  int64_t rows() const { return rows_; }  // outputs, of all groups
  int64_t cols() const { return cols_; }  // inputs
  int groups() const { return groups_; }  // PackWeightArgs::groups
  int64_t group_rows() const { return rows_ / groups_; }
  virtual size_t bytes() const = 0;  // device memory it holds
  // Host memory it holds instead, from where it is copied for every use (PackWeightArgs::streamed).
  virtual size_t host_bytes() const { return 0; }
  // All of it as bytes that may be kept and given back in PackWeightArgs::image. Empty where the
  // layout is not ours to keep.
  virtual absl::Span<const std::byte> image() const { return {}; }

 private:
  DType dtype_;
  int64_t rows_, cols_;
  int groups_;
};

// Rows to pack: row-major in the file's layout, in host memory. All parts of one weight have the
// same dtype and cols; they are stacked in order (q, k, v become one matrix).
struct WeightPart {
  const std::byte* data;  // null: `make` writes them
  int64_t rows;
  // Writes so many rows from `first` on. Any thread, several at once.
  std::function<void(int64_t first, int64_t rows, std::byte* out)> make = {};
};

struct PackWeightArgs {
  DType dtype;
  int64_t cols;
  absl::Span<const WeightPart> parts;
  bool embedding =
      false;  // Embed reads its rows as well (a tied head is packed once for both uses)
  // To stay in host memory and be copied to the device for every use: the same results, at the
  // rate of the bus. Only where DeviceInfo::streams_weights; not with `embedding`. All such weights
  // of a device are packed before a stream multiplies by one, and outlive the streams that do.
  bool streamed = false;
  // What image() was for the same arguments on such a device, 64-byte aligned; it outlives the
  // weight, which reads it in place, and no part's bytes. One of another size is not used: the
  // parts are packed.
  absl::Span<const std::byte> image = {};
  // The rows are so many matrices of equally many rows (experts), one after another, wherever parts
  // end; each begins where the device likes. For GroupedMatmul alone where there are several.
  int groups = 1;
};

// The shape of one layer's KV cache. The layout inside a block belongs to the device: the host
// never reads KV.
struct KvShape {
  static constexpr int kMaxHeadDim = 256;
  static constexpr int kTokenGroup = 16;

  int kv_heads = 0;
  int head_dim = 0;      // at most kMaxHeadDim
  int block_tokens = 0;  // a multiple of kTokenGroup: a device may interleave so many
};

// Ops that were recorded once and run as one as often as they are launched. Of the stream that
// recorded them, which outlives it.
class Graph {
 public:
  virtual ~Graph() = default;
};

// An in-order queue of device work, used by one thread. A device fault CHECK-fails; it is not an
// error to return. Host memory given to a copy must stay valid and unchanged (CopyToDevice) or
// unread (CopyToHost) until Wait, or until a fence after it has passed.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual void CopyToDevice(void* device, const void* host, size_t bytes) = 0;
  virtual void CopyToHost(void* host, const void* device, size_t bytes) = 0;
  virtual void Wait() = 0;

  // A point in the work, to be waited for while later work goes on: 0, 1, ... At most two are open:
  // a third waits for the first.
  virtual int64_t Fence() { return 0; }
  virtual void WaitFor(int64_t fence) { Wait(); }
  // How long the device had nothing to do between the fence before this one and the first copy
  // after that; none where nobody knows. When this fence has passed, before the next one but one.
  virtual std::optional<double> IdleSecondsBefore(int64_t fence) { return std::nullopt; }

  // Where DeviceInfo::graphs: the ops between them are recorded, not run. No copies, fences or
  // waits there; all memory that the ops name stays as long as the graph. Null: no memory for it.
  virtual void BeginCapture() {}
  virtual std::unique_ptr<Graph> EndCapture() { return nullptr; }
  virtual void Launch(const Graph& graph) {}
};

struct DeviceInfo {
  std::string name;         // "cpu"
  std::string description;  // "AMD EPYC ..., avx3_zen4, 2 threads"
  Numerics numerics = Numerics::kPrecise;
  DType activation_dtype = DType::kF32;
  DType kv_dtype = DType::kF16;      // of keys and values in the cache
  size_t memory_bytes = 0;           // total
  std::vector<DType> weight_dtypes;  // what PackWeight and Matmul take
  bool streams_weights = false;      // PackWeightArgs::streamed
  bool graphs = false;               // Stream::BeginCapture
  bool asynchronous = false;         // ops return before they have run
};

class Ops;

class Device {  // Thread-safe. Outlives every Buffer, PackedWeight and Stream it made.
 public:
  virtual ~Device() = default;
  virtual const DeviceInfo& info() const = 0;
  virtual size_t FreeMemory() const = 0;
  virtual absl::StatusOr<Buffer> Allocate(
      size_t bytes) = 0;  // 64-byte aligned, zeroed; RESOURCE_EXHAUSTED when it does not fit
  // Where memory is handed out when it is first touched (CPU): hands out that of `bytes` from
  // `data` on, a part of a Buffer, on the calling thread; what it holds stays, and others may use
  // it meanwhile. False when there is no point in calling again.
  virtual bool Populate(void* data, size_t bytes) { return false; }
  // Bytes of one KV block (K and V of one layer). A layer's cache is num_blocks of these, from its
  // PagedKv::data on.
  virtual size_t KvBlockBytes(const KvShape& shape) const = 0;
  // Bytes of a weight that PackWeight makes of so many rows; 0 where nobody needs to know.
  virtual size_t PackedBytes(DType dtype, int64_t rows, int64_t cols, int groups) const {
    return 0;
  }
  // Synchronous; the host bytes may be dropped when it returns.
  virtual absl::StatusOr<std::unique_ptr<PackedWeight>> PackWeight(const PackWeightArgs& args) = 0;
  virtual std::unique_ptr<Stream> NewStream() = 0;
  virtual const Ops& ops() const = 0;
  // Empty where there is no driver to ask. May take milliseconds.
  virtual DeviceTelemetry Telemetry() const { return {}; }
};

struct DeviceOptions {
  int threads = 0;  // 0: one per core this process may use
  Numerics numerics = Numerics::kPrecise;
  // kF32, kF16, kBF16, kQ8_0 or kF8_E4M3; by default f16, and f32 under Numerics::kFloat32.
  std::optional<DType> kv_dtype = std::nullopt;
};

// name: "cpu"; "cuda:N" or "hip:N", the N-th GPU that the driver shows this process (without ":N"
// the first); "host-simt:32" or "host-simt:64" (the GPU kernels on the CPU: slow, for tests); or
// "auto": the first of cuda, hip and cpu that opens with these options; `selection` then gets one
// line of why. Errors: kInvalidArgument names the value and what is allowed, kNotFound what is not
// installed, kFailedPrecondition why a GPU cannot be used, kResourceExhausted why not now.
absl::StatusOr<std::unique_ptr<Device>> OpenDevice(std::string_view name,
                                                   const DeviceOptions& options,
                                                   std::string* selection = nullptr);

// Whether `name` is one of those: kInvalidArgument as above.
absl::Status CheckDeviceName(std::string_view name);

}  // namespace fairlead

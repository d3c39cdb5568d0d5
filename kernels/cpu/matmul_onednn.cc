// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/matmul_onednn.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/simd_matmul.h"
#include "kernels/half.h"
#include "kernels/pack_args.h"
#include "oneapi/dnnl/dnnl.hpp"

namespace fairlead {
namespace {

constexpr int64_t kChunkTokens = 64;
constexpr std::array<int64_t, 6> kBuckets = {2, 4, 8, 16, 32, 64};
// Smaller products lose more in decode than they gain in prefill: a call costs some microseconds.
constexpr int64_t kMinElements = int64_t{2} << 20;
constexpr int64_t kMinSize = 64;  // of N and K
constexpr int64_t kSliceRows =
    128;  // about: large enough to amortise a call, small enough to share out
static_assert(kChunkTokens * (kSliceRows + kPanelRows) <= kPanelRows * 2 * (256 + kMaxTileTokens),
              "a slice's sums fit the worker's scratch");

using Type = dnnl::memory::data_type;
using Tag = dnnl::memory::format_tag;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

int BucketOf(int64_t tokens) {
  return static_cast<int>(std::lower_bound(kBuckets.begin(), kBuckets.end(), tokens) -
                          kBuckets.begin());
}

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// Our pool owns the cores: oneDNN works on the calling thread.
void UseOneThread() {
  thread_local const bool done = [] {
    omp_set_num_threads(1);
    return true;
  }();
  static_cast<void>(done);
}

void CheckSuccess(dnnl_status_t status) { FAIRLEAD_CHECK(status == dnnl_success); }

// The product x [bucket, k] * w [width, k]^T for one width of slice, in every bucket, with the
// objects that a call needs made beforehand for each worker.
class SliceKernel {
 public:
  SliceKernel(int64_t k, int64_t width, int workers) : k_(k), width_(width) {
    UseOneThread();
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    weights_ = dnnl::memory::desc({k, width}, Type::bf16, Tag::any);
    for (int b = static_cast<int>(kBuckets.size()) - 1; b >= 0;
         --b) {  // the largest decides the weights' layout
      const dnnl::memory::desc x({kBuckets[b], k}, Type::bf16, Tag::ab);
      const dnnl::memory::desc y({kBuckets[b], width}, Type::f32, Tag::ab);
      const dnnl::matmul::primitive_desc description(Engine(), x, weights_, y, attributes);
      weights_ = description.weights_desc();
      Bucket& bucket = buckets_[b];
      bucket.product = dnnl::matmul(description);
      for (int w = 0; w < workers; ++w) {
        bucket.workers.push_back({dnnl::memory(x, Engine(), nullptr),
                                  dnnl::memory(y, Engine(), nullptr),
                                  dnnl::memory(description.scratchpad_desc(), Engine())});
      }
    }
    for (int w = 0; w < workers; ++w) streams_.emplace_back(Engine());
    row_bits_are_fixed_ = TestRowBits();
  }

  bool row_bits_are_fixed() const { return row_bits_are_fixed_; }

  // From the file's layout, [width, k].
  dnnl::memory Pack(const uint16_t* weights) const {
    dnnl::memory from({{k_, width_}, Type::bf16, Tag::ba}, Engine(),
                      const_cast<uint16_t*>(weights));
    dnnl::memory to(weights_, Engine());
    dnnl::stream stream(Engine());
    dnnl::reorder(from, to).execute(stream, from, to);
    stream.wait();
    return to;
  }

  // x: bf16 [bucket, k], y: [bucket, width] of the bucket of `tokens`. Each worker at most once at
  // a time.
  void Multiply(int worker, int64_t tokens, const uint16_t* x, const dnnl::memory& weights,
                float* y) {
    UseOneThread();
    Bucket& bucket = buckets_[BucketOf(tokens)];
    const Worker& w = bucket.workers[worker];
    CheckSuccess(dnnl_memory_set_data_handle(w.x.get(), const_cast<uint16_t*>(x)));
    CheckSuccess(dnnl_memory_set_data_handle(w.y.get(), y));
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, w.x.get()},
                                    {DNNL_ARG_WEIGHTS, weights.get()},
                                    {DNNL_ARG_DST, w.y.get()},
                                    {DNNL_ARG_SCRATCHPAD, w.scratchpad.get()}};
    CheckSuccess(dnnl_primitive_execute(bucket.product.get(), streams_[worker].get(), 4, args));
    CheckSuccess(dnnl_stream_wait(streams_[worker].get()));
  }

 private:
  struct Worker {
    dnnl::memory x, y, scratchpad;
  };
  struct Bucket {
    dnnl::matmul product;
    std::vector<Worker> workers;
  };

  bool TestRowBits() {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<uint16_t> w(width_ * k_), all(kChunkTokens * k_);
    for (uint16_t& value : w) value = F32ToBF16(normal(random));
    for (uint16_t& value : all) value = F32ToBF16(normal(random));
    const dnnl::memory weights = Pack(w.data());
    std::vector<float> expected(kChunkTokens * width_), y(kChunkTokens * width_);
    Multiply(0, kChunkTokens, all.data(), weights, expected.data());
    for (const int64_t tokens : {1, 2, 3, 7, 16, 20, 33}) {
      for (const int64_t first : {int64_t{0}, (kChunkTokens - tokens) / 2, kChunkTokens - tokens}) {
        std::vector<uint16_t> x(kChunkTokens * k_, 0);
        std::copy_n(all.begin() + first * k_, tokens * k_, x.begin());
        Multiply(0, tokens, x.data(), weights, y.data());
        if (std::memcmp(y.data(), expected.data() + first * width_,
                        tokens * width_ * sizeof(float)) != 0) {
          return false;
        }
      }
    }
    return true;
  }

  int64_t k_, width_;
  dnnl::memory::desc weights_;
  std::array<Bucket, kBuckets.size()> buckets_;
  std::vector<dnnl::stream> streams_;
  bool row_bits_are_fixed_ = false;
};

// One kernel for all weights of a shape, as long as one of them lives: making one compiles code and
// runs the test.
std::shared_ptr<SliceKernel> KernelFor(int64_t k, int64_t width, const ThreadPool& pool) {
  using Key = std::tuple<int64_t, int64_t, const ThreadPool*>;
  static std::mutex mutex;
  static std::map<Key, std::weak_ptr<SliceKernel>> kernels;
  const std::lock_guard<std::mutex> lock(mutex);
  std::weak_ptr<SliceKernel>& known = kernels[{k, width, &pool}];
  std::shared_ptr<SliceKernel> kernel = known.lock();
  if (kernel == nullptr) {
    kernel = std::make_shared<SliceKernel>(k, width, pool.threads());
    known = kernel;
  }
  return kernel;
}

class OnednnPlan final : public DensePlan {
 public:
  // Throws dnnl::error. Check fits() next.
  OnednnPlan(int64_t rows, int64_t cols, const ThreadPool& pool) : rows_(rows), cols_(cols) {
    // An even number of slices suits the usual even number of threads.
    const int64_t count = CeilDiv(CeilDiv(rows, kSliceRows), 2) * 2;
    width_ = CeilDiv(CeilDiv(rows, count), kPanelRows) * kPanelRows;
    slices_.resize(CeilDiv(rows, width_));
    kernel_ = KernelFor(cols, width_, pool);
    last_kernel_ = KernelFor(cols, Width(slices_.size() - 1), pool);
  }

  bool fits() const { return kernel_->row_bits_are_fixed() && last_kernel_->row_bits_are_fixed(); }

  // False: oneDNN refused.
  bool Pack(const PackWeightArgs& args, ThreadPool& pool) {
    std::atomic<bool> packed{true};
    pool.ParallelFor(static_cast<int64_t>(slices_.size()), [&](int64_t slice, int) {
      std::vector<uint16_t> rows(Width(slice) * cols_);
      CopyRows(args, slice * width_, Width(slice), rows.data());
      try {
        UseOneThread();
        slices_[slice] = Kernel(slice).Pack(rows.data());
      } catch (const dnnl::error&) {
        packed = false;
      }
    });
    return packed;
  }

  size_t bytes() const override {
    size_t bytes = 0;
    for (const dnnl::memory& slice : slices_) bytes += slice.get_desc().get_size();
    return bytes;
  }

  void Multiply(ThreadPool& pool, const float* x, int64_t tokens, const MatmulOutput& out,
                MatmulScratch& scratch) const override {
    // bf16 rows take half the room of the f32 rows reserved, and a bucket is less than twice its
    // tokens (1 becomes 2, and so does the reserve), so that the padded chunks always fit.
    scratch.Reserve(pool.threads(), tokens, cols_);
    auto* rounded = reinterpret_cast<uint16_t*>(scratch.activations());
    const int64_t chunks = CeilDiv(tokens, kChunkTokens);
    const int64_t padded =
        (chunks - 1) * kChunkTokens + kBuckets[BucketOf(tokens - (chunks - 1) * kChunkTokens)];
    RoundActivations(pool, x, tokens, padded, rounded);
    const int64_t slices = static_cast<int64_t>(slices_.size());
    pool.ParallelFor(slices * chunks, [&](int64_t task, int worker) {
      const int64_t first = task % chunks * kChunkTokens;
      const int64_t count = std::min(kChunkTokens, tokens - first);
      const int64_t slice = task / chunks;
      float* sums = scratch.worker(worker);
      Kernel(slice).Multiply(worker, count, rounded + first * cols_, slices_[slice], sums);
      SimdWriteSums(sums, Width(slice), count, Width(slice), first, slice * width_, out);
    });
  }

 private:
  // `count` rows from `first` on, of all parts stacked.
  static void CopyRows(const PackWeightArgs& args, int64_t first, int64_t count, uint16_t* out) {
    const PartsInMemory source(args, first, first + count);
    for (const WeightPart& part : source.parts()) {
      const auto elements = static_cast<size_t>(part.rows * args.cols);
      std::memcpy(out, part.data, elements * sizeof(*out));
      out += elements;
    }
  }

  static constexpr int64_t kRoundTokens = 8;

  void RoundActivations(ThreadPool& pool, const float* x, int64_t tokens, int64_t padded,
                        uint16_t* rounded) const {
    pool.ParallelFor(CeilDiv(padded, kRoundTokens), [&](int64_t task, int) {
      const int64_t begin = task * kRoundTokens;
      const int64_t filled = std::clamp(tokens, begin, begin + kRoundTokens);
      const int64_t end = std::min(padded, begin + kRoundTokens);
      SimdRoundToBF16(x + begin * cols_, (filled - begin) * cols_, rounded + begin * cols_);
      std::fill(rounded + filled * cols_, rounded + end * cols_, uint16_t{0});
    });
  }

  int64_t Width(int64_t slice) const { return std::min(width_, rows_ - slice * width_); }
  SliceKernel& Kernel(int64_t slice) const {
    return slice + 1 < static_cast<int64_t>(slices_.size()) ? *kernel_ : *last_kernel_;
  }

  int64_t rows_, cols_, width_;
  std::shared_ptr<SliceKernel> kernel_, last_kernel_;
  std::vector<dnnl::memory> slices_;
};

bool HasNativeBF16() {
  constexpr unsigned kBF16 = dnnl_cpu_isa_avx512_core_bf16;
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & kBF16) == kBF16;
}

}  // namespace

std::unique_ptr<DensePlan> PackOnednnWeight(const PackWeightArgs& args, int64_t rows,
                                            Numerics numerics, ThreadPool& pool) {
  if (args.dtype != DType::kBF16 || numerics == Numerics::kFloat32 || args.embedding)
    return nullptr;
  if (rows < kMinSize || args.cols < kMinSize || rows * args.cols < kMinElements) return nullptr;
  if (!HasNativeBF16()) return nullptr;
  try {
    auto plan = std::make_unique<OnednnPlan>(rows, args.cols, pool);
    if (!plan->fits() || !plan->Pack(args, pool)) return nullptr;
    return plan;
  } catch (const dnnl::error&) {
    return nullptr;  // our own kernels serve every shape
  }
}

}  // namespace fairlead

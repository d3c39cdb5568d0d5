// SPDX-License-Identifier: Apache-2.0
// One op on one shape: what it launches, and what that costs at least. One thread.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <vector>

#include "bench/common/device_tensors.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace fairlead::bench {

// The linear layers and attention of real models.
struct ModelShape {
  const char* name;
  int hidden, heads, kv_heads, head_dim, ffn, vocab;
};
inline constexpr ModelShape kModelShapes[] = {
    {"smollm2-135m", 576, 9, 3, 64, 1536, 49152},
    {"llama-1b", 2048, 32, 8, 64, 8192, 128256},
    {"llama-8b", 4096, 32, 8, 128, 14336, 128256},
};
// Of rehearsals on a slow device.
inline constexpr ModelShape kTinyShapes[] = {{"tiny", 256, 4, 2, 64, 512, 512}};

// Owns the tensors of one benchmark, all in the device's memory, which must suffice.
class Work {
 public:
  explicit Work(Device& device)
      : device_(device), stream_(device.NewStream()), tensors_(device, *stream_) {}

  // As DeviceTensors.
  Tensor Activations(std::initializer_list<int64_t> dims);
  Tensor Floats(std::initializer_list<int64_t> dims);
  Tensor Constant(float value, std::initializer_list<int64_t> dims);
  Tensor Values(const std::vector<float>& values, std::initializer_list<int64_t> dims);
  Tensor Ints(const std::vector<int32_t>& values, std::initializer_list<int64_t> dims);
  Tensor Output(DType dtype, std::initializer_list<int64_t> dims);
  PagedKv Kv(const KvShape& shape, int num_blocks);
  // Copies of a random weight, so many that together they do not fit a cache: a step of a real
  // model never meets a matrix that it has just read.
  std::vector<const PackedWeight*> ColdWeights(DType dtype, int64_t rows, int64_t cols,
                                               bool embedding = false);

  Device& device() { return device_; }
  Stream& stream() { return *stream_; }
  const Ops& ops() const { return device_.ops(); }
  DType activation_dtype() const { return device_.info().activation_dtype; }
  // Bytes of so many activations.
  double ActivationBytes(double elements) const {
    return elements * static_cast<double>(RowBytes(activation_dtype(), 1));
  }

  int max_copies = 64;  // of ColdWeights
  std::function<void()> launch;
  double bytes = 0;         // that have to be read or written
  double operations = 0;    // a multiply and an add are two
  bool is_integer = false;  // weights of 8 bits and less

 private:
  Tensor Checked(Tensor tensor) const;

  Device& device_;
  std::unique_ptr<Stream> stream_;
  DeviceTensors tensors_;
  std::vector<std::unique_ptr<PackedWeight>> weights_;
};

// Each sets `work` up for an op.
void SetUpMatmul(Work& work, DType dtype, int64_t n, int64_t k, int rows);
void SetUpEmbed(Work& work, const ModelShape& shape, DType dtype, int rows);
void SetUpRmsNorm(Work& work, const ModelShape& shape, int rows);
void SetUpActivateAndMul(Work& work, const ModelShape& shape, int rows);
void SetUpGatherRows(Work& work, const ModelShape& shape, int rows);
void SetUpRopeAndWriteKv(Work& work, const ModelShape& shape, int rows);
// `seqs` sequences of `context` tokens, the last `queries` of each are asked for.
void SetUpAttention(Work& work, const ModelShape& shape, int seqs, int queries, int context);
void SetUpSample(Work& work, const ModelShape& shape, int rows, float temperature);
void SetUpLogprobs(Work& work, const ModelShape& shape, int rows);

}  // namespace fairlead::bench

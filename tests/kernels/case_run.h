// SPDX-License-Identifier: Apache-2.0
// One run of one op case on one device, through the Device and Ops interface alone. A case builds
// its inputs from a seed, so that every device gets the same ones. Used by one thread.
//
// Every tensor lies between guard zones. After the run the guards and all inputs must be unchanged.
// Guards and unwritten outputs hold NaN (-1 as integers), so that reading or forgetting one shows
// in the results.
#pragma once

#include <cmath>
#include <cstdint>
#include <deque>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "tests/kernels/compare.h"

namespace fairlead {

// The same numbers on every platform: splitmix64, and sums instead of libm.
class CaseRandom {
 public:
  explicit CaseRandom(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  double Uniform();            // [0, 1)
  int Int(int low, int high);  // both included
  float Normal();              // mean 0, variance 1 (twelve uniforms, so within 6)
  std::vector<float> Normals(int64_t count, float scale = 1);
  std::vector<int32_t> Permutation(int count);

 private:
  uint64_t state_;
};

// A weight in the file's layout: normal values, in quantised types random blocks with scales of
// both signs that give values of about `scale`.
std::vector<std::byte> RandomWeights(CaseRandom& random, DType dtype, int64_t elements,
                                     float scale);

struct CaseOutput {
  std::string name;
  Tensor tensor;
  FloatBound bound;                           // of floats
  std::vector<std::vector<int32_t>> allowed;  // of integers; empty: what the reference gives
  std::vector<float> floats;                  // the result, after Finish
  std::vector<int32_t> ints;
};

class CaseRun {
 public:
  // Activations are rounded to `activation_dtype` so that two devices of different types get the
  // same values.
  CaseRun(Device& device, DType activation_dtype, uint64_t seed);

  Device& device() { return device_; }
  const DeviceInfo& info() const { return device_.info(); }
  CaseRandom& random() { return random_; }
  // Values as the device will see them in an activation tensor.
  std::vector<float> Rounded(std::vector<float> values) const;

  // Inputs. Activations() stores in the device's activation type, Floats() always in f32.
  Tensor Activations(const std::vector<float>& values, std::initializer_list<int64_t> dims);
  Tensor Floats(const std::vector<float>& values, std::initializer_list<int64_t> dims);
  Tensor Ints(const std::vector<int32_t>& values, std::initializer_list<int64_t> dims);
  // Parts in the file's layout; the run keeps the weight.
  const PackedWeight* Weight(DType dtype, int64_t cols,
                             const std::vector<std::vector<std::byte>>& parts,
                             bool embedding = false, int groups = 1);
  PagedKv Kv(const KvShape& shape, int num_blocks);

  // Outputs. `initial` empty: every element is NaN or -1.
  Tensor OutputActivations(std::string name, std::initializer_list<int64_t> dims, FloatBound bound,
                           const std::vector<float>& initial = {});
  Tensor OutputFloats(std::string name, std::initializer_list<int64_t> dims, FloatBound bound);
  Tensor OutputInts(std::string name, std::initializer_list<int64_t> dims,
                    std::vector<std::vector<int32_t>> allowed = {});

  // Setup work that is not what the case is about.
  void Now(const std::function<void(const Ops&, Stream&)>& work);
  // The op itself. Kept, so that a benchmark can launch it many times.
  void Launch(std::function<void(const Ops&, Stream&)> work) { work_ = std::move(work); }
  void Enqueue() const { work_(device_.ops(), *stream_); }

  // Enqueues, waits and reads the outputs; returns what the op spoilt (nothing, if it is right).
  std::vector<std::string> Finish();
  const std::vector<CaseOutput>& outputs() const { return outputs_; }

 private:
  struct Region {
    Buffer buffer;
    std::vector<std::byte> image;  // what the whole buffer must hold after the run
    size_t payload_bytes = 0;
    bool may_change = false;
    std::string name;
  };
  enum class Change { kAllowed, kForbidden };
  Tensor Place(std::string name, DType dtype, std::initializer_list<int64_t> dims,
               const std::vector<std::byte>& payload, Change change);
  Tensor AddOutput(CaseOutput output, const std::vector<std::byte>& payload);
  void* PlaceBytes(std::string name, const std::vector<std::byte>& payload, Change change);
  std::vector<std::byte> Encode(DType dtype, const std::vector<float>& values) const;

  Device& device_;
  DType activation_dtype_;
  CaseRandom random_;
  std::unique_ptr<Stream> stream_;
  std::deque<Region> regions_;
  std::vector<std::unique_ptr<PackedWeight>> weights_;
  std::vector<CaseOutput> outputs_;
  std::function<void(const Ops&, Stream&)> work_;
};

}  // namespace fairlead

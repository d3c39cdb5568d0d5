// SPDX-License-Identifier: Apache-2.0
// The weights of a model on their way to the device: looks tensors up by name, checks their shapes,
// packs matrices, and collects the small f32 vectors (norms, biases, RoPE table) into one buffer.
// Used by one thread during loading.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "models/weight_cache.h"
#include "models/weights.h"

namespace fairlead {

// A linear layer, or several with one input that are stored side by side (q, k, v): out = x * W^T +
// bias. Matrices of one dtype are one packed weight; a file that mixes dtypes gives several, each
// writing its columns.
class Linear {
 public:
  // out_column: of `out`, where the first output goes.
  void Apply(Stream& stream, const Ops& ops, const Tensor& x, const Tensor& out,
             bool accumulate = false, int64_t out_column = 0) const;
  size_t bytes() const;       // of the device
  size_t host_bytes() const;  // PackedWeight's

 private:
  friend class ParameterLoader;
  struct Piece {
    std::unique_ptr<PackedWeight> weight;
    int64_t out_column = 0;
  };
  std::vector<Piece> pieces_;
  size_t bias_offset_ = kNoBias;
  Tensor bias_;  // f32 [all columns]; set by ParameterLoader::Upload

  static constexpr size_t kNoBias = static_cast<size_t>(-1);
};

// One linear layer of each expert: out = x * W[e]^T + bias[e].
class Experts {
 public:
  // x: a row a token, or a row a token and slot; out: the latter.
  void Apply(Stream& stream, const Ops& ops, const Tensor& x, const Tensor& expert,
             const Tensor& out) const;
  size_t bytes() const { return weight_ == nullptr ? 0 : weight_->bytes(); }
  size_t host_bytes() const { return weight_ == nullptr ? 0 : weight_->host_bytes(); }

 private:
  friend class ParameterLoader;
  std::unique_ptr<PackedWeight> weight_;
  size_t bias_offset_ = 0;
  bool has_bias_ = false;
  Tensor bias_;  // f32 [experts, rows]; set by ParameterLoader::Bind
};

// A tensor that must be there with this shape. kInvalidArgument names it and both shapes.
absl::StatusOr<const WeightInfo*> RequireTensor(const WeightSource& source, const std::string& name,
                                                std::vector<int64_t> dim);

class ParameterLoader {
 public:
  // `cache`: may be null.
  ParameterLoader(const WeightSource& source, Device& device, WeightCache* cache)
      : source_(source), device_(device), cache_(cache) {}

  struct LinearSpec {
    std::vector<std::string>
        modules;  // "model.layers.0.self_attn.q_proj": its .weight, and its .bias with `bias`
    std::vector<int64_t> rows;  // outputs of each
    int64_t cols = 0;
    bool bias = false;
  };
  // streamed: as PackWeightArgs.
  absl::StatusOr<Linear> LoadLinear(const LinearSpec& spec, bool streamed = false);
  // What LoadLinear will take of a device that streams_weights; without what it will refuse.
  size_t LinearBytes(const LinearSpec& spec) const;
  absl::StatusOr<std::unique_ptr<PackedWeight>> LoadMatrix(const std::string& name, int64_t rows,
                                                           int64_t cols, bool embedding);

  // Matrices of equal shape of all experts, those of one expert side by side.
  struct ExpertsSpec {
    // Of each matrix, a module an expert; or where the file has them stacked, one of [count, rows,
    // cols].
    std::vector<std::vector<std::string>> modules;
    int count = 0;
    int64_t rows = 0, cols = 0;  // of each matrix
    bool stacked = false, bias = false;
  };
  absl::StatusOr<Experts> LoadExperts(const ExpertsSpec& spec, bool streamed = false);
  size_t ExpertsBytes(const ExpertsSpec& spec) const;

  // A vector that is converted to f32, as factor * (value + offset); valid after Upload through
  // VectorAt.
  absl::StatusOr<size_t> AddVector(const std::string& name, int64_t size, float offset = 0,
                                   float factor = 1);
  size_t AddValues(absl::Span<const float> values);

  // Copies all collected vectors to one device buffer, which the caller keeps.
  absl::StatusOr<Buffer> Upload();
  Tensor VectorAt(size_t offset, std::initializer_list<int64_t> dims) const;
  void Bind(Linear& linear) const;
  void Bind(Experts& experts) const;

 private:
  absl::StatusOr<std::unique_ptr<PackedWeight>> Pack(absl::Span<const std::string> names,
                                                     const PackWeightArgs& args);

  absl::StatusOr<const WeightInfo*> Require(const std::string& name,
                                            std::vector<int64_t> dim) const {
    return RequireTensor(source_, name, std::move(dim));
  }
  absl::Status CheckDtype(const WeightInfo& info) const;
  absl::StatusOr<size_t> AddExpertsBias(const ExpertsSpec& spec);

  const WeightSource& source_;
  Device& device_;
  WeightCache* cache_;
  std::vector<float> values_;
  float* uploaded_ = nullptr;
};

}  // namespace fairlead

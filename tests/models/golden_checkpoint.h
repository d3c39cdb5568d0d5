// SPDX-License-Identifier: Apache-2.0
// A folder of golden/models: transformers' logits and greedy tokens of some sequences (golden
// README, section "models"), and how close to them is right. Used by one thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "models/json.h"
#include "tests/models/model_runner.h"

namespace fairlead {

class GoldenCheckpoint {
 public:
  // Enough for every sequence and its greedy tokens.
  static constexpr int kMaxTokens = 64;

  static std::string Folder(const std::string& name);
  static absl::StatusOr<GoldenCheckpoint> Read(const std::string& name);

  using MakeDevice = std::function<std::unique_ptr<Device>()>;
  // Float32 arithmetic on `weights` (the folder, or the same model in another form): logits within
  // 1e-3, or 20 times what float64 changes where that is more, and equal greedy tokens as far as
  // they are comparable.
  void ExpectFloat32(const std::string& weights, const MakeDevice& make) const;
  // bf16 activations: rms 0.15, largest 1.0.
  void ExpectPrecise(const std::string& weights, const MakeDevice& make) const;

  const Json& golden() const { return golden_; }

 private:
  using Check = std::function<void(ModelRunner&, const Json& sequence, const std::vector<float>&)>;
  // Runs each sequence on a device of its own.
  void ForEachSequence(const std::string& weights, const MakeDevice& make,
                       const Check& check) const;
  const float* Want(const Json& sequence) const;

  std::string name_;
  Json golden_;
  std::vector<float> values_;
  double tolerance_ = 0;
};

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "bench/roofline/predict.h"

#include <algorithm>

#include "kernels/check.h"

namespace fairlead::bench {
namespace {

double RateOf(KernelKind kind, const DeviceLimits& limits, Arithmetic arithmetic) {
  if (kind == KernelKind::kMatmul) return MatmulRate(limits, arithmetic);
  // Attention multiplies queries and keys, never weights.
  const double plain =
      MatmulRate(limits, arithmetic == Arithmetic::kF32 ? Arithmetic::kF32 : Arithmetic::kBF16);
  return limits.attention > 0 ? std::min(limits.attention, plain) : plain;
}

}  // namespace

std::string_view ArithmeticName(Arithmetic arithmetic) {
  switch (arithmetic) {
    case Arithmetic::kF32:
      return "f32";
    case Arithmetic::kBF16:
      return "bf16";
    case Arithmetic::kFp8:
      return "fp8";
    case Arithmetic::kInt8:
      return "int8";
  }
  FAIRLEAD_CHECK(false && "an Arithmetic without a name");
}

double MatmulRate(const DeviceLimits& limits, Arithmetic arithmetic) {
  switch (arithmetic) {
    case Arithmetic::kF32:
      return limits.f32;
    case Arithmetic::kBF16:
      return limits.bf16;
    case Arithmetic::kFp8:
      return limits.fp8;
    case Arithmetic::kInt8:
      return limits.int8;
  }
  FAIRLEAD_CHECK(false && "an Arithmetic without a rate");
}

Predicted PredictStep(const ModelConfig& model, const ModelDTypes& dtypes, const StepShape& step,
                      const DeviceLimits& limits, Arithmetic arithmetic, double launch_us) {
  double matmul_bytes = 0, matmul_seconds = 0, attention_seconds = 0, kv_bytes = 0, kernels = 0;
  for (const KernelWork& kernel : StepKernels(model, dtypes, step)) {
    const double compute =
        kernel.operations == 0 ? 0 : kernel.operations / RateOf(kernel.kind, limits, arithmetic);
    const double memory = (kernel.stored_bytes + kernel.activation_bytes) / limits.memory;
    kernels += std::max(memory, compute) + static_cast<double>(kernel.count) * launch_us * 1e-6;
    if (kernel.kind == KernelKind::kMatmul) {
      matmul_bytes += kernel.stored_bytes;
      matmul_seconds += compute;
    } else if (kernel.kind == KernelKind::kAttention) {
      kv_bytes += kernel.stored_bytes;
      attention_seconds += compute;
    }
  }
  const double weights = matmul_bytes / limits.memory;
  const double floor = step.queries == 1
                           ? std::max(weights, matmul_seconds) + kv_bytes / limits.memory
                           : std::max(weights, matmul_seconds + attention_seconds);
  return {.floor_ms = floor * 1e3, .kernels_ms = kernels * 1e3};
}

Json PredictGrid(const ModelConfig& model, const ModelDTypes& dtypes, const DeviceLimits& limits,
                 double memory_bytes, Arithmetic arithmetic, double launch_us,
                 const PredictionGrid& grid) {
  constexpr double kOther = 2e9;
  const double stored = StoredWeightBytes(model, dtypes.weights);
  const double left = memory_bytes - stored - kOther;
  const double kv = KvBytesPerToken(model, dtypes.kv);
  const auto row = [&](const StepShape& step, double tokens) {
    const Predicted p = PredictStep(model, dtypes, step, limits, arithmetic, launch_us);
    return Json{{"floor_ms", p.floor_ms},
                {"kernels_ms", p.kernels_ms},
                {"tokens_per_s", tokens / p.floor_ms * 1e3}};
  };
  Json out = {{"weight_gb", stored / 1e9},
              {"kv_bytes_per_token", kv},
              {"kv_tokens", left > 0 ? Json(static_cast<int64_t>(left / kv)) : Json(nullptr)},
              {"decode", Json::array()},
              {"prefill", Json::array()}};
  for (const int context : grid.contexts) {
    for (const int batch : grid.batches) {
      Json decode = {{"batch", batch}, {"context", context}};
      decode.update(row({.sequences = batch, .queries = 1, .context = context}, batch));
      out["decode"].push_back(std::move(decode));
    }
  }
  for (const int prompt : grid.prompts) {
    Json prefill = {{"prompt", prompt}};
    prefill.update(row({.sequences = 1, .queries = prompt, .context = prompt}, prompt));
    out["prefill"].push_back(std::move(prefill));
  }
  return out;
}

}  // namespace fairlead::bench

// SPDX-License-Identifier: Apache-2.0
#include "bench/gpu/plan.h"

#include "absl/status/status.h"
#include "kernels/strings.h"

namespace fairlead::bench {
namespace {

GpuPlan FullPlan() {
  GpuPlan plan{
      .scale = "full",
      .tests_s = 60,
      .limits_s = 25,  // before and after
      .ops_s = 60,
      .peers_s = 50,
      .serving_s = 45,
      .ops_filter =
          "^(llama-8b|smollm2-135m)/"
          "(Matmul/(bf16|q8_0|q4_0)/.*rows:(1|32|512)(/|$)"
          "|Attention/(decode/context:1024|prefill/context:2048)/rows:"
          "|RmsNorm/rows:(1|512)(/|$)|ActivateAndMul/rows:512|RopeAndWriteKv/rows:(1|512)(/|$)"
          "|Sample/.*rows:(1|16)(/|$))",
      .ops_min_time_s = 0.02,
      .loads = {{"one at a time, 128 in, 32 out", 128, 32, 1},
                {"32 at once, 128 in, 64 out", 128, 64, 32}},
      .open_shares = {0.5, 0.9},
      .load_s = 4,
      .vocabulary = 40000};
  const GpuModel base{.prompts = "128,512,2048",
                      .depths = "0,1024",
                      .batches = "1,8,32",
                      .generate = 64,
                      .repetitions = 3};
  const auto add = [&](const char* shape, const char* weights, int tests_s, int budget_s,
                       bool serves) {
    GpuModel model = base;
    model.shape = shape;
    model.weights = weights;
    model.title = StrCat(shape, weights[0] == '\0' ? "" : " ", weights);
    model.tests_s = tests_s;
    model.budget_s = budget_s;
    model.serves = serves;
    plan.models.push_back(model);
  };
  add("smollm2-135m", "", 20, 25, true);
  add("llama-8b", "bf16", 40, 80, true);
  add("llama-8b", "q8_0", 25, 45, false);
  add("llama-8b", "q4_0", 25, 45, false);
  return plan;
}

GpuPlan TinyPlan() {
  GpuPlan plan{
      .scale = "tiny",
      .tests_s = 120,
      .limits_s = 30,
      .ops_s = 60,
      .peers_s = 60,
      .serving_s = 60,
      .tests_filter = "^(simt_faults|gpu_sampling)_",
      .limits = TinyDeviceLimits(),
      .ops_filter =
          "^tiny/(Matmul/(bf16|q8_0|q4_0)/(qkv|down)/rows:(1|8)(/|$)"
          "|Attention/decode/context:128/rows:1(/|$)|RmsNorm/rows:(1|8)(/|$)"
          "|Sample/greedy/rows:1(/|$))",
      .ops_min_time_s = 0.005,
      .loads = {{"one at a time, 8 in, 4 out", 8, 4, 1}, {"2 at once, 8 in, 4 out", 8, 4, 2}},
      .open_shares = {0.5},
      .load_s = 2,
      .vocabulary = 511};
  for (const char* weights : {"bf16", "q8_0", "q4_0"}) {
    plan.models.push_back({.title = StrCat("tiny ", weights),
                           .shape = "tiny",
                           .weights = weights,
                           .prompts = "8,16",
                           .depths = "0,16",
                           .batches = "1,2",
                           .generate = 4,
                           .repetitions = 2,
                           .tests_s = 20,
                           .budget_s = 40,
                           .serves = plan.models.empty()});
  }
  return plan;
}

}  // namespace

int GpuPlan::TotalSeconds() const {
  int total = tests_s + limits_s + ops_s + peers_s;
  for (const GpuModel& model : models) total += model.budget_s + (model.serves ? serving_s : 0);
  return total;
}

absl::StatusOr<GpuPlan> MakeGpuPlan(std::string_view scale) {
  if (scale == "full") return FullPlan();
  if (scale == "tiny") return TinyPlan();
  return absl::InvalidArgumentError(StrCat("--scale: '", scale, "' is neither full nor tiny"));
}

}  // namespace fairlead::bench

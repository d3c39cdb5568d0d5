// SPDX-License-Identifier: Apache-2.0
#include "bench/gpu/plan.h"

#include "absl/status/status.h"
#include "kernels/strings.h"

namespace fairlead::bench {
namespace {

GpuPlan FullPlan() {
  GpuPlan plan{
      .scale = "full",
      .tests_s = 45,
      .limits_s = 20,  // before and after
      .ops_s = 40,
      .invariance_s = 15,
      .peers_s = 45,
      .serving_s = 35,
      .graphs_s = 25,
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
  const auto add = [&](const char* shape, const char* weights, int tests_s, int budget_s) {
    GpuModel model = base;
    model.shape = shape;
    model.weights = weights;
    model.title = StrCat(shape, weights[0] == '\0' ? "" : " ", weights);
    model.tests_s = tests_s;
    model.budget_s = budget_s;
    plan.models.push_back(model);
    return &plan.models.back();
  };
  GpuModel* model = add("smollm2-135m", "", 12, 18);
  model->serves = model->graphs = true;
  add("llama-8b", "bf16", 30, 55)->serves = true;
  add("llama-8b", "q8_0", 15, 30);
  add("llama-8b", "f8_e4m3", 15, 30);
  add("llama-8b", "q4_0", 15, 30)->graphs = true;
  // Of the same weights, where the cache's size counts most.
  model = add("llama-8b", "q4_0", 15, 30);
  model->kv = "f8_e4m3";
  model->title += ", KV f8_e4m3";
  model->prompts = "2048";
  model->depths = "1024";
  return plan;
}

GpuPlan TinyPlan() {
  GpuPlan plan{
      .scale = "tiny",
      .tests_s = 120,
      .limits_s = 30,
      .ops_s = 60,
      .invariance_s = 10,
      .peers_s = 60,
      .serving_s = 60,
      .graphs_s = 40,
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
  for (const char* weights : {"bf16", "q8_0", "f8_e4m3", "q4_0"}) {
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
                           .serves = plan.models.empty(),
                           .graphs = plan.models.empty()});
  }
  GpuModel model = plan.models.back();
  model.kv = "f8_e4m3";
  model.title += ", KV f8_e4m3";
  model.depths = "16";
  plan.models.push_back(model);
  return plan;
}

}  // namespace

int GpuPlan::TotalSeconds() const {
  int total = tests_s + limits_s + ops_s + invariance_s + peers_s;
  for (const GpuModel& model : models) {
    total += model.budget_s + (model.serves ? serving_s : 0) + (model.graphs ? graphs_s : 0);
  }
  return total;
}

absl::StatusOr<GpuPlan> MakeGpuPlan(std::string_view scale) {
  if (scale == "full") return FullPlan();
  if (scale == "tiny") return TinyPlan();
  return absl::InvalidArgumentError(StrCat("--scale: '", scale, "' is neither full nor tiny"));
}

}  // namespace fairlead::bench

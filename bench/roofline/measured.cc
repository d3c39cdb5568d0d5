// SPDX-License-Identifier: Apache-2.0
#include "bench/roofline/measured.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "kernels/strings.h"
#include "models/registry.h"
#include "models/weights.h"

namespace fairlead::bench {

std::optional<Comparison> CompareTest(const Json& test, int64_t max_batched_tokens,
                                      const ModelConfig& model, const ModelDTypes& dtypes,
                                      const DeviceLimits& limits, Arithmetic arithmetic,
                                      double launch_us) {
  const int64_t prompt = test.value("n_prompt", 0), generate = test.value("n_gen", 0);
  const int64_t depth = test.value("n_depth", 0), batch = test.value("batch", 1);
  const double rate = test.value("median", 0.0);
  if (rate <= 0 || (prompt > 0) == (generate > 0)) return std::nullopt;
  StepShape step;
  double tokens = 0;  // that the rate counts of a step
  if (prompt > 0) {
    step = {.sequences = 1, .queries = prompt, .context = depth + prompt};
    tokens = static_cast<double>(prompt);
  } else {
    step = {.sequences = batch, .queries = 1, .context = depth + 1 + generate / 2};
    tokens = static_cast<double>(batch);
  }
  const auto predict = [&](const StepShape& shape) {
    return PredictStep(model, dtypes, shape, limits, arithmetic, launch_us);
  };
  Predicted predicted = predict(step);
  if (prompt > 0) {
    predicted.kernels_ms = 0;
    for (int64_t done = 0; done < prompt;) {
      const int64_t queries = std::min(max_batched_tokens, prompt - done);
      done += queries;
      predicted.kernels_ms +=
          predict({.sequences = 1, .queries = queries, .context = depth + done}).kernels_ms;
    }
  }
  return Comparison{
      .test = test.value("test", ""), .measured_ms = tokens / rate * 1e3, .predicted = predicted};
}

Json ComparisonJson(const Comparison& comparison) {
  return {{"test", comparison.test},
          {"measured_ms", comparison.measured_ms},
          {"floor_ms", comparison.predicted.floor_ms},
          {"kernels_ms", comparison.predicted.kernels_ms}};
}

std::optional<DeviceLimits> MeasuredLimits(const Json& limits) {
  double memory = 0, matmul = 0;
  for (const Json& limit : limits) {
    double& best = limit["name"] == "matmul" ? matmul : memory;
    if (limit["name"] == "matmul" || limit["name"] == "memory_copy")
      best = std::max(best, limit["max"].get<double>() * 1e9);
  }
  if (memory == 0 || matmul == 0) return std::nullopt;
  return DeviceLimits{.memory = memory,
                      .f32 = matmul,
                      .bf16 = matmul,
                      .fp8 = matmul,
                      .int8 = matmul,
                      .source = "measured in this run"};
}

absl::StatusOr<ModelConfig> LoadShape(const std::string& path) {
  if (!std::filesystem::is_directory(path)) {
    const auto source = OpenWeights(path);
    if (!source.ok()) return source.status();
    return LoadModelConfig(**source);
  }
  const std::string name = path + "/config.json";
  std::ifstream file(name);
  if (!file) return absl::NotFoundError(StrCat(name, ": cannot be read"));
  const auto json = ParseJson(std::string(std::istreambuf_iterator<char>(file), {}));
  if (!json.ok()) return json.status();
  return ParseConfig(*json);
}

}  // namespace fairlead::bench

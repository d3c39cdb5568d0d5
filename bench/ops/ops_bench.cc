// SPDX-License-Identifier: Apache-2.0
// ops_bench: every op on the shapes of real models and on the cases of the tests, by Google
// Benchmark (--benchmark_filter, --benchmark_format=json ...). Ours: --threads=N, --numerics=NAME.
//
// Counters: GB/s of what has to be read and written, GFLOP/s (a multiply and an add are two), and
// limit_%: the time that the bytes or the operations take at least, by the limits measured at the
// start, over the time it took. The matmul's limit of operations is that of the numerics: float32
// the f32 one; precise the faster of f32, bf16 and half of int8 (two terms); fast the int8 one
// where the weight is quantised.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bench/limits/limits.h"
#include "bench/ops/work.h"
#include "kernels/check.h"
#include "kernels/cpu/host_info.h"
#include "kernels/strings.h"
#include "tests/kernels/op_cases.h"

namespace fairlead::bench {
namespace {

constexpr int kRows[] = {1, 4, 8, 16, 32, 128, 512};

struct Bounds {
  double bytes_per_s = 0;
  double f32 = 0, bf16 = 0, int8 = 0;  // operations/s
};

Bounds MeasureBounds(int threads) {
  const std::vector<Limit> limits =
      MeasureLimits({.threads = {threads}, .repetitions = 3, .time = absl::Milliseconds(20)});
  const auto best = [&](std::vector<std::string_view> names) {
    return BestOf(limits, names, threads) * 1e9;
  };
  return {.bytes_per_s = best({"memory_read"}),
          .f32 = best({"f32_fma"}),
          .bf16 = best({"bf16_dot", "bf16_tile"}),
          .int8 = best({"int8_dot", "int8_dot_int16_sums", "int8_tile"})};
}

double OperationLimit(const Bounds& bounds, Numerics numerics, bool is_integer) {
  if (numerics == Numerics::kFloat32) return bounds.f32;
  if (numerics == Numerics::kFast && is_integer) return std::max(bounds.int8, bounds.f32);
  return std::max({bounds.f32, bounds.bf16, bounds.int8 / 2});
}

using SetUp = std::function<void(Work&)>;

class Registry {
 public:
  Registry(Device& device, const Bounds& bounds) : device_(device), bounds_(bounds) {}

  // With a limit: what a whole model does with data that no cache holds.
  void Add(const std::string& name, bool has_limit, SetUp set_up) {
    const auto run = [this, has_limit, set_up = std::move(set_up)](benchmark::State& state) {
      Work work(device_);
      set_up(work);
      work.launch();
      const auto begin = std::chrono::steady_clock::now();
      for (auto _ : state) {
        work.launch();
        work.stream().Wait();
      }
      const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
      Report(state, work, has_limit, time.count() / static_cast<double>(state.iterations()));
    };
    benchmark::RegisterBenchmark(name.c_str(), run)->UseRealTime()->Unit(benchmark::kMicrosecond);
  }

  void AddCase(const OpCase& op_case) {
    const auto run = [this, op_case](benchmark::State& state) {
      CaseRun run(device_, device_.info().activation_dtype, SeedOf(op_case));
      op_case.build(run);
      for (auto _ : state) run.Enqueue();
    };
    benchmark::RegisterBenchmark(("case/" + op_case.name).c_str(), run)
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  }

 private:
  void Report(benchmark::State& state, const Work& work, bool has_limit, double seconds) const {
    state.counters["GB/s"] = work.bytes / seconds / 1e9;
    if (work.operations > 0) state.counters["GFLOP/s"] = work.operations / seconds / 1e9;
    if (!has_limit) return;
    const double limit = OperationLimit(bounds_, device_.info().numerics, work.is_integer);
    const double least = std::max(work.bytes / bounds_.bytes_per_s, work.operations / limit);
    state.counters["limit_%"] = least / seconds * 100;
  }

  Device& device_;
  const Bounds bounds_;
};

void AddMatmuls(Registry& registry, const Device& device, const ModelShape& shape) {
  struct Linear {
    const char* name;
    int n, k;
  };
  const int q = shape.heads * shape.head_dim, kv = shape.kv_heads * shape.head_dim;
  const Linear layers[] = {{"qkv", q + 2 * kv, shape.hidden},
                           {"attention_out", shape.hidden, q},
                           {"gate_up", 2 * shape.ffn, shape.hidden},
                           {"down", shape.hidden, shape.ffn},
                           {"head", shape.vocab, shape.hidden}};
  for (const DType dtype : device.info().weight_dtypes) {
    for (const Linear& layer : layers) {
      if (layer.k % Info(dtype).block_elements != 0) continue;  // such a model cannot exist
      for (const int rows : kRows) {
        registry.Add(
            StrCat(shape.name, "/Matmul/", Info(dtype).name, "/", layer.name, "/rows:", rows), true,
            [=](Work& work) { SetUpMatmul(work, dtype, layer.n, layer.k, rows); });
      }
    }
    if (shape.hidden % Info(dtype).block_elements != 0) continue;
    registry.Add(StrCat(shape.name, "/Embed/", Info(dtype).name, "/rows:512"), false,
                 [=](Work& work) { SetUpEmbed(work, shape, dtype, 512); });
  }
}

void AddOthers(Registry& registry, const ModelShape& shape) {
  const auto add = [&](const char* op, int rows, SetUp set_up) {
    registry.Add(StrCat(shape.name, "/", op, "/rows:", rows), false, std::move(set_up));
  };
  for (const int rows : kRows) {
    add("RmsNorm", rows, [=](Work& work) { SetUpRmsNorm(work, shape, rows); });
    add("SiluAndMul", rows, [=](Work& work) { SetUpSiluAndMul(work, shape, rows); });
    add("GatherRows", rows, [=](Work& work) { SetUpGatherRows(work, shape, rows); });
    add("RopeAndWriteKv", rows, [=](Work& work) { SetUpRopeAndWriteKv(work, shape, rows); });
  }
  for (const int rows : {1, 16}) {
    add("Sample/greedy", rows, [=](Work& work) { SetUpSample(work, shape, rows, 0); });
    add("Sample/top_k_top_p", rows, [=](Work& work) { SetUpSample(work, shape, rows, 0.8f); });
    add("Logprobs", rows, [=](Work& work) { SetUpLogprobs(work, shape, rows); });
    for (const int context : {128, 1024, 4096}) {
      registry.Add(StrCat(shape.name, "/Attention/decode/context:", context, "/rows:", rows), true,
                   [=](Work& work) { SetUpAttention(work, shape, rows, 1, context); });
    }
  }
  for (const int context : {512, 2048}) {
    registry.Add(StrCat(shape.name, "/Attention/prefill/context:", context, "/rows:512"), true,
                 [=](Work& work) { SetUpAttention(work, shape, 1, 512, context); });
  }
}

struct Flags {
  int threads = UsableCpus();
  Numerics numerics = Numerics::kPrecise;
};

// What benchmark::Initialize left.
bool ReadFlags(int argc, char** argv, Flags& flags) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.starts_with("--threads=")) {
      flags.threads = std::atoi(argv[i] + sizeof("--threads=") - 1);
      if (flags.threads >= 1 && flags.threads <= 1024) continue;
    } else if (argument == "--numerics=float32") {
      flags.numerics = Numerics::kFloat32;
      continue;
    } else if (argument == "--numerics=precise") {
      continue;
    } else if (argument == "--numerics=fast") {
      flags.numerics = Numerics::kFast;
      continue;
    }
    std::fprintf(stderr,
                 "error: %s: besides --benchmark_* there are --threads=1..1024 and "
                 "--numerics=float32|precise|fast\n",
                 argv[i]);
    return false;
  }
  return true;
}

}  // namespace
}  // namespace fairlead::bench

int main(int argc, char** argv) {
  using namespace fairlead;         // NOLINT
  using namespace fairlead::bench;  // NOLINT
  benchmark::Initialize(&argc, argv);
  Flags flags;
  if (!ReadFlags(argc, argv, flags)) return 2;
  auto device = OpenDevice("cpu", {.threads = flags.threads, .numerics = flags.numerics});
  if (!device.ok()) {
    std::fprintf(stderr, "error: %s\n", std::string(device.status().message()).c_str());
    return 1;
  }
  const Bounds bounds = MeasureBounds(flags.threads);
  benchmark::AddCustomContext("device", (*device)->info().description);
  benchmark::AddCustomContext("numerics", std::string(NumericsName(flags.numerics)));
  benchmark::AddCustomContext(
      "limits", StrCat(bounds.bytes_per_s / 1e9, " GB/s, ", bounds.f32 / 1e9, " GFLOP/s f32, ",
                       bounds.bf16 / 1e9, " bf16, ", bounds.int8 / 1e9, " GOP/s int8"));
  Registry registry(**device, bounds);
  for (const ModelShape& shape : kModelShapes) {
    AddMatmuls(registry, **device, shape);
    AddOthers(registry, shape);
  }
  const auto& dtypes = (*device)->info().weight_dtypes;
  for (const OpCase& op_case : AllOpCases()) {
    if (!op_case.weight_dtype ||
        std::find(dtypes.begin(), dtypes.end(), *op_case.weight_dtype) != dtypes.end())
      registry.AddCase(op_case);
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

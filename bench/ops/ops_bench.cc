// SPDX-License-Identifier: Apache-2.0
// ops_bench: every op on the shapes of real models and, on the CPU, on the cases of the tests, by
// Google Benchmark (--benchmark_filter, --benchmark_format=json ...). Ours: --device=NAME,
// --threads=N, --numerics=NAME, --scale=full|tiny (the shapes of a rehearsal).
//
// Launches are enqueued for some milliseconds before the device is waited for, as a step of the
// engine does; what is timed is everything between.
//
// Counters: GB/s of what has to be read and written, GFLOP/s (a multiply and an add are two), and
// limit_%: the time that the bytes or the operations take at least, by the limits measured at the
// start, over the time it took. The matmul's limit of operations is that of the numerics: float32
// the f32 one; precise the faster of f32, bf16 and half of int8 (two terms); fast the int8 one
// where the weight is quantised. On other devices the limits are the best that its own ops reached
// (limits/device_limits.h): there 100 % is not what the chip could do.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bench/common/launch_timer.h"
#include "bench/limits/device_limits.h"
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

absl::StatusOr<Bounds> MeasureBounds(Device& device, const DeviceLimitOptions& options) {
  const auto limits = MeasureDeviceLimits(device, options);
  if (!limits.ok()) return limits.status();
  const double matmul = BestOf(*limits, {"matmul"}, 1) * 1e9;
  return Bounds{.bytes_per_s = BestOf(*limits, {"memory_copy"}, 1) * 1e9, .f32 = matmul};
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
    const auto run = [this, name, has_limit, set_up = std::move(set_up)](benchmark::State& state) {
      Work& work = WorkOf(name, set_up);
      int64_t launches = 0;
      double seconds = 0;
      while (state.KeepRunningBatch(per_wait_)) {
        seconds += TimeBatch(work.stream(), work.launch, per_wait_);
        launches += per_wait_;
      }
      Report(state, work, has_limit, seconds / static_cast<double>(launches));
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
  // Google Benchmark calls a function several times, with ever more iterations.
  Work& WorkOf(const std::string& name, const SetUp& set_up) {
    if (name == current_) return *work_;
    work_ = nullptr;  // its memory, before the next one's
    work_ = std::make_unique<Work>(device_);
    set_up(*work_);
    per_wait_ = LaunchesPerWait(work_->stream(), work_->launch, kBatchTime, kMostLaunches);
    current_ = name;
    return *work_;
  }

  void Report(benchmark::State& state, const Work& work, bool has_limit, double seconds) const {
    state.counters["GB/s"] = work.bytes / seconds / 1e9;
    if (work.operations > 0) state.counters["GFLOP/s"] = work.operations / seconds / 1e9;
    if (!has_limit) return;
    const double limit = OperationLimit(bounds_, device_.info().numerics, work.is_integer);
    const double least = std::max(work.bytes / bounds_.bytes_per_s, work.operations / limit);
    state.counters["limit_%"] = least / seconds * 100;
  }

  static constexpr absl::Duration kBatchTime = absl::Milliseconds(2);
  static constexpr int kMostLaunches = 256;

  Device& device_;
  const Bounds bounds_;
  std::string current_;
  std::unique_ptr<Work> work_;
  int per_wait_ = 1;
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
    add("ActivateAndMul", rows, [=](Work& work) { SetUpActivateAndMul(work, shape, rows); });
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
  std::string device = "cpu";
  int threads = UsableCpus();
  Numerics numerics = Numerics::kPrecise;
  bool tiny = false;
};

// One of what benchmark::Initialize left; false when it is none of ours.
bool ReadFlag(std::string_view argument, Flags& flags) {
  const size_t equals = argument.find('=');
  if (equals == argument.npos) return false;
  const std::string_view name = argument.substr(0, equals);
  const std::string value(argument.substr(equals + 1));
  if (name == "--device") {
    flags.device = value;
    return true;
  }
  if (name == "--threads") {
    flags.threads = std::atoi(value.c_str());
    return flags.threads >= 1 && flags.threads <= 1024;
  }
  if (name == "--scale") {
    flags.tiny = value == "tiny";
    return flags.tiny || value == "full";
  }
  if (name != "--numerics") return false;
  for (const Numerics numerics : {Numerics::kFloat32, Numerics::kPrecise, Numerics::kFast}) {
    if (value != NumericsName(numerics)) continue;
    flags.numerics = numerics;
    return true;
  }
  return false;
}

bool ReadFlags(int argc, char** argv, Flags& flags) {
  for (int i = 1; i < argc; ++i) {
    if (ReadFlag(argv[i], flags)) continue;
    std::fprintf(stderr,
                 "error: %s: besides --benchmark_* there are --device=NAME, --threads=1..1024, "
                 "--numerics=float32|precise|fast and --scale=full|tiny\n",
                 argv[i]);
    return false;
  }
  return true;
}

std::string BoundsText(const Bounds& bounds, bool is_cpu) {
  const std::string bytes = StrCat(bounds.bytes_per_s / 1e9, " GB/s, ");
  if (!is_cpu) return StrCat(bytes, bounds.f32 / 1e9, " GFLOP/s by its own Matmul");
  return StrCat(bytes, bounds.f32 / 1e9, " GFLOP/s f32, ", bounds.bf16 / 1e9, " bf16, ",
                bounds.int8 / 1e9, " GOP/s int8");
}

absl::Status Run(const Flags& flags) {
  const auto device =
      OpenDevice(flags.device, {.threads = flags.threads, .numerics = flags.numerics});
  if (!device.ok()) return device.status();
  const DeviceInfo& info = (*device)->info();
  const bool is_cpu = info.name == "cpu";
  const absl::StatusOr<Bounds> bounds =
      is_cpu ? MeasureBounds(flags.threads)
             : MeasureBounds(**device, flags.tiny ? TinyDeviceLimits() : DeviceLimitOptions());
  if (!bounds.ok()) return bounds.status();
  benchmark::AddCustomContext("device", info.description);
  benchmark::AddCustomContext("numerics", std::string(NumericsName(flags.numerics)));
  benchmark::AddCustomContext("limits", BoundsText(*bounds, is_cpu));
  Registry registry(**device, *bounds);
  const auto shapes =
      flags.tiny ? absl::MakeConstSpan(kTinyShapes) : absl::MakeConstSpan(kModelShapes);
  for (const ModelShape& shape : shapes) {
    AddMatmuls(registry, **device, shape);
    AddOthers(registry, shape);
  }
  for (const OpCase& op_case : AllOpCases()) {
    const bool has_dtype =
        !op_case.weight_dtype || std::find(info.weight_dtypes.begin(), info.weight_dtypes.end(),
                                           *op_case.weight_dtype) != info.weight_dtypes.end();
    if (is_cpu && has_dtype) registry.AddCase(op_case);
  }
  benchmark::RunSpecifiedBenchmarks();
  return absl::OkStatus();
}

}  // namespace
}  // namespace fairlead::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  fairlead::bench::Flags flags;
  if (!fairlead::bench::ReadFlags(argc, argv, flags)) return 2;
  const absl::Status status = fairlead::bench::Run(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return 1;
}

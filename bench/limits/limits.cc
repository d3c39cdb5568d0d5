// SPDX-License-Identifier: Apache-2.0
#include "bench/limits/limits.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <functional>
#include <thread>

#include "bench/common/stats.h"
#include "kernels/cpu/host_info.h"

namespace fairlead::bench {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// Runs work(thread) on so many threads, which begin together; seconds until the last one is done.
double TimeTogether(int threads, const std::function<void()>& prepare,
                    const std::function<void(int)>& work) {
  std::barrier start(threads + 1), end(threads + 1);
  std::vector<std::thread> workers;
  for (int i = 0; i < threads; ++i) {
    workers.emplace_back([&, i] {
      if (prepare) prepare();
      start.arrive_and_wait();
      work(i);
      end.arrive_and_wait();
    });
  }
  start.arrive_and_wait();
  const Clock::time_point begin = Clock::now();
  end.arrive_and_wait();
  const double seconds = Seconds(Clock::now() - begin);
  for (std::thread& worker : workers) worker.join();
  return seconds;
}

std::vector<Limit> MeasureReads(const LimitOptions& options) {
  const size_t bytes = options.read_bytes > 0 ? options.read_bytes : DefaultReadBytes();
  // Not zero pages: those are one page of memory.
  const std::vector<uint64_t> data(bytes / sizeof(uint64_t), 1);
  const auto* begin = reinterpret_cast<const std::byte*>(data.data());
  const ReadLoop read = BestReadLoop();
  std::vector<Limit> limits;
  std::atomic<uint64_t> sum = 0;
  for (const int threads : options.threads) {
    Limit limit{.name = "memory_read", .isa = "", .unit = "GB/s", .threads = threads};
    const size_t slice = bytes / static_cast<size_t>(threads) / 4096 * 4096;
    for (int i = 0; i < options.repetitions; ++i) {
      const double seconds = TimeTogether(threads, nullptr, [&](int thread) {
        sum += read(begin + static_cast<size_t>(thread) * slice, slice);
      });
      limit.samples.push_back(static_cast<double>(slice) * threads / seconds / 1e9);
    }
    limits.push_back(std::move(limit));
  }
  return limits;
}

// How many rounds take about `time` on one thread.
int CalibrateSteps(const ComputeLoop& loop, absl::Duration time) {
  int steps = 1000;
  double seconds = 0;
  TimeTogether(1, loop.prepare, [&](int) {
    for (;; steps *= 4) {
      const Clock::time_point begin = Clock::now();
      loop.run(steps);
      seconds = Seconds(Clock::now() - begin);
      if (seconds > 2e-3 || steps > (1 << 28)) return;
    }
  });
  const double wanted = steps * (absl::ToDoubleSeconds(time) / seconds);
  return static_cast<int>(std::clamp(wanted, 1.0, 2e9));
}

std::vector<Limit> MeasureCompute(const ComputeLoop& loop, const LimitOptions& options) {
  const int steps = CalibrateSteps(loop, options.time);
  std::vector<Limit> limits;
  for (const int threads : options.threads) {
    Limit limit{.name = loop.name, .isa = loop.isa, .unit = loop.unit, .threads = threads};
    for (int i = 0; i < options.repetitions; ++i) {
      std::vector<double> operations(threads);
      const double seconds = TimeTogether(
          threads, loop.prepare, [&](int thread) { operations[thread] = loop.run(steps); });
      double total = 0;
      for (const double count : operations) total += count;
      limit.samples.push_back(total / seconds / 1e9);
    }
    limits.push_back(std::move(limit));
  }
  return limits;
}

}  // namespace

double Limit::best() const { return Summarize(samples).max; }
double Limit::median() const { return Summarize(samples).median; }

size_t DefaultReadBytes() {
  constexpr size_t kLeast = size_t{256} << 20;
  const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
  const size_t wanted = std::max(kLeast, cache > 0 ? 2 * static_cast<size_t>(cache) : 0);
  return std::min(wanted, std::max(kLeast / 4, FreeMemoryBytes() / 4));
}

std::vector<Limit> MeasureLimits(const LimitOptions& options) {
  std::vector<Limit> limits = MeasureReads(options);
  for (const ComputeLoop& loop : ComputeLoops()) {
    if (!loop.is_supported()) continue;
    for (Limit& limit : MeasureCompute(loop, options)) limits.push_back(std::move(limit));
  }
  return limits;
}

double BestOf(absl::Span<const Limit> limits, absl::Span<const std::string_view> names,
              int threads) {
  double best = 0;
  for (const Limit& limit : limits) {
    if (limit.threads == threads &&
        std::find(names.begin(), names.end(), limit.name) != names.end())
      best = std::max(best, limit.best());
  }
  return best;
}

Json LimitsJson(absl::Span<const Limit> limits) {
  Json json = Json::array();
  for (const Limit& limit : limits) {
    Json entry = {
        {"name", limit.name}, {"isa", limit.isa}, {"unit", limit.unit}, {"threads", limit.threads}};
    entry.update(SummaryJson(limit.samples));
    json.push_back(std::move(entry));
  }
  return json;
}

}  // namespace fairlead::bench

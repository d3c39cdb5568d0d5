// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "bench/common/device_tensors.h"
#include "bench/common/launch_timer.h"
#include "bench/gpu/ctest_result.h"
#include "bench/gpu/invariance.h"
#include "bench/gpu/parts.h"
#include "bench/gpu/plan.h"
#include "bench/limits/device_limits.h"
#include "bench/roofline/measured.h"
#include "bench/suite/peers.h"

namespace fairlead::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(GpuPlan, FitsInEightMinutes) {
  const auto plan = MakeGpuPlan("full");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_LE(plan->TotalSeconds(), 480);
  EXPECT_EQ(plan->models.size(), 6u);
  for (const GpuModel& model : plan->models) EXPECT_LT(model.tests_s, model.budget_s);
}

TEST(GpuPlan, TinyHasTheSameParts) {
  const auto plan = MakeGpuPlan("tiny");
  ASSERT_TRUE(plan.ok()) << plan.status();
  for (const GpuModel& model : plan->models) EXPECT_EQ(model.shape, "tiny");
  EXPECT_TRUE(plan->models[0].serves);
  EXPECT_FALSE(plan->open_shares.empty());
  EXPECT_THAT(std::string(MakeGpuPlan("huge").status().message()),
              HasSubstr("'huge' is neither full nor tiny"));
}

TEST(ParseCtest, NamesWhatFailed) {
  const auto good = ParseCtest("...\n100% tests passed, 0 tests failed out of 4\n\nLabel Time\n");
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_EQ(good->dump(), R"({"tests":4,"failed":[]})");
  const auto bad = ParseCtest(
      "50% tests passed, 1 tests failed out of 2\n\nTotal Test time (real) = 1 sec\n\n"
      "The following tests FAILED:\n\t  3 - gpu_op_32_test (Failed)\n\t  12 - b (Timeout)\n"
      "Errors while running CTest\n 4 - none (Failed)\n");
  ASSERT_TRUE(bad.ok()) << bad.status();
  EXPECT_EQ(bad->dump(), R"({"tests":2,"failed":["gpu_op_32_test","b"]})");
  EXPECT_FALSE(ParseCtest("No tests were found!!!\n").ok());
}

TEST(ParseLlamaBench, KnowsAnAdaptersBatch) {
  const auto samples =
      ParseLlamaBench("{\"n_prompt\": 0, \"n_gen\": 8, \"batch\": 4, \"samples_ts\": [5]}\n");
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_THAT(samples->at("tg8 b4"), ElementsAre(5));
}

TEST(MeasuredLimits, TakesTheBestOfEach) {
  const auto limits = MeasuredLimits(*ParseJson(R"([
      {"name": "memory_copy", "isa": "GatherRows", "max": 2900.0},
      {"name": "memory_copy", "isa": "ActivateAndMul", "max": 3000.0},
      {"name": "matmul", "isa": "q4_0", "max": 100.0},
      {"name": "matmul", "isa": "bf16", "max": 600000.0},
      {"name": "host_to_device", "isa": "", "max": 9e9}])"));
  ASSERT_TRUE(limits.has_value());
  EXPECT_EQ(limits->memory, 3e12);
  EXPECT_EQ(limits->bf16, 600e12);
  EXPECT_FALSE(MeasuredLimits(Json::array()).has_value());
}

// Of 1000 bytes of weights and 2000 operations a token, in 4 us.
Json ProductRow(int tokens) {
  return {{"matrix", "down"}, {"dtype", "bf16"},     {"n", 10}, {"k", 100}, {"tokens", tokens},
          {"median", 4.0},    {"weight_bytes", 1000}};
}

TEST(AddPrices, OurOwnMatmulsBoundNoPrice) {
  const DeviceLimits measured{.memory = 1e9, .bf16 = 1e9};  // 1 us to read, 2 us a token
  Json rows = {ProductRow(1), ProductRow(2)};
  rows[0]["n"] = 1;  // 0.2 us
  AddPrices(measured, 0, rows);
  EXPECT_EQ(rows[0]["price_by"], "memory");
  EXPECT_NEAR(rows[0]["price_%"].get<double>(), 75, 1e-9);
  EXPECT_NEAR(rows[1]["limit_%"].get<double>(), 100, 1e-9);
  EXPECT_FALSE(rows[1].contains("price_%"));
  rows[1]["torch"] = {{"median", 3.0}};
  AddPrices(measured, 0, rows);
  EXPECT_EQ(rows[1]["price_by"], "torch");
  EXPECT_NEAR(rows[1]["price_%"].get<double>(), 25, 1e-9);
  AddPrices(measured, 2e9, rows);  // 2 us
  EXPECT_EQ(rows[1]["price_by"], "sheet");
  EXPECT_NEAR(rows[1]["price_%"].get<double>(), 50, 1e-9);
  EXPECT_NEAR(rows[1]["limit_%"].get<double>(), 100, 1e-9);
}

TEST(CheckSameBits, NamesTheProducts) {
  Json rows = {ProductRow(1), ProductRow(3), ProductRow(40)};  // the first says nothing
  rows[1]["same_bits"] = rows[2]["same_bits"] = true;
  EXPECT_TRUE(CheckSameBits(rows).ok());
  rows[2]["same_bits"] = false;
  EXPECT_EQ(std::string(CheckSameBits(rows).message()),
            "a row's bits depend on its batch: down bf16 of 40 rows");
}

TEST(AddTorchTimes, KeepsWhatCameBeforeItFailed) {
  Json rows = {ProductRow(1), ProductRow(3)};
  const std::string first = R"({"n": 10, "k": 100, "tokens": 1, "microseconds": [5, 7, 6]})"
                            "\n";
  EXPECT_EQ(std::string(AddTorchTimes(first, rows).message()), "torch answered 1 of 2 products");
  EXPECT_EQ(rows[0]["torch"]["median"], 6.0);
  EXPECT_FALSE(rows[1].contains("torch"));
  EXPECT_THAT(std::string(AddTorchTimes(first + first, rows).message()),
              HasSubstr("other products than asked"));
}

TEST(CheckGraphSteps, WhatRanIsWhatWasAskedFor) {
  const Json with = {{{"test", "tg8"}, {"steps", 8}, {"graph_steps", 7}}};
  const Json without = {{{"test", "tg8"}, {"steps", 8}, {"graph_steps", 0}}};
  EXPECT_TRUE(CheckGraphSteps("on", with).ok());
  EXPECT_TRUE(CheckGraphSteps("off", without).ok());
  EXPECT_EQ(std::string(CheckGraphSteps("on", without).message()),
            "engine_bench --graphs on, tg8: 0 of 8 steps were graphs");
  EXPECT_FALSE(CheckGraphSteps("off", with).ok());
}

TEST(GpuOptions, TorchsNameOfADevice) {
  EXPECT_EQ((GpuOptions{.device = "hip:3"}).TorchDevice(), "cuda:3");
  EXPECT_EQ((GpuOptions{.device = "cuda:1"}).TorchDevice(), "cuda:1");
  EXPECT_EQ((GpuOptions{.device = "host-simt:32"}).TorchDevice(), "cpu");
  EXPECT_FALSE((GpuOptions{.device = "host-simt:32"}).IsGpu());
}

// Work that the host does not wait for: only Wait makes it happen.
class LazyStream final : public Stream {
 public:
  void CopyToDevice(void*, const void*, size_t) override {}
  void CopyToHost(void*, const void*, size_t) override {}
  void Wait() override {
    done += pending;
    pending = 0;
    ++waits;
  }
  int pending = 0, done = 0, waits = 0;
};

TEST(TimeLaunches, WaitsOnceABatchAndForAllOfThem) {
  LazyStream stream;
  const auto launch = [&] { ++stream.pending; };
  // No time at all passes in a launch: it takes as many as it may.
  EXPECT_EQ(LaunchesPerWait(stream, launch, absl::Hours(1), 50), 50);
  const int waits = stream.waits, done = stream.done;
  const auto seconds = TimeLaunches(
      stream, launch, {.repetitions = 3, .time = absl::ZeroDuration(), .most_launches = 50});
  EXPECT_EQ(seconds.size(), 3u);
  // Warm-up, the one that is timed, and one of a launch each.
  EXPECT_EQ(stream.waits - waits, 5);
  EXPECT_EQ(stream.done - done, 5);
  EXPECT_EQ(stream.pending, 0);
}

TEST(MeasureDeviceLimits, OfEachKindOnTheExecutor) {
  const auto device = OpenDevice("host-simt:32", {});
  ASSERT_TRUE(device.ok()) << device.status();
  DeviceLimitOptions options = TinyDeviceLimits();
  options.matmul = 32;
  options.memory_bytes = options.transfer_bytes = size_t{1} << 16;
  options.dtypes = {DType::kQ4_0, DType::kI32};  // of which no device has the second
  const auto limits = MeasureDeviceLimits(**device, options);
  ASSERT_TRUE(limits.ok()) << limits.status();
  std::set<std::string> names;
  for (const Limit& limit : *limits) {
    names.insert(limit.name + " " + limit.isa);
    EXPECT_EQ(limit.samples.size(), 2u);
    EXPECT_GT(limit.best(), 0) << limit.name;
  }
  EXPECT_THAT(names, ElementsAre("device_to_host ", "host_to_device ", "matmul q4_0",
                                 "memory_copy ActivateAndMul", "memory_copy GatherRows"));
}

TEST(DeviceTensors, SaysWhenMemoryRunsOut) {
  const auto device = OpenDevice("cpu", {});
  ASSERT_TRUE(device.ok()) << device.status();
  const auto stream = (*device)->NewStream();
  DeviceTensors tensors(**device, *stream);
  EXPECT_NE(tensors.Activations({3, 5}).data, nullptr);
  EXPECT_TRUE(tensors.status().ok());
  EXPECT_EQ(tensors.Output(DType::kF32, {int64_t{1} << 45}).data, nullptr);
  EXPECT_EQ(tensors.status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace fairlead::bench

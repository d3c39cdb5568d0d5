// SPDX-License-Identifier: Apache-2.0
#include "server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fairlead {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Metrics, TelemetryIsReadAtEveryScrape) {
  Metrics metrics(BuildInfo{});
  EXPECT_THAT(metrics.Scrape(), Not(HasSubstr("fairlead_gpu_")));
  DeviceTelemetry telemetry;
  metrics.SetTelemetry([&telemetry] { return telemetry; });
  EXPECT_THAT(metrics.Scrape(), Not(HasSubstr("fairlead_gpu_")));  // nothing is told
  telemetry.power_watts = 312.5;
  telemetry.core_clock_hertz = 1.755e9;
  telemetry.ecc_uncorrected = 2;
  telemetry.throttling = {"thermal"};
  std::string text = metrics.Scrape();
  EXPECT_THAT(text, HasSubstr("fairlead_gpu_power_watts 312.5\n"));
  EXPECT_THAT(text, HasSubstr("fairlead_gpu_clock_hertz{clock=\"core\"} 1755000000\n"));
  EXPECT_THAT(text, Not(HasSubstr("clock=\"memory\"")));
  EXPECT_THAT(text, HasSubstr("fairlead_gpu_ecc_errors{kind=\"uncorrected\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("fairlead_gpu_throttled{reason=\"thermal\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("fairlead_gpu_throttled{reason=\"power_cap\"} 0\n"));
  telemetry.power_watts = 90;
  telemetry.throttling->clear();
  text = metrics.Scrape();
  EXPECT_THAT(text, HasSubstr("fairlead_gpu_power_watts 90\n"));
  EXPECT_THAT(text, HasSubstr("fairlead_gpu_throttled{reason=\"thermal\"} 0\n"));
}

}  // namespace
}  // namespace fairlead

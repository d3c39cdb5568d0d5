// SPDX-License-Identifier: Apache-2.0
#include "bench/serve/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/serve/progress.h"

namespace fairlead::serve_bench {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Options SomeOptions() {
  Options options;
  options.http = "http://h:1";
  options.workload = *FindWorkload("W2");
  options.command_line = "serve_bench --http http://h:1";
  options.labels = {{"commit", "abc"}};
  return options;
}

PointResult SomeResult() {
  PointResult result{.point = {.rate = 2.5}};
  result.load.sent = 4;
  result.load.ok = 3;
  result.load.failed = 1;
  result.load.errors = {{"http_429", 1}};
  result.load.completion_tokens = 30;
  result.load.goodput_per_s = 0.5;
  result.load.good_share = 0.25;
  result.load.ttft_ms = {.count = 3, .mean = 12.5, .p50 = 12, .p90 = 13, .p99 = 14, .max = 15};
  return result;
}

TEST(Report, TableSaysWhatWasMeasured) {
  const std::string table = Table(SomeOptions(), SomeResult());
  EXPECT_THAT(table, HasSubstr("http://h:1: W2, open loop, 2.5 requests/s\n"));
  EXPECT_THAT(table, HasSubstr("4 sent, 3 ok, 0 cancelled, 1 failed (http_429: 1)\n"));
  EXPECT_THAT(table, HasSubstr("0.500 requests/s, 25.0 % of the requests"));
  EXPECT_THAT(table, HasSubstr("    12.50     12.00     13.00     14.00     15.00         3\n"));
  EXPECT_THAT(table, HasSubstr("(no sample)"));
  EXPECT_THAT(table, Not(HasSubstr("beside it")));
}

TEST(Report, SummaryJsonIsWhole) {
  const Json json = SummaryJson(SomeOptions(), SomeResult(), {{"model", "m"}});
  EXPECT_EQ(json["type"], "summary");
  EXPECT_EQ(json["command"], "serve_bench --http http://h:1");
  EXPECT_EQ(json["labels"]["commit"], "abc");
  EXPECT_EQ(json["workload"]["input_tokens"], 1024);
  EXPECT_EQ(json["load"]["rate"], 2.5);
  EXPECT_TRUE(json["load"]["concurrency"].is_null());
  EXPECT_EQ(json["requests"]["errors"]["http_429"], 1);
  EXPECT_EQ(json["ttft_ms"]["p90"], 13);
  EXPECT_TRUE(json["tpot_ms"].is_null());
  EXPECT_TRUE(json["injected"].is_null());
  EXPECT_EQ(json["server"]["model"], "m");
}

TEST(Report, RequestJsonOfAnError) {
  Record record{.id = 3};
  record.outcome = Outcome::kError;
  record.error_kind = "timeout";
  record.error_message = "it took \xff too long";
  const std::string line = DumpJson(RequestJson(record));
  EXPECT_THAT(line, HasSubstr(R"("outcome":"error")"));
  EXPECT_THAT(line, HasSubstr(R"("kind":"timeout")"));
  EXPECT_THAT(line, Not(HasSubstr("ttft_ms")));
}

TEST(Report, KneeLineSaysWhenItIsABound) {
  KneeSearch search(4, 0.05, 1);
  EXPECT_THAT(KneeLine(search), HasSubstr("none"));
  search.Report(4, true);
  EXPECT_THAT(KneeLine(search), HasSubstr("4.000 requests/s or more"));
  EXPECT_EQ(KneeJson(SomeOptions(), search, {})["rate"], 4);
  search.Report(8, false);
  EXPECT_EQ(KneeLine(search), "knee: 4.000 requests/s\n");
}

TEST(CheckContext, ComparesWithWhatTheServerSays) {
  const Options options = SomeOptions();  // 1024 in, 128 out
  EXPECT_TRUE(CheckContext(options, Json::object()).ok());
  const auto with = [](const char* list, int context) {
    return Json{{"models", {{list, Json::array({Json{{"max_model_len", context}}})}}}};
  };
  EXPECT_TRUE(CheckContext(options, with("data", 1152)).ok());
  EXPECT_FALSE(CheckContext(options, with("data", 1151)).ok());
  EXPECT_FALSE(CheckContext(options, with("models", 1151)).ok());
  EXPECT_THAT(std::string(CheckContext(options, with("data", 640)).message()),
              HasSubstr("1152 tokens, the server has 640: shorten it, e.g. by --scale 0.5"));
}

TEST(ProgressLine, ShowsTheNearerBound) {
  const Progress progress{.sent = 30,
                          .done = 25,
                          .failed = 2,
                          .completion_tokens = 500,
                          .elapsed_s = 5,
                          .max_requests = 100,
                          .max_duration_s = 10};
  const std::string line = ProgressLine("W1", progress);
  EXPECT_THAT(line, HasSubstr("[############............]  50 %"));
  EXPECT_THAT(line, HasSubstr("25 done, 5 in flight, 2 failed  100 tok/s"));
  EXPECT_THAT(ProgressLine("W1", {.max_requests = 5}), HasSubstr("[........................]"));
}

}  // namespace
}  // namespace fairlead::serve_bench

// SPDX-License-Identifier: Apache-2.0
#include "bench/serve/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

namespace fairlead::serve_bench {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<Options> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "serve_bench");
  return ParseOptions(static_cast<int>(arguments.size()), arguments.data());
}

absl::StatusOr<Options> ParseHttp(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), {"--http", "http://h:1"});
  return Parse(arguments);
}

TEST(Options, Defaults) {
  const auto options = ParseHttp({});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->workload.name, "W1");
  ASSERT_EQ(options->points.size(), 1u);
  EXPECT_EQ(options->points[0].concurrency, 1);
  EXPECT_EQ(RequestsAt(*options, options->points[0]), 20);
  EXPECT_TRUE(options->target.ignore_eos);
  EXPECT_EQ(options->command_line, "serve_bench --http http://h:1");
}

TEST(Options, SweepsAndTheirRequests) {
  auto options = ParseHttp({"--concurrency", "1,8,64"});
  ASSERT_TRUE(options.ok());
  ASSERT_EQ(options->points.size(), 3u);
  EXPECT_EQ(RequestsAt(*options, options->points[2]), 320);
  options = ParseHttp({"--rate", "0.5,2,inf", "--requests", "7"});
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->points[0].rate, 0.5);
  EXPECT_FALSE(options->points[2].rate || options->points[2].concurrency);
  EXPECT_EQ(RequestsAt(*options, options->points[1]), 7);
  options = ParseHttp({"--duration", "3"});
  EXPECT_EQ(RequestsAt(*options, options->points[0]), 0);
  EXPECT_EQ(ParseHttp({"--workload", "W10"})->points[0].concurrency, 64);
}

TEST(Options, WorkloadLengthsAreReplacedThenScaled) {
  const auto options =
      ParseHttp({"--workload", "W2", "--output-tokens", "64", "--scale", "0.5", "--seed", "9"});
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->workload.input_tokens, 512);
  EXPECT_EQ(options->workload.output_tokens, 32);
  EXPECT_EQ(options->content.seed, 9u);
}

TEST(Options, KneeNeedsBoundsAndOneRate) {
  EXPECT_THAT(std::string(ParseHttp({"--find-knee"}).status().message()), HasSubstr("--goodput"));
  auto options = ParseHttp({"--find-knee", "--goodput", "ttft:500", "tpot:30"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->points[0].rate, 1);
  EXPECT_EQ(options->max_duration_s, 30);
  EXPECT_EQ(options->slo.tpot_ms, 30);
  EXPECT_FALSE(ParseHttp({"--find-knee", "--goodput", "ttft:5", "--rate", "1,2"}).ok());
  EXPECT_FALSE(ParseHttp({"--find-knee", "--goodput", "ttft:5", "--rate", "inf"}).ok());
}

TEST(Options, KeyFileIsReadAndKeptOutOfTheCommandLine) {
  const std::string path = ::testing::TempDir() + "/serve_bench_key";
  std::ofstream(path) << "# a comment\n\n  secret \nother\n";
  const auto options = ParseHttp({"--api-key-file", path.c_str()});
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->target.key, "secret");
  EXPECT_THAT(options->command_line, ::testing::Not(HasSubstr("secret")));
}

TEST(Options, WrongUsageNamesTheValue) {
  const std::vector<std::pair<std::vector<const char*>, const char*>> cases = {
      {{"--workload", "W11"}, "W11"},
      {{"--rate", "0"}, "'0'"},
      {{"--rate", "fast"}, "fast"},
      {{"--rate", "nan"}, "nan"},
      {{"--rate", "inf", "--duration", "3"}, "inf"},
      {{"--rate", "1", "--concurrency", "2"}, "--concurrency"},
      {{"--concurrency", "0"}, "0"},
      {{"--input", "audio"}, "audio"},
      {{"--vocabulary", "5"}, "'5'"},
      {{"--vocabulary", "9:5"}, "9:5"},
      {{"--vocabulary", ""}, "''"},
      {{"--goodput", "itl:3"}, "itl:3"},
      {{"--extra-body", "[1]"}, "[1]"},
      {{"--label", "x"}, "'x'"},
      {{"--api-key-file", "no/such/file"}, "no/such/file"},
      {{"--grpc", "h:1"}, "--grpc"},
      {{"--nonsense"}, "--nonsense"},
  };
  for (const auto& [arguments, named] : cases) {
    const auto options = ParseHttp(arguments);
    ASSERT_EQ(options.status().code(), absl::StatusCode::kInvalidArgument) << arguments[0];
    EXPECT_THAT(std::string(options.status().message()), HasSubstr(named));
  }
  EXPECT_FALSE(Parse({}).ok());
}

TEST(Options, HelpPrintsWorkloadsAndDefinitions) {
  const absl::Status help = Parse({"--help"}).status();
  ASSERT_EQ(help.code(), absl::StatusCode::kCancelled);
  const std::string text(help.message());
  for (const char* part : {"W10", "TTFT", "(E2EL - TTFT) / (out - 1)", "goodput", "--find-knee"})
    EXPECT_THAT(text, HasSubstr(part));
  EXPECT_EQ(Parse({"--version"}).status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace fairlead::serve_bench

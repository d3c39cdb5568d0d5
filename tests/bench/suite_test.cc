// SPDX-License-Identifier: Apache-2.0
#include "bench/suite/suite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "bench/suite/facts.h"
#include "bench/suite/peers.h"
#include "bench/suite/process.h"
#include "bench/suite/void_rule.h"

namespace fairlead::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Limit Read(int threads, std::vector<double> samples) {
  return {.name = "memory_read",
          .isa = "",
          .unit = "GB/s",
          .threads = threads,
          .samples = std::move(samples)};
}

TEST(JudgeLimits, UpToTenPercentIsNoMove) {
  const std::vector<Limit> before = {Read(1, {10}), Read(2, {20, 1000, 20})};
  // One thread is not what was measured with two.
  const Json same = JudgeLimits(before, std::vector<Limit>{Read(1, {1}), Read(2, {22})});
  EXPECT_FALSE(same["void"].get<bool>());
  EXPECT_NEAR(same["moved_percent"].get<double>(), 10, 1e-9);
  EXPECT_TRUE(same["reason"].is_null());
}

TEST(JudgeLimits, MoreEitherWayIsVoidAndSaysWhat) {
  const std::vector<Limit> before = {Read(2, {40})};
  const Json fell = JudgeLimits(before, std::vector<Limit>{Read(2, {20})});
  EXPECT_TRUE(fell["void"].get<bool>());
  EXPECT_EQ(fell["moved_percent"], 50);
  EXPECT_EQ(fell["reason"], "memory_read 40.0 -> 20.0 GB/s (-50 %)");
  EXPECT_TRUE(JudgeLimits(before, std::vector<Limit>{Read(2, {44.1})})["void"].get<bool>());
}

TEST(ParsePeer, EachKind) {
  const auto llama = ParsePeer("llama:peer/enter", "bench");
  EXPECT_EQ(llama->name, "llama.cpp");
  EXPECT_THAT(llama->Command("bench"), ElementsAre("bench/peers/llama.sh", "peer/enter", "bench"));
  const auto openvino = ParsePeer("openvino:v/bin/python", "bench");
  EXPECT_THAT(openvino->Command("batch"),
              ElementsAre("v/bin/python", "bench/peers/openvino_peer.py", "batch"));
  const auto url = ParsePeer("http://localhost:80", "bench");
  EXPECT_EQ(url->url, "http://localhost:80");
  EXPECT_TRUE(url->Command("bench").empty());
  const auto command = ParsePeer("run  my-bench", "bench");
  EXPECT_THAT(command->Command("bench"), ElementsAre("run", "my-bench", "-o", "jsonl"));
  EXPECT_TRUE(command->Command("serve").empty());
  EXPECT_THAT(std::string(ParsePeer(" ", "bench").status().message()), HasSubstr("llama:PREFIX"));
}

TEST(ParseLlamaBench, NamesTestsAsOurs) {
  const auto samples = ParseLlamaBench(
      "{\"n_prompt\": 512, \"n_gen\": 0, \"n_depth\": 0, \"samples_ts\": [10.5, 11]}\n"
      "{\"n_prompt\": 0, \"n_gen\": 64, \"n_depth\": 1024, \"samples_ts\": [7]}\n\n");
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->size(), 2u);
  EXPECT_THAT(samples->at("pp512"), ElementsAre(10.5, 11));
  EXPECT_THAT(samples->at("tg64 @ d1024"), ElementsAre(7));
}

TEST(ParseLlamaBench, RefusesOtherText) {
  EXPECT_FALSE(ParseLlamaBench("").ok());
  EXPECT_THAT(std::string(ParseLlamaBench("error: no model\n").status().message()),
              HasSubstr("no model"));
}

TEST(SampleTable, KeepsOrderAndSamples) {
  SampleTable table;
  table.Add("b", "x", 3);
  table.Add("a", "x", 1);
  table.Add("b", "x", 5);
  const Json json = table.ToJson("test", "tokens/s");
  ASSERT_EQ(json.size(), 2u);
  EXPECT_EQ(json[0].dump(),
            R"({"who":"b","test":"x","unit":"tokens/s","median":4.0,"min":3.0,"max":5.0,)"
            R"("samples":[3.0,5.0]})");
  EXPECT_EQ(json[1]["who"], "a");
}

TEST(Process, OutputExitCodeAndMissingProgram) {
  const std::string log = testing::TempDir() + "/process_test.log";
  EXPECT_EQ(*OutputOf({"sh", "-c", "echo one; echo two"}, log), "one\ntwo\n");
  EXPECT_EQ(RunCommand({"sh", "-c", "exit 64"}, log)->exit_code, 64);
  EXPECT_THAT(std::string(OutputOf({"sh", "-c", "echo why >&2; exit 3"}, log).status().message()),
              HasSubstr("exit code 3"));
  std::ifstream written(log);
  EXPECT_THAT(std::string(std::istreambuf_iterator<char>(written), {}), HasSubstr("why"));
  EXPECT_EQ(RunCommand({"no-such-program-anywhere"}, log).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(Process, BackgroundTellsItsFirstLineAndEndsWhenStopped) {
  // Not something that ends with its input, which is whatever the test was started with.
  auto process = Background::Start({"sh", "-c", "echo ready; exec sleep 1000"}, "/dev/null");
  ASSERT_TRUE(process.ok()) << process.status();
  EXPECT_EQ(*process->FirstLine(absl::Seconds(60)), "ready");
  EXPECT_TRUE(process->IsRunning());
  process->Stop();
  EXPECT_FALSE(process->IsRunning());
  auto silent = Background::Start({"true"}, "/dev/null");
  EXPECT_FALSE(silent->FirstLine(absl::Seconds(60)).ok());
}

TEST(ShellLine, QuotesWhatAShellWouldRead) {
  EXPECT_EQ(ShellLine({"a", "b c", "", "it's", "x=1"}), R"(a 'b c' '' 'it'\''s' x=1)");
}

TEST(Facts, Sha256AndVectorFlags) {
  const std::string path = testing::TempDir() + "/facts_test";
  std::ofstream(path) << "abc";
  // FIPS 180-2, appendix B.1.
  EXPECT_EQ(*Sha256OfFile(path),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256OfFile(path + ".none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(
      VectorFlags("processor\t: 0\nflags\t\t: fpu sse4_2 avx2 fma amx_tile erms\nflags : x\n"),
      "sse4_2 avx2 fma amx_tile");
}

}  // namespace
}  // namespace fairlead::bench

// SPDX-License-Identifier: Apache-2.0
#include "bench/serve/sse_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace fairlead::serve_bench {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// The events of `stream` when it comes in pieces of `size` bytes.
std::vector<std::string> Events(std::string_view stream, size_t size) {
  std::vector<std::string> events;
  SseParser parser([&events](std::string_view data) { events.emplace_back(data); });
  for (; !stream.empty(); stream.remove_prefix(std::min(size, stream.size())))
    parser.Add(stream.substr(0, size));
  return events;
}

TEST(SseParser, TakesEveryLineEndHoweverItIsCut) {
  constexpr std::string_view kStream =
      ": a comment\r\n"
      "data: {\"a\": 1}\r\n\r\n"
      "event: message\nid: 7\ndata:no space\n\n"
      "data:  two spaces\r\r"
      ":\n\n"
      "data: [DONE]\n\n";
  for (size_t size = 1; size <= kStream.size(); ++size) {
    EXPECT_THAT(Events(kStream, size),
                ElementsAre("{\"a\": 1}", "no space", " two spaces", "[DONE]"))
        << "in pieces of " << size;
  }
}

// The examples of WHATWG HTML, "Interpreting an event stream".
TEST(SseParser, FollowsTheStandardsExamples) {
  EXPECT_THAT(Events("data: YHOO\ndata: +2\ndata: 10\n\n", 3), ElementsAre("YHOO\n+2\n10"));
  EXPECT_THAT(Events("data\n\ndata\ndata\n\ndata:", 4), ElementsAre("", "\n"));
  EXPECT_THAT(Events("data:test\n\ndata: test\n\n", 5), ElementsAre("test", "test"));
}

TEST(SseParser, SkipsOtherFieldsAndLinesWithoutAColon) {
  EXPECT_THAT(Events("retry: 10\n\ndatabase: x\n\nDATA: y\n\n data: z\n\nfoo\n\n", 7), IsEmpty());
}

TEST(SseParser, KeepsAnEventThatHasNotEnded) {
  std::vector<std::string> events;
  SseParser parser([&events](std::string_view data) { events.emplace_back(data); });
  EXPECT_FALSE(parser.has_partial_event());
  parser.Add("data: one");
  EXPECT_TRUE(parser.has_partial_event());
  parser.Add("\n");
  EXPECT_TRUE(parser.has_partial_event());
  EXPECT_THAT(events, IsEmpty());
  parser.Add("\n");
  EXPECT_FALSE(parser.has_partial_event());
  EXPECT_THAT(events, ElementsAre("one"));
}

}  // namespace
}  // namespace fairlead::serve_bench

// SPDX-License-Identifier: Apache-2.0
#include "server/commands/json_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace fairlead {
namespace {

absl::StatusOr<Json> Double(const Json& value) {
  if (!value.is_number_integer()) return absl::InvalidArgumentError("not an integer");
  return Json(2 * value.get<int>());
}

TEST(JsonLines, AnswersEachLineAndGoesOnAfterErrors) {
  std::istringstream in("1\n\n  \r\n{\"broken\n\"text\"\n\xff\xfe\n3");
  std::ostringstream out;
  ASSERT_TRUE(AnswerJsonLines(in, out, Double).ok());
  std::istringstream lines(out.str());
  std::vector<Json> answers;
  for (std::string line; std::getline(lines, line);) answers.push_back(*ParseJson(line));
  ASSERT_EQ(answers.size(), 5u);
  EXPECT_EQ(answers[0], 2);
  EXPECT_TRUE(answers[1].contains("error"));
  EXPECT_EQ(answers[2], (Json{{"error", "not an integer"}}));
  EXPECT_TRUE(answers[3].contains("error"));
  EXPECT_EQ(answers[4], 6);
}

TEST(JsonLines, SaysWhenTheOutputIsGone) {
  std::istringstream in("1\n2\n");
  std::ostringstream out;
  out.setstate(std::ios::badbit);
  EXPECT_EQ(AnswerJsonLines(in, out, Double).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace fairlead

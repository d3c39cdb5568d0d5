// SPDX-License-Identifier: Apache-2.0
#include "bench/gpu/ctest_result.h"

#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "kernels/strings.h"

namespace fairlead::bench {

absl::StatusOr<Json> ParseCtest(std::string_view output) {
  Json failed = Json::array();
  int tests = -1;
  bool lists_failed = false;
  for (absl::string_view line : absl::StrSplit(AbslView(output), '\n')) {
    // "75% tests passed, 1 tests failed out of 4"
    const size_t at = line.find(" failed out of ");
    if (at != line.npos) {
      const std::vector<absl::string_view> words =
          absl::StrSplit(line.substr(at + 15), ' ', absl::SkipWhitespace());
      if (words.empty() || !absl::SimpleAtoi(words[0], &tests)) tests = -1;
    }
    if (line.find("The following tests FAILED:") != line.npos) {
      lists_failed = true;
      continue;
    }
    if (!lists_failed) continue;
    // "\t  3 - gpu_op_32_test (Failed)"
    const std::vector<absl::string_view> words =
        absl::StrSplit(absl::StripAsciiWhitespace(line), ' ', absl::SkipEmpty());
    int number = 0;
    if (words.size() < 3 || words[1] != "-" || !absl::SimpleAtoi(words[0], &number)) {
      lists_failed = false;
      continue;
    }
    failed.push_back(std::string(words[2]));
  }
  if (tests < 0) return absl::InvalidArgumentError("ctest printed no summary");
  return Json{{"tests", tests}, {"failed", std::move(failed)}};
}

}  // namespace fairlead::bench

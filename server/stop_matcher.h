// SPDX-License-Identifier: Apache-2.0
// Finds the first stop string in text that arrives in pieces, and holds back text that may turn out
// to be the start of one. One thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fairlead {

class StopMatcher {
 public:
  // `stops` are not empty strings.
  StopMatcher(std::vector<std::string> stops, bool include_match);

  struct Result {
    std::string text;  // certain to be output
    const std::string* match =
        nullptr;  // the stop string that ended the output; nothing comes after it
  };
  Result Push(std::string_view text);
  // What was held back, when no more text comes.
  std::string Finish();

  bool holding() const { return !held_.empty(); }

 private:
  std::vector<std::string> stops_;
  bool include_match_;
  std::string held_;
};

}  // namespace fairlead

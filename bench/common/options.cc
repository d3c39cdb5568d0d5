// SPDX-License-Identifier: Apache-2.0
#include "bench/common/options.h"

#include <algorithm>
#include <fstream>
#include <iostream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "kernels/strings.h"

namespace fairlead::bench {

absl::StatusOr<std::vector<int>> ParseIntList(std::string_view option, std::string_view text,
                                              int low, int high) {
  std::vector<int> values;
  for (const absl::string_view item : absl::StrSplit(AbslView(text), ',')) {
    int value = 0;
    if (!absl::SimpleAtoi(item, &value) || value < low || value > high) {
      return absl::InvalidArgumentError(StrCat(option, ": '", std::string(item),
                                               "' is not a whole number from ", low, " to ", high,
                                               "; numbers are separated by commas"));
    }
    values.push_back(value);
  }
  return values;
}

absl::StatusOr<std::vector<std::string>> ParseNameList(std::string_view option,
                                                       std::string_view text,
                                                       const std::vector<std::string>& allowed) {
  std::vector<std::string> names = absl::StrSplit(AbslView(text), ',');
  for (const std::string& name : names) {
    if (std::find(allowed.begin(), allowed.end(), name) == allowed.end()) {
      return absl::InvalidArgumentError(
          StrCat(option, ": '", name, "' is none of ", absl::StrJoin(allowed, ", ")));
    }
  }
  return names;
}

absl::Status WriteJson(const std::string& path, const Json& value) {
  if (path == "-") {
    std::cout << value.dump(1) << std::endl;
    return absl::OkStatus();
  }
  std::ofstream file(path);
  file << value.dump(1) << "\n";
  file.close();
  if (!file) return absl::UnavailableError(StrCat(path, ": cannot be written"));
  return absl::OkStatus();
}

}  // namespace fairlead::bench

// SPDX-License-Identifier: Apache-2.0
#include "server/commands/json_lines.h"

#include <string>

namespace fairlead {

absl::Status AnswerJsonLines(std::istream& in, std::ostream& out,
                             const std::function<absl::StatusOr<Json>(const Json&)>& answer) {
  std::string line;
  while (std::getline(in, line)) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    absl::StatusOr<Json> result = ParseJson(line);
    if (result.ok()) result = answer(*result);
    if (!result.ok()) result = Json{{"error", std::string(result.status().message())}};
    out << DumpJson(*result) << '\n' << std::flush;
    if (!out) return absl::DataLossError("the output cannot be written");
  }
  return absl::OkStatus();
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// One JSON object a line in, {"template": text, "variables": object}; one a line out: {"text": the
// prompt, "runs": [[begin, end, trusted], ...]}, offsets in bytes, or {"error": message}. For
// jinja_differential.py. The clock stands at 2025-07-04 09:05:03.
#include <iostream>
#include <string>

#include "absl/time/civil_time.h"
#include "absl/time/time.h"
#include "models/chat_template.h"

namespace fairlead {
namespace {

absl::StatusOr<RenderedPrompt> Render(const Json& line, absl::Time now) {
  auto parsed = ParseChatTemplate(line["template"].get_ref<const std::string&>());
  if (!parsed.ok()) return parsed.status();
  return (*parsed)->Render(line["variables"], now);
}

int Main() {
  const absl::Time now =
      absl::FromCivil(absl::CivilSecond(2025, 7, 4, 9, 5, 3), absl::LocalTimeZone());
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto prompt = Render(Json::parse(line), now);
    Json answer = Json::object();
    if (prompt.ok()) {
      answer["text"] = prompt->text;
      answer["runs"] = Json::array();
      for (const RenderedPrompt::Run& run : prompt->runs)
        answer["runs"].push_back({run.begin, run.end, run.trusted});
    } else {
      answer["error"] = prompt.status().message();
    }
    std::cout << DumpJson(answer) << '\n';
  }
  return 0;
}

}  // namespace
}  // namespace fairlead

int main() { return fairlead::Main(); }

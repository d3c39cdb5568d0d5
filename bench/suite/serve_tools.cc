// SPDX-License-Identifier: Apache-2.0
#include "bench/suite/serve_tools.h"

#include <utility>

#include "absl/strings/str_split.h"
#include "kernels/strings.h"

namespace fairlead::bench {

absl::StatusOr<RunningServer> StartFairlead(const std::vector<std::string>& command,
                                            absl::Duration timeout, const std::string& log) {
  auto started = Background::Start(command, log);
  if (!started.ok()) return started.status();
  const auto line = started->FirstLine(timeout);
  if (!line.ok()) {
    return absl::Status(
        line.status().code(),
        StrCat(ShellLine(command), ": ", std::string(line.status().message()), "; see ", log));
  }
  const auto ready = ParseJson(*line);
  if (!ready.ok()) return ready.status();
  return RunningServer{.process = *std::move(started),
                       .http = ready->value("http", ""),
                       .grpc = ready->value("grpc", "")};
}

absl::StatusOr<Json> RunServeBench(const std::vector<std::string>& program,
                                   const std::string& protocol, const std::string& address,
                                   const std::vector<std::string>& arguments,
                                   const std::string& log) {
  std::vector<std::string> command = program;
  command.insert(command.end(), {protocol, address, "--json", "-"});
  command.insert(command.end(), arguments.begin(), arguments.end());
  const auto output = OutputOf(command, log);
  if (!output.ok()) return output.status();
  for (const absl::string_view line : absl::StrSplit(*output, '\n', absl::SkipWhitespace())) {
    auto json = ParseJson({line.data(), line.size()});
    if (json.ok() && json->is_object() && json->value("type", "") == "summary")
      return *std::move(json);
  }
  return absl::InternalError(StrCat("no summary from ", ShellLine(command)));
}

}  // namespace fairlead::bench

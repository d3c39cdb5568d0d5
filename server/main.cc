// SPDX-License-Identifier: Apache-2.0
// The fairlead binary. Exit codes: 0 done, 1 failed, 2 wrong usage; either with one line
// "error: ..." on stderr.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "server/commands/command.h"
#include "server/version.h"

namespace {

constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;

int Fail(int code, const std::string& message) {
  // One line, whatever the message quotes.
  std::string line = message;
  for (char& c : line) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  std::fprintf(stderr, "error: %s\n", line.c_str());
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  const absl::Time process_start = absl::Now();
  CLI::App app("Fairlead serves language models over gRPC and OpenAI's HTTP API.", "fairlead");
  app.set_version_flag("--version", "fairlead " + std::string(fairlead::kVersion));
  app.require_subcommand(1);
  fairlead::Command chosen;
  fairlead::AddServeCommand(app, chosen, process_start);
  fairlead::AddGenerateCommand(app, chosen);
  fairlead::AddChatCommand(app, chosen);
  fairlead::AddTokenizeCommand(app, chosen);
  fairlead::AddRenderCommand(app, chosen);
  fairlead::AddInspectCommand(app, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    if (app.get_subcommands().empty() && argc > 1 && argv[1][0] != '-') {
      return Fail(kWrongUsage,
                  "there is no command '" + std::string(argv[1]) + "' (--help lists the commands)");
    }
    return Fail(kWrongUsage, std::string(error.what()) + " (--help lists the options)");
  }
  // Our code throws nothing, but its libraries may: out of memory, no more threads.
  absl::Status status;
  try {
    status = chosen();
  } catch (const std::exception& error) {
    status = absl::InternalError(error.what());
  }
  if (status.ok()) {
    // A full disk must not look like a success.
    const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
    return written ? 0 : Fail(kFailed, "the output cannot be written");
  }
  return Fail(fairlead::IsUsageError(status) ? kWrongUsage : kFailed,
              std::string(status.message()));
}

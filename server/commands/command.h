// SPDX-License-Identifier: Apache-2.0
// The subcommands. Each adds itself to the command line; the one that was called is run afterwards.
// Main thread.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace fairlead {

// Runs the command. An error is printed and ends the process with 1, a UsageError with 2.
using Command = std::function<absl::Status()>;

absl::Status UsageError(std::string_view message);
bool IsUsageError(const absl::Status& status);

// `chosen` is set when the subcommand is on the command line.
void AddServeCommand(CLI::App& app, Command& chosen, absl::Time process_start);
void AddGenerateCommand(CLI::App& app, Command& chosen);
void AddChatCommand(CLI::App& app, Command& chosen);
void AddTokenizeCommand(CLI::App& app, Command& chosen);
void AddRenderCommand(CLI::App& app, Command& chosen);
void AddInspectCommand(CLI::App& app, Command& chosen);

}  // namespace fairlead

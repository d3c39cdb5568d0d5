// SPDX-License-Identifier: Apache-2.0
// Child processes. One thread.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace fairlead::bench {

// "a b 'c d'", to be shown and pasted.
std::string ShellLine(const std::vector<std::string>& command);

struct Finished {
  int exit_code = 0;                                       // 128 + number for a signal
  std::string output;                                      // stdout
  absl::Duration first_output = absl::InfiniteDuration();  // from the start to the first byte
};

// Runs to the end; stderr goes to `log`. kNotFound when the program cannot be started.
absl::StatusOr<Finished> RunCommand(const std::vector<std::string>& command,
                                    const std::string& log);
// The same; an exit code other than 0 is kInternal, with the command and the log's name.
absl::StatusOr<std::string> OutputOf(const std::vector<std::string>& command,
                                     const std::string& log);

// A process that serves until this is destroyed: SIGTERM, and SIGKILL when that does not end it.
class Background {
 public:
  Background() = default;
  Background(Background&& other) noexcept { *this = std::move(other); }
  Background& operator=(Background&& other) noexcept;
  ~Background() { Stop(); }

  static absl::StatusOr<Background> Start(const std::vector<std::string>& command,
                                          const std::string& log);
  // The first line of its stdout; kInternal when it ends before or takes longer.
  absl::StatusOr<std::string> FirstLine(absl::Duration timeout);
  bool IsRunning();
  void Stop();

 private:
  pid_t pid_ = -1;
  int output_ = -1;
};

}  // namespace fairlead::bench

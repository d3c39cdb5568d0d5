// SPDX-License-Identifier: Apache-2.0
#include "bench/suite/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "absl/time/clock.h"
#include "kernels/strings.h"

namespace fairlead::bench {
namespace {

struct Child {
  pid_t pid = -1;
  int output = -1;
};

absl::StatusOr<Child> Spawn(const std::vector<std::string>& command, const std::string& log) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::InternalError("pipe2 failed");
  std::vector<char*> arguments;
  for (const std::string& argument : command)
    arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);  // no server outlives the bench
    const int errors = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    dup2(ends[1], STDOUT_FILENO);
    if (errors >= 0) dup2(errors, STDERR_FILENO);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  close(ends[1]);
  if (pid < 0) {
    close(ends[0]);
    return absl::InternalError(StrCat("fork: ", strerror(errno)));
  }
  return Child{pid, ends[0]};
}

int WaitFor(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

std::string ShellLine(const std::vector<std::string>& command) {
  std::string line;
  for (const std::string& argument : command) {
    if (!line.empty()) line += ' ';
    const bool plain = !argument.empty() &&
                       argument.find_first_of(" \t\n'\"\\$`*?[](){}<>|&;~#") == std::string::npos;
    if (plain) {
      line += argument;
      continue;
    }
    line += '\'';
    for (const char c : argument) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += '\'';
  }
  return line;
}

absl::StatusOr<Finished> RunCommand(const std::vector<std::string>& command,
                                    const std::string& log) {
  const absl::Time begin = absl::Now();
  const absl::StatusOr<Child> child = Spawn(command, log);
  if (!child.ok()) return child.status();
  Finished finished;
  char buffer[65536];
  for (;;) {
    const ssize_t got = read(child->output, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    if (finished.output.empty()) finished.first_output = absl::Now() - begin;
    finished.output.append(buffer, static_cast<size_t>(got));
  }
  close(child->output);
  finished.exit_code = WaitFor(child->pid);
  if (finished.exit_code == 127)
    return absl::NotFoundError(StrCat(command[0], ": cannot be started"));
  return finished;
}

absl::StatusOr<std::string> OutputOf(const std::vector<std::string>& command,
                                     const std::string& log) {
  absl::StatusOr<Finished> finished = RunCommand(command, log);
  if (!finished.ok()) return finished.status();
  if (finished->exit_code != 0) {
    return absl::InternalError(StrCat("exit code ", finished->exit_code, " of: ",
                                      ShellLine(command), " (its messages are in ", log, ")"));
  }
  return std::move(finished->output);
}

Background& Background::operator=(Background&& other) noexcept {
  Stop();
  pid_ = std::exchange(other.pid_, -1);
  output_ = std::exchange(other.output_, -1);
  return *this;
}

absl::StatusOr<Background> Background::Start(const std::vector<std::string>& command,
                                             const std::string& log) {
  const absl::StatusOr<Child> child = Spawn(command, log);
  if (!child.ok()) return child.status();
  Background background;
  background.pid_ = child->pid;
  background.output_ = child->output;
  return background;
}

absl::StatusOr<std::string> Background::FirstLine(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  std::string line;
  for (;;) {
    pollfd waited = {output_, POLLIN, 0};
    const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
    if (left <= 0) return absl::InternalError("it took too long to get ready");
    if (poll(&waited, 1, static_cast<int>(left)) <= 0) continue;
    char c;
    const ssize_t got = read(output_, &c, 1);
    if (got == 0) return absl::InternalError("it ended before it was ready");
    if (got < 0) continue;
    if (c == '\n') return line;
    line += c;
  }
}

bool Background::IsRunning() {
  if (pid_ > 0 && waitpid(pid_, nullptr, WNOHANG) == pid_) pid_ = -1;
  return pid_ > 0;
}

void Background::Stop() {
  if (IsRunning()) {
    kill(pid_, SIGTERM);
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    while (IsRunning() && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(20));
    if (IsRunning()) {
      kill(pid_, SIGKILL);
      WaitFor(pid_);
    }
  }
  pid_ = -1;
  if (output_ >= 0) close(output_);
  output_ = -1;
}

}  // namespace fairlead::bench

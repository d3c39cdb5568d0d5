// SPDX-License-Identifier: Apache-2.0
#include "server/shutdown_signal.h"

#include <semaphore.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>

namespace fairlead {
namespace {

// What a handler may touch: lock-free atomics and a semaphore.
sem_t arrived;
std::atomic<int> first_signal{0};
std::atomic<bool> orderly{false};

void Handle(int signal) {
  const int saved_errno = errno;
  int none = 0;
  if (!orderly.load() || !first_signal.compare_exchange_strong(none, signal)) _exit(128 + signal);
  sem_post(&arrived);
  errno = saved_errno;
}

}  // namespace

ShutdownSignal::ShutdownSignal() {
  sem_init(&arrived, 0, 0);
  struct sigaction action {};
  action.sa_handler = Handle;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, nullptr);
}

void ShutdownSignal::BecomeOrderly() { orderly.store(true); }

int ShutdownSignal::Wait() {
  while (sem_wait(&arrived) != 0) {  // EINTR
  }
  return first_signal.load();
}

}  // namespace fairlead

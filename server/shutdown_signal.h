// SPDX-License-Identifier: Apache-2.0
// SIGTERM and SIGINT: the first asks for an orderly end, the second ends the process at once. While
// nothing is served yet, the first one does, too. SIGPIPE is ignored: a client that has gone is an
// error of its socket. One object a process.
#pragma once

namespace fairlead {

class ShutdownSignal {
 public:
  ShutdownSignal();  // installs the handlers

  // From here on the first signal waits to be seen by Wait.
  void BecomeOrderly();
  // Blocks until the first signal; returns its number.
  int Wait();
};

}  // namespace fairlead

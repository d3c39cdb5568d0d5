// SPDX-License-Identifier: Apache-2.0
// One setting of a command: a name, a help text, and how its text becomes a value and the value
// JSON. A command's settings are one list of these, which gives the defaults, the command line, the
// YAML keys, --help and /config. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "models/json.h"

namespace fairlead {

// An amount of memory: bytes, or a share of what is free.
struct MemorySize {
  uint64_t bytes = 0;
  double percent = 0;  // used when above 0
};

// Where a port listens; host "" is a port that is off.
struct ListenAddress {
  std::string host;
  int port = 0;

  bool off() const { return host.empty(); }
  bool IsLoopback() const;
  std::string ToString() const;  // "[::1]:8000", "off"
};

// "512MiB", "2G", "1500000", "25%": K, M, G, T and KiB .. are powers of 1024, KB .. of 1000.
absl::Status ParseMemorySize(std::string_view text, MemorySize& size);
// "127.0.0.1:8000", "[::1]:0", "localhost:8000", "off".
absl::Status ParseListenAddress(std::string_view text, ListenAddress& address);

struct Flag {
  std::string name;   // without the dashes
  std::string value;  // what --help calls the value; "" for a switch
  std::string help;
  bool secret = false;
  std::function<absl::Status(std::string_view)> set;  // errors: the value and what is allowed
  std::function<Json()> get;
};

// The fields live at least as long as the flags.
Flag TextFlag(std::string name, std::string value, std::string help, std::string* field);
Flag ChoiceFlag(std::string name, std::vector<std::string> choices, std::string help,
                std::string* field);
Flag IntFlag(std::string name, int low, int high, std::string help, int* field);
// JSON null while the field is empty.
Flag OptionalIntFlag(std::string name, int64_t low, int64_t high, std::string help,
                     std::optional<int64_t>* field);
Flag OptionalNumberFlag(std::string name, double low, double high, std::string help,
                        std::optional<double>* field);
Flag NumberFlag(std::string name, double low, double high, std::string help, double* field);
Flag SwitchFlag(std::string name, std::string help, bool* field);
Flag MemoryFlag(std::string name, std::string help, std::optional<MemorySize>* field);
Flag BytesFlag(std::string name, uint64_t low, uint64_t high, std::string help, uint64_t* field);
Flag AddressFlag(std::string name, std::string help, ListenAddress* field);

}  // namespace fairlead

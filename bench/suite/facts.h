// SPDX-License-Identifier: Apache-2.0
// What a result says of where it was measured. Any thread.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "models/json.h"

namespace fairlead::bench {

// {"cpu", "cpu_flags": those that matter for arithmetic, "cores", "memory_bytes", "kernel",
//  "system", "governor", "mhz": the last two null where the kernel does not tell}
Json MachineFacts();

// {"compiler", "flags", "type", "version"}: of this build.
Json BuildFacts();

// {"commit", "dirty"} of the checkout; nulls outside one.
Json CommitFacts(const std::string& checkout);

// Hexadecimal. kNotFound when the file cannot be read.
absl::StatusOr<std::string> Sha256OfFile(const std::string& path);

// Those of /proc/cpuinfo's flags that name vector and matrix instructions.
std::string VectorFlags(const std::string& cpuinfo);

}  // namespace fairlead::bench

// SPDX-License-Identifier: Apache-2.0
// Who may call. Immutable after loading: any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace fairlead {

// The caller, as the adapters authenticated it. cache_salt keeps one tenant's prefix cache from
// another's.
struct Principal {
  std::string name;  // "anonymous", or "key-<first 8 hex digits of the key's SHA-256>": safe to log
  uint64_t cache_salt = 0;
};

class KeyStore {
 public:
  // Everybody is "anonymous".
  static KeyStore AllowAnonymous();
  // One key a line, plain or "sha256:<64 hex digits>"; blank lines and lines that start with '#'
  // are skipped. Errors name the file and the line, never the key. A file without any key is an
  // error.
  static absl::StatusOr<KeyStore> FromFile(const std::string& path);

  // Checks the value of an Authorization header ("Bearer <key>", scheme in any case). Compares
  // SHA-256 digests in constant time against every key. nullopt: refused.
  std::optional<Principal> Authenticate(std::string_view authorization) const;
  bool anonymous() const { return digests_.empty(); }

 private:
  std::vector<std::string> digests_;  // 32 bytes each
};

}  // namespace fairlead

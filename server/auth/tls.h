// SPDX-License-Identifier: Apache-2.0
// The certificate and key both ports use. Immutable: any thread.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace fairlead {

// PEM texts, checked at start-up: both parse, the key belongs to the first certificate.
struct TlsIdentity {
  std::string certificate_chain;
  std::string private_key;
};

// Errors name the file and what is wrong with it, never its content.
absl::StatusOr<TlsIdentity> LoadTlsIdentity(const std::string& certificate_path,
                                            const std::string& key_path);

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// Certificates for tests, made on the spot.
#pragma once

#include <string>

namespace fairlead {

struct TlsMaterial {
  std::string certificate;  // PEM, self-signed, for localhost and 127.0.0.1
  std::string key;          // PEM
};

TlsMaterial MakeTlsMaterial();

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "server/auth/keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <cstring>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace fairlead {
namespace {

constexpr absl::string_view kHashPrefix = "sha256:";

std::string Sha256(absl::string_view text) {
  std::string digest(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
  return digest;
}

bool IsHex(absl::string_view text) {
  for (const char c : text) {
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) return false;
  }
  return true;
}

}  // namespace

KeyStore KeyStore::AllowAnonymous() { return KeyStore(); }

absl::StatusOr<KeyStore> KeyStore::FromFile(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat("API key file ", path, ": cannot be read"));
  KeyStore store;
  std::string raw;
  for (int line = 1; std::getline(file, raw); ++line) {
    const absl::string_view text = absl::StripAsciiWhitespace(raw);
    if (text.empty() || text.front() == '#') continue;
    if (!absl::StartsWith(text, kHashPrefix)) {
      for (const char c : text) {
        if (absl::ascii_isspace(static_cast<unsigned char>(c)) ||
            absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
          return absl::InvalidArgumentError(
              absl::StrCat("API key file ", path, ", line ", line,
                           ": a key cannot contain whitespace or control characters"));
        }
      }
      store.digests_.push_back(Sha256(text));
      continue;
    }
    const absl::string_view hex = text.substr(kHashPrefix.size());
    if (hex.size() != 2 * SHA256_DIGEST_LENGTH || !IsHex(hex)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "API key file ", path, ", line ", line, ": sha256: must be followed by 64 hex digits"));
    }
    store.digests_.push_back(absl::HexStringToBytes(hex));
  }
  if (file.bad())
    return absl::InvalidArgumentError(absl::StrCat("API key file ", path, ": cannot be read"));
  if (store.digests_.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("API key file ", path, ": holds no key"));
  }
  return store;
}

std::optional<Principal> KeyStore::Authenticate(std::string_view authorization) const {
  if (anonymous()) return Principal{"anonymous", 0};
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() <= kScheme.size() ||
      !absl::EqualsIgnoreCase({authorization.data(), kScheme.size()},
                              {kScheme.data(), kScheme.size()})) {
    return std::nullopt;
  }
  const absl::string_view key = absl::StripAsciiWhitespace(
      {authorization.data() + kScheme.size(), authorization.size() - kScheme.size()});
  const std::string digest = Sha256(key);
  // Every key is compared, so the time does not tell which one was close.
  int match = 0;
  for (const std::string& known : digests_) {
    match |= CRYPTO_memcmp(known.data(), digest.data(), digest.size()) == 0 ? 1 : 0;
  }
  if (match == 0) return std::nullopt;
  uint64_t salt = 0;
  std::memcpy(&salt, digest.data(), sizeof(salt));
  return Principal{absl::StrCat("key-", absl::BytesToHexString(digest.substr(0, 4))), salt};
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "server/auth/tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <fstream>
#include <memory>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace fairlead {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;

template <auto kFree>
struct Deleter {
  template <typename T>
  void operator()(T* value) const {
    kFree(value);
  }
};
using BioPtr = std::unique_ptr<BIO, Deleter<BIO_free>>;
using X509Ptr = std::unique_ptr<X509, Deleter<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;

absl::StatusOr<std::string> ReadFile(const char* what, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  // Reading a folder fails here, not when it is opened.
  if (!file || !(text << file.rdbuf()) || file.bad())
    return absl::NotFoundError(absl::StrCat(what, " ", path, ": cannot be read"));
  std::string bytes = text.str();
  if (bytes.size() > kMaxFileBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " ", path, ": has ", bytes.size(), " bytes; at most ", kMaxFileBytes));
  }
  return bytes;
}

// OpenSSL's reason for the last failure, in a few words; the queue is empty afterwards.
std::string TakeReason() {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  std::string text = reason != nullptr ? reason : "unknown format";
  ERR_clear_error();
  return text;
}

BioPtr Memory(const std::string& text) {
  return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// An encrypted key is an error: nobody is there to ask.
int NoPassphrase(char*, int, int, void*) { return -1; }

absl::StatusOr<X509Ptr> ParseChain(const std::string& path, const std::string& pem) {
  const BioPtr bio = Memory(pem);
  ERR_clear_error();
  X509Ptr first(PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, nullptr));
  if (first == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("TLS certificate ", path, ": holds no PEM certificate (", TakeReason(), ")"));
  }
  while (X509Ptr next{PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, nullptr)}) {
  }
  // The end of the file is "no start line"; anything else is a damaged certificate.
  if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
    return absl::InvalidArgumentError(absl::StrCat(
        "TLS certificate ", path, ": a certificate of the chain is damaged (", TakeReason(), ")"));
  }
  ERR_clear_error();
  return first;
}

}  // namespace

absl::StatusOr<TlsIdentity> LoadTlsIdentity(const std::string& certificate_path,
                                            const std::string& key_path) {
  absl::StatusOr<std::string> chain = ReadFile("TLS certificate", certificate_path);
  if (!chain.ok()) return chain.status();
  absl::StatusOr<std::string> key_pem = ReadFile("TLS key", key_path);
  if (!key_pem.ok()) return key_pem.status();
  const absl::StatusOr<X509Ptr> certificate = ParseChain(certificate_path, *chain);
  if (!certificate.ok()) return certificate.status();

  const BioPtr bio = Memory(*key_pem);
  const KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, nullptr));
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("TLS key ", key_path, ": holds no PEM private key without a passphrase (",
                     TakeReason(), ")"));
  }
  if (X509_check_private_key(certificate->get(), key.get()) != 1) {
    ERR_clear_error();
    return absl::InvalidArgumentError(absl::StrCat(
        "TLS key ", key_path, ": does not belong to the first certificate of ", certificate_path));
  }
  return TlsIdentity{*std::move(chain), *std::move(key_pem)};
}

}  // namespace fairlead

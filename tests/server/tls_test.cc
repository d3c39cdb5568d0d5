// SPDX-License-Identifier: Apache-2.0
#include "server/auth/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/server/tls_material.h"

namespace fairlead {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Write(const char* name, const std::string& text) {
  const auto path = std::filesystem::path(testing::TempDir()) / name;
  std::ofstream(path, std::ios::binary) << text;
  return path.string();
}

std::string ErrorOf(const std::string& certificate, const std::string& key) {
  const auto identity =
      LoadTlsIdentity(Write("tls_test.crt", certificate), Write("tls_test.key", key));
  EXPECT_FALSE(identity.ok());
  return std::string(identity.status().message());
}

TEST(Tls, AMatchingPairIsLoaded) {
  const TlsMaterial material = MakeTlsMaterial();
  const std::string chain = material.certificate + MakeTlsMaterial().certificate;
  const auto identity =
      LoadTlsIdentity(Write("tls_test.crt", chain), Write("tls_test.key", material.key));
  ASSERT_TRUE(identity.ok()) << identity.status();
  EXPECT_EQ(identity->certificate_chain, chain);
  EXPECT_EQ(identity->private_key, material.key);
}

TEST(Tls, ErrorsNameTheFileAndTheReason) {
  const TlsMaterial material = MakeTlsMaterial();
  EXPECT_THAT(ErrorOf("not a certificate", material.key), HasSubstr("tls_test.crt: holds no PEM"));
  EXPECT_THAT(ErrorOf(material.key, material.key), HasSubstr("tls_test.crt: holds no PEM"));
  EXPECT_THAT(ErrorOf(material.certificate, "nothing"), HasSubstr("tls_test.key: holds no PEM"));
  EXPECT_THAT(ErrorOf(material.certificate, material.certificate),
              HasSubstr("tls_test.key: holds no PEM"));
  EXPECT_THAT(ErrorOf(material.certificate, MakeTlsMaterial().key),
              HasSubstr("does not belong to the first certificate"));
  const std::string cut = material.certificate.substr(0, material.certificate.size() / 2);
  EXPECT_THAT(ErrorOf(cut, material.key), HasSubstr("tls_test.crt"));
  EXPECT_THAT(ErrorOf(material.certificate + cut, material.key), HasSubstr("damaged"));
  // A base64 line of the key never appears.
  const std::string secret = material.key.substr(material.key.find('\n') + 1, 32);
  EXPECT_THAT(ErrorOf("x", material.key), Not(HasSubstr(secret)));
}

TEST(Tls, FilesThatCannotBeRead) {
  const TlsMaterial material = MakeTlsMaterial();
  const std::string certificate = Write("tls_test.crt", material.certificate);
  EXPECT_THAT(std::string(LoadTlsIdentity("/no/such.crt", certificate).status().message()),
              HasSubstr("/no/such.crt"));
  EXPECT_THAT(std::string(LoadTlsIdentity(certificate, "/no/such.key").status().message()),
              HasSubstr("/no/such.key"));
  EXPECT_FALSE(LoadTlsIdentity(testing::TempDir(), certificate).ok());
}

}  // namespace
}  // namespace fairlead

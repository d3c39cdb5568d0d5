// SPDX-License-Identifier: Apache-2.0
#include "server/auth/keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace fairlead {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// `printf %s secret | sha256sum`
constexpr char kSecretHash[] = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

absl::StatusOr<KeyStore> Load(const std::string& text) {
  const auto path = std::filesystem::path(testing::TempDir()) / "keys_test.txt";
  std::ofstream(path, std::ios::binary) << text;
  return KeyStore::FromFile(path.string());
}

TEST(Keys, PlainAndHashedKeysAreEqual) {
  for (const std::string& line :
       {std::string("secret"), std::string("sha256:") + kSecretHash, std::string("  secret \r")}) {
    const auto keys = Load("# a comment\n\n" + line + "\nother\n");
    ASSERT_TRUE(keys.ok()) << keys.status();
    EXPECT_FALSE(keys->anonymous());
    const auto principal = keys->Authenticate("Bearer secret");
    ASSERT_TRUE(principal.has_value());
    EXPECT_EQ(principal->name, "key-2bb80d53");
    EXPECT_TRUE(keys->Authenticate("bearer other").has_value());
    EXPECT_NE(keys->Authenticate("Bearer other")->cache_salt, principal->cache_salt);
  }
}

TEST(Keys, EverythingElseIsRefused) {
  const auto keys = Load("secret\n");
  ASSERT_TRUE(keys.ok());
  for (const std::string& value :
       {std::string(), std::string("secret"), std::string("Bearer"), std::string("Bearer "),
        std::string("Bearer secre"), std::string("Bearer secrets"), std::string("Basic secret"),
        std::string("Bearer Secret"), std::string("Bearer sha256:") + kSecretHash,
        std::string("Bearer ") + kSecretHash, std::string("Bearersecret")}) {
    EXPECT_FALSE(keys->Authenticate(value).has_value()) << value;
  }
}

TEST(Keys, AnonymousIsEverybody) {
  const KeyStore keys = KeyStore::AllowAnonymous();
  EXPECT_TRUE(keys.anonymous());
  EXPECT_EQ(keys.Authenticate("")->name, "anonymous");
}

TEST(Keys, ErrorsNameTheLineAndNeverTheKey) {
  const std::pair<const char*, const char*> cases[] = {
      {"ok\nhunter2 hunter3\n", "line 2"},
      {"sha256:hunter2\n", "line 1"},
      {"sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25hunter2\n", "line 1"},
      {"ok\n\nhunter2\x01x\n", "line 3"},
      {"# hunter2\n", "holds no key"},
      {"", "holds no key"},
  };
  for (const auto& [text, expected] : cases) {
    const auto keys = Load(text);
    ASSERT_FALSE(keys.ok()) << text;
    EXPECT_THAT(std::string(keys.status().message()),
                AllOf(HasSubstr(expected), HasSubstr("keys_test.txt"), Not(HasSubstr("hunter2"))));
  }
  EXPECT_FALSE(KeyStore::FromFile("/no/such/file").ok());
  EXPECT_FALSE(KeyStore::FromFile(testing::TempDir()).ok());
}

}  // namespace
}  // namespace fairlead

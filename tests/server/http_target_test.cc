// SPDX-License-Identifier: Apache-2.0
#include "server/http/target.h"

#include <gtest/gtest.h>

namespace fairlead {
namespace {

TEST(PathOfTarget, OriginForm) {
  EXPECT_EQ(PathOfTarget("/v1/models"), "/v1/models");
  EXPECT_EQ(PathOfTarget("/v1/models?a=/b?c"), "/v1/models");
  EXPECT_EQ(PathOfTarget(""), "");
  EXPECT_EQ(PathOfTarget("*"), "*");
}

TEST(PathOfTarget, AbsoluteForm) {
  EXPECT_EQ(PathOfTarget("http://h:8000/health?x"), "/health");
  EXPECT_EQ(PathOfTarget("HTTPS://h/a%20b"), "/a b");
  EXPECT_EQ(PathOfTarget("http://h"), "/");
  EXPECT_EQ(PathOfTarget("http://h?/x"), "/");
  EXPECT_EQ(PathOfTarget("/http://h/x"), "/http://h/x");
}

TEST(PathOfTarget, Escapes) {
  EXPECT_EQ(PathOfTarget("/v1/models/org%2Fmy%20model%3a1"), "/v1/models/org/my model:1");
  EXPECT_EQ(PathOfTarget("/%C3%A9"), "/\xC3\xA9");
  EXPECT_EQ(PathOfTarget("/a%3Fb?c"), "/a?b");
  EXPECT_EQ(PathOfTarget("/%2525"), "/%25") << "decoded once";
  EXPECT_EQ(PathOfTarget("/%"), "/%");
  EXPECT_EQ(PathOfTarget("/%4"), "/%4");
  EXPECT_EQ(PathOfTarget("/%4g%zz"), "/%4g%zz");
}

}  // namespace
}  // namespace fairlead

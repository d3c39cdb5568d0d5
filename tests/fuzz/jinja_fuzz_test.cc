// SPDX-License-Identifier: Apache-2.0
// The fuzz entry on the template goldens: as they are, cut off, and with bytes changed. The entry
// aborts if one of its promises breaks.
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <random>
#include <string>

#include "gtest/gtest.h"
#include "models/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace fairlead {
namespace {

int RunEntry(const std::string& input) {
  return LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

class JinjaFuzz : public ::testing::TestWithParam<const char*> {};

TEST_P(JinjaFuzz, KeepsItsPromisesOnMutatedGoldens) {
  std::ifstream file(std::string(FAIRLEAD_GOLDEN_DIR "/templates/") + GetParam());
  ASSERT_TRUE(file.good());
  const Json golden = Json::parse(file);
  std::mt19937 random(1);
  for (const Json& one : golden["cases"]) {
    const Json& source = one.contains("template")
                             ? one["template"]
                             : golden["templates"][one["template_name"].get<std::string>()];
    const std::string text = source.get<std::string>();
    const std::string variables =
        '\0' + DumpJson(one.contains("variables") ? one["variables"] : golden["variables"]);
    EXPECT_EQ(RunEntry(text + variables), 0) << one["name"];
    for (int round = 0; round < 4; ++round) {
      const size_t at = random() % text.size();
      EXPECT_EQ(RunEntry(text.substr(0, at) + variables), 0) << one["name"];
      EXPECT_EQ(RunEntry(text.substr(at) + variables), 0) << one["name"];
      std::string changed = text;
      changed[at] = "{}%()[]|.'\\-+ "[random() % 14];
      EXPECT_EQ(RunEntry(changed + variables), 0) << one["name"];
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Files, JinjaFuzz, ::testing::Values("chat.json", "language.json"));

}  // namespace
}  // namespace fairlead

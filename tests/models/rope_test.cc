// SPDX-License-Identifier: Apache-2.0
#include "models/rope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/models/checkpoint_bytes.h"

namespace fairlead {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Json Parse(const std::string& text) {
  absl::StatusOr<Json> json = ParseJson(text);
  EXPECT_TRUE(json.ok()) << json.status() << text;
  return json.ok() ? *json : Json();
}

// Expected values: tests/golden/make/make_rope.py, numpy float32. Power functions differ in the
// last bit.
TEST(RopeTest, FrequenciesEqualTransformers) {
  const Json cases =
      Parse(ReadWholeFile(std::string(FAIRLEAD_GOLDEN_DIR) + "/rope/frequencies.json"));
  ASSERT_EQ(cases.size(), 7u);
  for (const Json& entry : cases) {
    const auto rope = ParseRope(entry["config"], entry["head_dim"]);
    ASSERT_TRUE(rope.ok()) << entry["name"] << rope.status();
    const std::vector<float> actual = RopeInverseFrequencies(*rope);
    const auto expected = entry["frequencies"].get<std::vector<float>>();
    ASSERT_EQ(actual.size(), expected.size()) << entry["name"];
    for (size_t i = 0; i < actual.size(); ++i) {
      EXPECT_NEAR(actual[i], expected[i], 4e-7 * expected[i]) << entry["name"] << " " << i;
    }
  }
}

// The rule itself, in double and by hand: theta 10000, 32 elements, original 64, low 1, high 4,
// factor 8.
TEST(RopeTest, Llama3MixesBetweenTheWavelengths) {
  RopeConfig rope{.theta = 10000,
                  .rotary_dim = 32,
                  .scaling = RopeScaling::kLlama3,
                  .factor = 8,
                  .low_frequency_factor = 1,
                  .high_frequency_factor = 4,
                  .original_positions = 64,
                  .divisors = {}};
  const std::vector<float> actual = RopeInverseFrequencies(rope);
  int kept = 0, mixed = 0, stretched = 0;
  for (int i = 0; i < 16; ++i) {
    const double frequency = std::pow(10000.0, -i / 16.0);
    const double rotations = 64 * frequency / (2 * M_PI);  // of the original context
    double expected = frequency;
    if (rotations < 1) {
      expected = frequency / 8;
      ++stretched;
    } else if (rotations <= 4) {
      const double smooth = (rotations - 1) / 3;
      expected = frequency * ((1 - smooth) / 8 + smooth);
      ++mixed;
    } else {
      ++kept;
    }
    EXPECT_NEAR(actual[i], expected, 1e-6 * expected) << i;
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(mixed, 0);
  EXPECT_GT(stretched, 0);
}

TEST(RopeTest, DivisorsApplyAfterLinearScaling) {
  const auto rope = ParseRope(
      Parse(
          R"({"rope_theta":100,"rope_scaling":{"type":"linear","factor":2},"rope_frequency_divisors":[1,4]})"),
      4);
  ASSERT_TRUE(rope.ok()) << rope.status();
  EXPECT_THAT(RopeInverseFrequencies(*rope),
              ::testing::ElementsAre(0.5f, ::testing::FloatEq(0.1f / 2 / 4)));
}

TEST(RopeTest, Defaults) {
  const auto rope = ParseRope(Parse(R"({"rope_scaling":null})"), 64);
  ASSERT_TRUE(rope.ok()) << rope.status();
  EXPECT_EQ(rope->theta, 10000);
  EXPECT_EQ(rope->rotary_dim, 64);
  EXPECT_EQ(rope->pairing, RopePairing::kHalves);
  EXPECT_EQ(rope->scaling, RopeScaling::kNone);
  EXPECT_TRUE(rope->divisors.empty());
}

TEST(RopeTest, BothFormsAreRead) {
  const auto older =
      ParseRope(Parse(R"({"rope_theta":5e5,"rope_scaling":{"type":"linear","factor":4}})"), 8);
  const auto newer = ParseRope(
      Parse(
          R"({"rope_parameters":{"rope_type":"linear","rope_theta":500000.0,"factor":4,"partial_rotary_factor":0.5}})"),
      8);
  ASSERT_TRUE(older.ok()) << older.status();
  ASSERT_TRUE(newer.ok()) << newer.status();
  for (const auto& rope : {*older, *newer}) {
    EXPECT_EQ(rope.theta, 5e5);
    EXPECT_EQ(rope.scaling, RopeScaling::kLinear);
    EXPECT_EQ(rope.factor, 4);
  }
  EXPECT_EQ(older->rotary_dim, 8);
  EXPECT_EQ(newer->rotary_dim, 4);
}

struct Refusal {
  std::string config;
  absl::StatusCode code;
  std::string said;
};

class RopeRefusal : public ::testing::TestWithParam<Refusal> {};

TEST_P(RopeRefusal, NamesTheReason) {
  const auto rope = ParseRope(Parse(GetParam().config), 8);
  EXPECT_EQ(rope.status().code(), GetParam().code) << GetParam().config;
  EXPECT_THAT(std::string(rope.status().message()), HasSubstr(GetParam().said))
      << GetParam().config;
}

constexpr auto kUnknown = absl::StatusCode::kUnimplemented;
constexpr auto kWrong = absl::StatusCode::kInvalidArgument;

INSTANTIATE_TEST_SUITE_P(
    All, RopeRefusal,
    ::testing::Values(
        Refusal{R"({"rope_scaling":{"type":"dynamic","factor":4}})", kUnknown,
                "\"dynamic\" is not supported; known: default, linear, llama3, yarn, longrope"},
        Refusal{R"({"rope_scaling":{"rope_type":"yarn"}})", kWrong,
                "\"rope_scaling.factor\" is missing"},
        Refusal{R"({"rope_scaling":{"rope_type":"yarn","factor":4,"beta_fast":0}})", kWrong,
                "\"rope_scaling.beta_fast\" is 0"},
        Refusal{R"({"rope_theta":1,"rope_scaling":{"rope_type":"yarn","factor":4}})", kWrong,
                "\"rope_theta\" is 1; YaRN needs one above 1"},
        Refusal{R"({"rope_scaling":{"type":"longrope"}})", kWrong, "\"rope_scaling.short_factor\""},
        Refusal{
            R"({"rope_scaling":{"type":"su","short_factor":[1,1,1,0],"long_factor":[1,1,1,1]}})",
            kWrong, "\"rope_scaling.short_factor\" must be a list of numbers from 1e-06"},
        Refusal{
            R"({"rope_scaling":{"type":"longrope","short_factor":[1,1,1,1],"long_factor":[1]}})",
            kWrong, "\"longrope\" has 1 factors; 4 are needed"},
        Refusal{R"({"rope_scaling":{"type":"mrope","rope_type":"default"}})", kUnknown,
                "\"mrope\""},
        Refusal{R"({"rope_scaling":{"rope_type":"default","mrope_section":[1]}})", kUnknown,
                "\"mrope_section\""},
        Refusal{R"({"rope_parameters":{"full_attention":{"rope_type":"default"}}})", kUnknown,
                "\"full_attention\""},
        Refusal{R"({"rope_scaling":"linear"})", kWrong, "must be an object"},
        Refusal{R"({"rope_scaling":{"type":3}})", kWrong, "\"rope_scaling.type\" is 3"},
        Refusal{R"({"rope_scaling":{"type":"linear"}})", kWrong,
                "\"rope_scaling.factor\" is missing"},
        Refusal{R"({"rope_scaling":{"type":"linear","factor":0.5}})", kWrong,
                "\"rope_scaling.factor\" is 0.5"},
        Refusal{R"({"rope_scaling":{"type":"linear","factor":1e300}})", kWrong, "1e+300"},
        Refusal{
            R"({"rope_scaling":{"type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":4,
                    "original_max_position_embeddings":64}})",
            kWrong, "must be below high_freq_factor"},
        Refusal{
            R"({"rope_scaling":{"type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4}})",
            kWrong, "original_max_position_embeddings\" is missing"},
        Refusal{R"({"rope_theta":0})", kWrong, "\"rope_theta\" is 0"},
        Refusal{R"({"rope_theta":-1e4})", kWrong, "\"rope_theta\" is -10000"},
        Refusal{R"({"rope_theta":"1e4"})", kWrong, "\"rope_theta\" is \"1e4\""},
        Refusal{R"({"rope_theta":1e4,"rope_parameters":{"rope_theta":2e4}})", kWrong,
                "but 20000 in rope_parameters"},
        Refusal{
            R"({"rope_scaling":{"type":"linear","factor":2},"rope_parameters":{"rope_type":"default"}})",
            kWrong, "contradict"},
        Refusal{R"({"partial_rotary_factor":0.4})", kWrong, "rotates 3 of 8"},
        Refusal{R"({"rotary_dim":10})", kWrong, "\"rotary_dim\" is 10"},
        Refusal{R"({"rope_pairing":"diagonal"})", kWrong, "\"diagonal\""},
        Refusal{R"({"rope_frequency_divisors":[1,1,1]})", kWrong, "4 numbers are needed"},
        Refusal{R"({"rope_frequency_divisors":[1,1,1,0]})", kWrong, "rope_freqs.weight"},
        Refusal{
            R"({"rope_frequency_divisors":[1,1,1,8],"rope_scaling":{"type":"llama3","factor":8,"low_freq_factor":1,
                    "high_freq_factor":4,"original_max_position_embeddings":64}})",
            kWrong, "scale twice"}));

}  // namespace
}  // namespace fairlead

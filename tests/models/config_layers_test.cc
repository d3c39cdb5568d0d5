// SPDX-License-Identifier: Apache-2.0
// What differs from layer to layer, as transformers' configs say it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/config.h"

namespace fairlead {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr Family kWindows = {.features = "window max_window_layers"};
constexpr Family kExperts = {.features = "experts"};
constexpr Family kNoRope = {.features = "no_rope_layers"};

Json SixLayers(const std::string& changes) {
  Json config = Json::parse(R"({"hidden_size":64,"intermediate_size":144,"num_hidden_layers":6,
      "num_attention_heads":4,"num_key_value_heads":2,"vocab_size":512,
      "max_position_embeddings":256})");
  config.update(Json::parse(changes));
  return config;
}

template <typename Value>
std::vector<Value> OfLayers(const std::string& changes, const Family& family,
                            Value LayerConfig::*member) {
  const auto config = ParseConfig(SixLayers(changes), family);
  EXPECT_TRUE(config.ok()) << changes << config.status();
  std::vector<Value> values;
  if (!config.ok()) return values;
  for (const LayerConfig& layer : config->layer) values.push_back(layer.*member);
  return values;
}
std::vector<int> Windows(const std::string& changes) {
  return OfLayers(changes, kWindows, &LayerConfig::window);
}

TEST(ConfigLayersTest, WindowsOfAllLayersOrOfThoseThatTheConfigNames) {
  EXPECT_THAT(Windows(R"({"sliding_window":8})"), ElementsAre(8, 8, 8, 8, 8, 8));
  EXPECT_THAT(Windows(R"({"sliding_window":null})"), ElementsAre(0, 0, 0, 0, 0, 0));
  // Qwen2: layers from max_window_layers on, if use_sliding_window is true.
  EXPECT_THAT(Windows(R"({"sliding_window":8,"use_sliding_window":true,"max_window_layers":4})"),
              ElementsAre(0, 0, 0, 0, 8, 8));
  EXPECT_THAT(Windows(R"({"sliding_window":8,"use_sliding_window":false,"max_window_layers":4})"),
              ElementsAre(0, 0, 0, 0, 0, 0));
  // Gemma: every layer but each sliding_window_pattern-th.
  EXPECT_THAT(Windows(R"({"sliding_window":8,"sliding_window_pattern":3})"),
              ElementsAre(8, 8, 0, 8, 8, 0));
  EXPECT_THAT(
      Windows(
          R"({"sliding_window":8,"sliding_window_pattern":[true,false,false,true,true,false]})"),
      ElementsAre(8, 0, 0, 8, 8, 0));
  EXPECT_THAT(Windows(R"({"sliding_window":8,"layer_types":["full_attention","sliding_attention",
      "full_attention","full_attention","full_attention","sliding_attention"]})"),
              ElementsAre(0, 8, 0, 0, 0, 8));
}

TEST(ConfigLayersTest, NoWindowsWhereTheConfigSwitchesThemOff) {
  const std::string types = R"("layer_types":["full_attention","sliding_attention",
      "full_attention","full_attention","full_attention","sliding_attention"])";
  EXPECT_THAT(Windows(R"({"sliding_window":8,"use_sliding_window":false,)" + types + "}"),
              ElementsAre(0, 0, 0, 0, 0, 0));
  EXPECT_THAT(Windows(R"({"sliding_window":8,"use_sliding_window":null})"),
              ElementsAre(0, 0, 0, 0, 0, 0));
  // Qwen3-MoE has the key and gives it no meaning.
  constexpr Family everywhere = {.features = "window"};
  EXPECT_THAT(
      OfLayers(R"({"sliding_window":8,"max_window_layers":4})", everywhere, &LayerConfig::window),
      ElementsAre(8, 8, 8, 8, 8, 8));
  // SmolLM3: layers that do not rotate.
  constexpr Family smollm3 = {.features = "window no_rope_layers"};
  EXPECT_THAT(
      OfLayers(R"({"sliding_window":8,"no_rope_layer_interval":3})", smollm3, &LayerConfig::window),
      ElementsAre(0, 0, 8, 0, 0, 8));
}

TEST(ConfigLayersTest, LayersWithAWindowHaveTheLocalRope) {
  const std::string local = R"({"sliding_window":8,"sliding_window_pattern":3,"rope_theta":1e6,
      "rope_local_base_freq":1e4,"rope_scaling":{"rope_type":"linear","factor":8}})";
  EXPECT_THAT(OfLayers(local, kWindows, &LayerConfig::rope), ElementsAre(1, 1, 0, 1, 1, 0));
  const auto config = ParseConfig(SixLayers(local), kWindows);
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_EQ(config->ropes.size(), 2u);
  EXPECT_EQ(config->ropes[0].theta, 1e6);
  EXPECT_EQ(config->ropes[0].scaling, RopeScaling::kLinear);
  EXPECT_EQ(config->ropes[1].theta, 1e4);
  EXPECT_EQ(config->ropes[1].scaling, RopeScaling::kNone);
}

TEST(ConfigLayersTest, LayersWithoutRope) {
  constexpr int kNone = LayerConfig::kNoRope;
  EXPECT_THAT(OfLayers(R"({"no_rope_layers":[1,0,1,1,0,1]})", kNoRope, &LayerConfig::rope),
              ElementsAre(0, kNone, 0, 0, kNone, 0));
  EXPECT_THAT(OfLayers(R"({"no_rope_layer_interval":3})", kNoRope, &LayerConfig::rope),
              ElementsAre(0, 0, kNone, 0, 0, kNone));
}

TEST(ConfigLayersTest, LayersWithExperts) {
  EXPECT_THAT(OfLayers(R"({"num_experts":4,"num_experts_per_tok":2,"mlp_only_layers":[0,3]})",
                       kExperts, &LayerConfig::experts),
              ElementsAre(false, true, true, false, true, true));
  EXPECT_THAT(OfLayers(R"({"num_experts":4,"num_experts_per_tok":2,"decoder_sparse_step":2})",
                       kExperts, &LayerConfig::experts),
              ElementsAre(false, true, false, true, false, true));
}

void ExpectRefused(const std::string& changes, const Family& family, const std::string& said) {
  const auto config = ParseConfig(SixLayers(changes), family);
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << changes;
  EXPECT_THAT(std::string(config.status().message()), HasSubstr(said)) << changes;
}

TEST(ConfigLayersTest, ListsThatDoNotFitTheLayersAreRefused) {
  ExpectRefused(R"({"sliding_window":8,"layer_types":["sliding_attention"]})", kWindows,
                "must have one entry for each of the 6 layers");
  ExpectRefused(R"({"sliding_window":8,"layer_types":[1,2,3,4,5,6]})", kWindows, "\"layer_types\"");
  ExpectRefused(R"({"sliding_window":8,"sliding_window_pattern":[true]})", kWindows,
                "\"sliding_window_pattern\"");
  ExpectRefused(R"({"sliding_window":-1})", kWindows, "\"sliding_window\" is -1");
  ExpectRefused(R"({"no_rope_layers":[1,0]})", kNoRope, "\"no_rope_layers\" is [1,0]");
  ExpectRefused(R"({"no_rope_layer_interval":0})", kNoRope, "\"no_rope_layer_interval\" is 0");
  ExpectRefused(R"({"num_experts":4,"num_experts_per_tok":5})", kExperts,
                "\"num_experts_per_tok\" is 5; it must be an integer from 1 to 4");
  ExpectRefused(R"({"num_experts":100000,"num_experts_per_tok":2})", kExperts,
                "\"num_experts\" is 100000");
  ExpectRefused(R"({"num_experts":4,"num_experts_per_tok":2,"mlp_only_layers":[6]})", kExperts,
                "it must list layers from 0 to 5");
  ExpectRefused(R"({"num_experts":4,"num_experts_per_tok":2,"mlp_only_layers":3})", kExperts,
                "\"mlp_only_layers\" is 3");
  ExpectRefused(R"({"num_experts":4,"num_experts_per_tok":2,"moe_intermediate_size":0})", kExperts,
                "\"moe_intermediate_size\" is 0");
}

}  // namespace
}  // namespace fairlead

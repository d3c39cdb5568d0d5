// SPDX-License-Identifier: Apache-2.0
#include "models/text_part.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fairlead {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

CheckpointContents Contents(const char* config, const std::vector<std::string>& names) {
  CheckpointContents contents;
  contents.path = "folder";
  contents.config = Json::parse(config);
  for (const std::string& name : names) {
    contents.tensors.emplace_back();
    contents.tensors.back().name = name;
  }
  return contents;
}

std::vector<std::string> Names(const CheckpointContents& contents) {
  std::vector<std::string> names;
  for (const WeightInfo& tensor : contents.tensors) names.push_back(tensor.name);
  return names;
}

constexpr const char* kMistral3 = R"({
  "architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3",
  "torch_dtype": "bfloat16", "tie_word_embeddings": false, "image_token_index": 10,
  "text_config": {"model_type": "mistral", "hidden_size": 5120, "tie_word_embeddings": true},
  "vision_config": {"hidden_size": 1024}})";

TEST(TextPart, TakesTheConfigAndWhatItLeavesToTheWhole) {
  CheckpointContents contents = Contents(kMistral3, {});
  ASSERT_TRUE(TakeTextPart(contents).ok());
  EXPECT_EQ(contents.config, Json::parse(R"({
    "model_type": "mistral", "hidden_size": 5120, "tie_word_embeddings": false,
    "torch_dtype": "bfloat16",
    "architectures": ["MistralForCausalLM"], "text_part_of": "Mistral3ForConditionalGeneration"})"));
}

TEST(TextPart, TheHeadIsTiedUnlessTheWholeSaysOtherwise) {
  CheckpointContents contents =
      Contents(R"({"architectures": ["Gemma3ForConditionalGeneration"], "text_config": {}})", {});
  ASSERT_TRUE(TakeTextPart(contents).ok());
  EXPECT_EQ(contents.config["tie_word_embeddings"], true);
}

TEST(TextPart, KnowsPublishedAndNewNamesAndLeavesTheOthersOut) {
  CheckpointContents contents = Contents(
      kMistral3, {"language_model.model.norm.weight", "vision_tower.transformer.layers.0.x.weight",
                  "language_model.lm_head.weight", "multi_modal_projector.linear_1.weight"});
  contents.skipped = {{.name = "model.vision_tower.position_ids", .dtype = "I64"},
                      {.name = "language_model.model.rotary.inv_freq", .dtype = "F64"}};
  ASSERT_TRUE(TakeTextPart(contents).ok());
  EXPECT_THAT(Names(contents), ElementsAre("model.norm.weight", "lm_head.weight"));
  ASSERT_EQ(contents.skipped.size(), 1u);
  EXPECT_EQ(contents.skipped[0].name, "model.rotary.inv_freq");

  contents = Contents(kMistral3, {"model.language_model.norm.weight", "lm_head.weight",
                                  "model.multi_modal_projector.norm.weight"});
  ASSERT_TRUE(TakeTextPart(contents).ok());
  EXPECT_THAT(Names(contents), ElementsAre("model.norm.weight", "lm_head.weight"));
}

TEST(TextPart, LeavesOtherCheckpointsAlone) {
  for (const char* config : {R"({"architectures": ["LlamaForCausalLM"], "text_config": 1})",
                             R"({"architectures": []})", R"({"architectures": [7]})", "{}"}) {
    CheckpointContents contents = Contents(config, {"vision_tower.x"});
    ASSERT_TRUE(TakeTextPart(contents).ok()) << config;
    EXPECT_EQ(contents.config, Json::parse(config));
    EXPECT_THAT(Names(contents), ElementsAre("vision_tower.x"));
  }
}

TEST(TextPart, RefusesWhatItCannotTake) {
  CheckpointContents contents =
      Contents(R"({"architectures": ["Gemma3ForConditionalGeneration"], "text_config": [1]})", {});
  absl::Status status = TakeTextPart(contents);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("\"text_config\" of Gemma3ForConditionalGeneration"));

  contents = Contents(R"({"architectures": ["Mistral3ForConditionalGeneration"],
                          "text_config": {"model_type": "ministral3"}})",
                      {});
  status = TakeTextPart(contents);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(status.message(), HasSubstr("\"ministral3\""));
  EXPECT_THAT(status.message(), HasSubstr("known: mistral"));
}

}  // namespace
}  // namespace fairlead

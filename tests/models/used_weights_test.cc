// SPDX-License-Identifier: Apache-2.0
// Which tensors of a checkpoint a model leaves aside: none of the goldens', neither of their
// folders nor of their GGUF files, and those that are named.
#include "models/used_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "models/embedding_model.h"
#include "models/encoder_config.h"
#include "models/overlay_weights.h"
#include "tests/reference/reference_device.h"

namespace fairlead {
namespace {

constexpr int kPositions = 64;

absl::StatusOr<std::vector<std::string>> UnusedOf(const WeightSource& source) {
  const UsedWeights weights(source);
  const auto device = reference::MakeReferenceDevice();
  const absl::Status status = IsEncoder(weights)
                                  ? LoadEmbeddingModel(weights, *device, kPositions).status()
                                  : LoadModel(weights, *device, kPositions).status();
  if (!status.ok()) return status;
  return weights.Unused();
}

TEST(UsedWeightsTest, OfGoldensNothingIsLeft) {
  int loaded = 0;
  for (const char* folder : {FAIRLEAD_GOLDEN_DIR "/models", FAIRLEAD_TWINS_DIR}) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      const bool checkpoint = entry.is_directory() || entry.path().extension() == ".gguf";
      if (!checkpoint) continue;
      SCOPED_TRACE(entry.path());
      const auto source = OpenWeights(entry.path());
      ASSERT_TRUE(source.ok()) << source.status();
      const auto unused = UnusedOf(**source);
      if (absl::IsUnimplemented(unused.status())) continue;  // architectures that we lack
      // A backbone without a head is for embeddings.
      if (entry.path().filename() == "qwen3-embedding") continue;
      ASSERT_TRUE(unused.ok()) << unused.status();
      EXPECT_THAT(*unused, testing::IsEmpty());
      ++loaded;
    }
  }
  EXPECT_GT(loaded, 80);
}

TEST(UsedWeightsTest, WhatTheModelHasNoPlaceForIsNamed) {
  const auto source = OpenWeights(FAIRLEAD_GOLDEN_DIR "/models/llama-gqa");
  ASSERT_TRUE(source.ok()) << source.status();
  WeightInfo extra = *(*source)->Find("model.norm.weight");
  extra.name = "model.layers.0.self_attn.q_norm.weight";
  extra.file_name = "a";
  WeightInfo known = extra;
  known.name = "model.layers.0.self_attn.rotary_emb.inv_freq";
  const auto unused = UnusedOf(OverlayWeights(**source, {extra, known}));
  ASSERT_TRUE(unused.ok()) << unused.status();
  EXPECT_THAT(*unused, testing::ElementsAre("a"));
}

}  // namespace
}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "server/kv_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fairlead {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// 1,000 bytes a block of 16 tokens, a context of 1,600 tokens: 100 blocks.
KvPlanInput Input() {
  return {.block_bytes = 1000,
          .block_tokens = 16,
          .model_positions = 1600,
          .max_num_seqs = 4,
          .free_bytes = 1'000'000,
          .max_model_len = std::nullopt,
          .memory = std::nullopt};
}

TEST(KvPlan, AQuarterOfWhatIsFree) {
  const auto plan = PlanKvCache(Input());
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->bytes, 250'000u);
  EXPECT_EQ(plan->max_model_len, 1600);
  EXPECT_FALSE(plan->shortened);
}

TEST(KvPlan, WhatWeightsMustLeave) {
  KvPlanInput input = Input();
  EXPECT_EQ(KvBytesToKeep(input), 62'500u);  // a sixteenth
  input.free_bytes = 10'000'000;
  EXPECT_EQ(KvBytesToKeep(input), 100'000u);  // a request
  input.memory = MemorySize{.percent = 50};
  EXPECT_EQ(KvBytesToKeep(input), 100'000u);  // a share is one of what the weights leave
  input.free_bytes = 100'000;
  input.max_model_len = 1000;
  EXPECT_EQ(KvBytesToKeep(input), 63'000u);
  input.memory = MemorySize{.bytes = 64'000};
  EXPECT_EQ(KvBytesToKeep(input), 64'000u);
}

TEST(KvPlan, NoMoreThanAllSequencesCanUse) {
  KvPlanInput input = Input();
  input.free_bytes = 100'000'000;
  EXPECT_EQ(PlanKvCache(input)->bytes, 400'000u);
  input.max_model_len = 17;  // two blocks
  EXPECT_EQ(PlanKvCache(input)->bytes, 8'000u);
  EXPECT_EQ(PlanKvCache(input)->max_model_len, 17);
}

TEST(KvPlan, WhatIsAskedForIsTaken) {
  KvPlanInput input = Input();
  input.memory = MemorySize{.bytes = 900'000};  // more than the default takes
  EXPECT_EQ(PlanKvCache(input)->bytes, 900'000u);
  input.memory = MemorySize{.percent = 50};
  EXPECT_EQ(PlanKvCache(input)->bytes, 500'000u);
}

TEST(KvPlan, ShortensTheContextToWhatFits) {
  KvPlanInput input = Input();
  input.memory = MemorySize{.bytes = 10'999};
  const auto plan = PlanKvCache(input);
  ASSERT_TRUE(plan.ok());
  EXPECT_TRUE(plan->shortened);
  EXPECT_EQ(plan->max_model_len, 160);
}

TEST(KvPlan, AContextThatWasAskedForIsNotShortened) {
  KvPlanInput input = Input();
  input.memory = MemorySize{.bytes = 10'000};
  input.max_model_len = 161;
  const auto plan = PlanKvCache(input);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(plan.status().message()),
              AllOf(HasSubstr("160"), HasSubstr("161"), HasSubstr("11000")));
  input.max_model_len = 160;
  EXPECT_TRUE(PlanKvCache(input).ok());
}

TEST(KvPlan, MoreThanIsFree) {
  KvPlanInput input = Input();
  input.memory = MemorySize{.bytes = 1'000'001};
  const auto plan = PlanKvCache(input);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(plan.status().message()),
              AllOf(HasSubstr("1000001"), HasSubstr("1000000")));
  input.memory = MemorySize{.percent = 100};
  EXPECT_EQ(PlanKvCache(input)->bytes, 1'000'000u);
}

TEST(KvPlan, NotEvenOneBlock) {
  KvPlanInput input = Input();
  input.memory = MemorySize{.bytes = 999};
  EXPECT_EQ(PlanKvCache(input).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(KvPlan, TheModelsContextIsTheLimit) {
  KvPlanInput input = Input();
  input.max_model_len = 100'000;
  EXPECT_EQ(PlanKvCache(input)->max_model_len, 1600);
}

}  // namespace
}  // namespace fairlead

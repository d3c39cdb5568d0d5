// SPDX-License-Identifier: Apache-2.0
#include "tests/models/golden_checkpoint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "tests/models/checkpoint_bytes.h"

namespace fairlead {
namespace {

struct Difference {
  double largest = 0, rms = 0;
};

Difference Compare(const std::vector<float>& got, const float* want) {
  Difference difference;
  double sum = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double d = std::abs(static_cast<double>(got[i]) - want[i]);
    // A NaN anywhere must not pass as a small difference, nor be lost to a later one.
    difference.largest =
        std::isnan(d) ? std::numeric_limits<double>::infinity() : std::max(difference.largest, d);
    sum += d * d;
  }
  difference.rms = std::sqrt(sum / got.size());
  return difference;
}

// How far two greedy runs agree, as far as they can be compared.
int AgreeingSteps(const std::vector<Token>& got, const std::vector<Token>& want) {
  size_t i = 0;
  while (i < got.size() && i < want.size() && got[i] == want[i]) ++i;
  return static_cast<int>(i);
}

// As many positions as the goldens of `prompt` tokens need. LongRoPE chooses by them, as
// transformers does by the sequence: phi3-longrope's prompts of 17 end at its original 32.
int Positions(size_t prompt) {
  constexpr size_t kGreedy = 16;
  return prompt + kGreedy - 1 <= 32 ? 32 : GoldenCheckpoint::kMaxTokens;
}

// For fidelity_table.py, which reads it from gtest's report.
void Record(const char* numerics, const Device& device, double difference) {
  testing::Test::RecordProperty(absl::StrCat(numerics, " ", device.info().name),
                                absl::StrCat(difference));
}

}  // namespace

std::string GoldenCheckpoint::Folder(const std::string& name) {
  return absl::StrCat(FAIRLEAD_GOLDEN_DIR, "/models/", name);
}

absl::StatusOr<GoldenCheckpoint> GoldenCheckpoint::Read(const std::string& name) {
  GoldenCheckpoint checkpoint;
  checkpoint.name_ = name;
  auto golden = ParseJson(ReadWholeFile(Folder(name) + "/golden.json"));
  if (!golden.ok()) return golden.status();
  checkpoint.golden_ = *std::move(golden);
  const std::string bytes = ReadWholeFile(Folder(name) + "/golden.f32");
  checkpoint.values_.resize(bytes.size() / sizeof(float));
  std::memcpy(checkpoint.values_.data(), bytes.data(), checkpoint.values_.size() * sizeof(float));
  checkpoint.tolerance_ =
      std::max(1e-3, 20 * checkpoint.golden_["float32_vs_float64"].get<double>());
  return checkpoint;
}

void GoldenCheckpoint::ForEachSequence(const std::string& weights, const MakeDevice& make,
                                       const Check& check) const {
  for (const Json& sequence : golden_["sequences"]) {
    const auto ids = sequence["ids"].get<std::vector<Token>>();
    auto runner = ModelRunner::Open(weights, make(), Positions(ids.size()));
    ASSERT_TRUE(runner.ok()) << runner.status();
    check(**runner, sequence, (*runner)->Run(ids, static_cast<int>(ids.size())));
  }
}

const float* GoldenCheckpoint::Want(const Json& sequence) const {
  return values_.data() + sequence["logits"]["offset"].get<size_t>();
}

void GoldenCheckpoint::ExpectFloat32(const std::string& weights, const MakeDevice& make) const {
  double largest = 0;
  const auto check = [&](ModelRunner& runner, const Json& sequence,
                         const std::vector<float>& logits) {
    const auto ids = sequence["ids"].get<std::vector<Token>>();
    const Difference d = Compare(logits, Want(sequence));
    EXPECT_LE(d.largest, tolerance_) << "length " << ids.size();
    largest = std::max(largest, d.largest);
    runner.Restart();
    EXPECT_GE(AgreeingSteps(runner.Greedy(ids, 16), sequence["greedy"].get<std::vector<Token>>()),
              sequence["comparable_steps"].get<int>());
  };
  ForEachSequence(weights, make, check);
  Record("float32", *make(), largest);
}

void GoldenCheckpoint::ExpectPrecise(const std::string& weights, const MakeDevice& make) const {
  // There a router's near tie takes another expert.
  const bool ties = name_.starts_with("qwen3-moe");
  double rms = 0;
  const auto check = [&](ModelRunner&, const Json& sequence, const std::vector<float>& logits) {
    const Difference d = Compare(logits, Want(sequence));
    EXPECT_LE(d.rms, ties ? 0.4 : 0.15) << "length " << sequence["ids"].size();
    EXPECT_LE(d.largest, ties ? 4.0 : 1.0) << "length " << sequence["ids"].size();
    rms = std::max(rms, d.rms);
  };
  ForEachSequence(weights, make, check);
  Record("precise", *make(), rms);
}

}  // namespace fairlead

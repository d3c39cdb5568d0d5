// SPDX-License-Identifier: Apache-2.0
// The merge queue against merging by the definition, on random vocabularies.
#include "models/bpe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace fairlead {
namespace {

std::string Itself(std::string_view spelling) { return std::string(spelling); }

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct RandomModel {
  std::vector<std::string> text;  // by id
  std::vector<std::pair<std::string, std::string>> rule;
  std::unique_ptr<Vocabulary> vocabulary;
  std::unique_ptr<BpeModel> bpe;
};

// Grows a vocabulary over a, b, c by merging tokens that are there. Every pair at most once.
std::unique_ptr<RandomModel> MakeRandomModel(std::mt19937& random) {
  auto model = std::make_unique<RandomModel>();
  model->text = {"a", "b", "c"};
  std::set<std::pair<std::string, std::string>> seen;
  for (int i = 0; i < 60; ++i) {
    const std::string left = model->text[random() % model->text.size()];
    const std::string right = model->text[random() % model->text.size()];
    if (left.size() + right.size() > 12 || !seen.insert({left, right}).second) continue;
    model->rule.emplace_back(left, right);
    if (std::find(model->text.begin(), model->text.end(), left + right) == model->text.end()) {
      model->text.push_back(left + right);
    }
  }
  std::vector<Vocabulary::Entry> entry;
  for (size_t i = 0; i < model->text.size(); ++i)
    entry.push_back({model->text[i], static_cast<int64_t>(i)});
  std::vector<BpeModel::Rule> rule;
  for (const auto& [left, right] : model->rule) rule.push_back({left, right});
  model->vocabulary = *Vocabulary::Create(entry, Itself);
  model->bpe = *BpeModel::Create(*model->vocabulary, rule, {});
  return model;
}

// By the definition: again and again the leftmost pair of the lowest rank.
std::vector<std::string> MergeByDefinition(const RandomModel& model, const std::string& word) {
  std::map<std::pair<std::string, std::string>, size_t> rank;
  for (size_t i = 0; i < model.rule.size(); ++i) rank[model.rule[i]] = i;
  std::vector<std::string> part;
  for (const char c : word) part.emplace_back(1, c);
  while (true) {
    size_t best = std::numeric_limits<size_t>::max();
    size_t at = 0;
    for (size_t i = 0; i + 1 < part.size(); ++i) {
      const auto found = rank.find({part[i], part[i + 1]});
      if (found != rank.end() && found->second < best) {
        best = found->second;
        at = i;
      }
    }
    if (best == std::numeric_limits<size_t>::max()) return part;
    part[at] += part[at + 1];
    part.erase(part.begin() + at + 1);
  }
}

TEST(Bpe, MergesByDefinition) {
  std::mt19937 random(7);
  BpeModel::Workspace workspace;
  for (int round = 0; round < 40; ++round) {
    const std::unique_ptr<RandomModel> model = MakeRandomModel(random);
    for (int i = 0; i < 50; ++i) {
      std::string word(random() % 60, 'a');
      for (char& c : word) c = static_cast<char>('a' + random() % 3);
      std::vector<Token> ids;
      model->bpe->Encode(word, &workspace, &ids);
      std::vector<std::string> got;
      for (const Token id : ids) got.push_back(model->text[id]);
      ASSERT_EQ(got, MergeByDefinition(*model, word)) << word;
    }
  }
}

// One word of a million characters: each merge queues at most two more, so the queue stays small.
TEST(Bpe, OneLongWordTakesLinearMemory) {
  const std::vector<Vocabulary::Entry> entry = {{"a", 0}, {"aa", 1}, {"aaaa", 2}, {"aaa", 3}};
  const auto vocabulary = *Vocabulary::Create(entry, Itself);
  const std::vector<BpeModel::Rule> rule = {{"a", "a"}, {"aa", "aa"}, {"aa", "a"}};
  const auto bpe = *BpeModel::Create(*vocabulary, rule, {});
  const size_t n = (1 << 20) + 3;
  BpeModel::Workspace workspace;
  std::vector<Token> ids;
  bpe->Encode(std::string(n, 'a'), &workspace, &ids);
  EXPECT_EQ(ids.size(), (1u << 18) + 1);
  EXPECT_EQ(ids.front(), 2);
  EXPECT_EQ(ids.back(), 3);
  EXPECT_LT(workspace.heap.capacity(), 3 * n);
  // Nobody waits for the end of it.
  const std::atomic<bool> cancelled{true};
  workspace.cancelled = &cancelled;
  ids.clear();
  bpe->Encode(std::string(n, 'a'), &workspace, &ids);
  EXPECT_GT(ids.size(), n - 2 * 4096);
}

TEST(Bpe, NamesTheMergeThatIsWrong) {
  const std::vector<Vocabulary::Entry> entry = {{"a", 0}, {"b", 1}};
  const auto vocabulary = *Vocabulary::Create(entry, Itself);
  const std::vector<BpeModel::Rule> rule = {{"a", "b"}};
  const absl::Status status = BpeModel::Create(*vocabulary, rule, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.ToString(), HasSubstr("merge 0: \"ab\""));
  const std::string endless(3000, 'x');
  const std::vector<BpeModel::Rule> unknown = {{endless, "b"}};
  EXPECT_EQ(BpeModel::Create(*vocabulary, unknown, {}).status().message(),
            "merge 0: \"" + std::string(80, 'x') + "...\" is not in the vocabulary");
}

TEST(Bpe, IgnoreMergesTakesWholeWords) {
  const std::vector<Vocabulary::Entry> entry = {{"a", 0}, {"b", 1}, {"ab", 2}};
  const auto vocabulary = *Vocabulary::Create(entry, Itself);
  BpeModel::Workspace workspace;
  for (const bool ignore : {false, true}) {
    BpeModel::Options options;
    options.ignore_merges = ignore;
    const auto bpe = *BpeModel::Create(*vocabulary, {}, options);
    std::vector<Token> ids;
    bpe->Encode("ab", &workspace, &ids);
    if (ignore) {
      EXPECT_THAT(ids, ElementsAre(2));
    } else {
      EXPECT_THAT(ids, ElementsAre(0, 1));
    }
  }
}

}  // namespace
}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// Every entry on its corpus: the inputs as they are, which include all that once broke a promise,
// and mutations of them. An entry aborts where one of its promises breaks.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "tests/sanitized.h"

extern "C" {
int config_json_fuzz(const uint8_t* data, size_t size);
int detokenizer_fuzz(const uint8_t* data, size_t size);
int embedding_request_fuzz(const uint8_t* data, size_t size);
int gguf_fuzz(const uint8_t* data, size_t size);
int jinja_fuzz(const uint8_t* data, size_t size);
int json_request_fuzz(const uint8_t* data, size_t size);
int packed_file_fuzz(const uint8_t* data, size_t size);
int pooling_fuzz(const uint8_t* data, size_t size);
int safetensors_fuzz(const uint8_t* data, size_t size);
int sentencepiece_fuzz(const uint8_t* data, size_t size);
int tokenizer_json_fuzz(const uint8_t* data, size_t size);
}

namespace fairlead {
namespace {

constexpr int kRounds = kSanitized ? 10 : 100;  // mutations of each input

struct Target {
  const char* name;
  int (*entry)(const uint8_t* data, size_t size);
};

void PrintTo(const Target& target, std::ostream* out) { *out << target.name; }

int RunEntry(const Target& target, const std::string& input) {
  return target.entry(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

std::vector<std::string> Corpus(const std::string& name) {
  std::vector<std::filesystem::path> paths;
  for (const auto& file : std::filesystem::directory_iterator(FAIRLEAD_FUZZ_CORPUS "/" + name)) {
    paths.push_back(file.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> inputs;
  for (const std::filesystem::path& path : paths) {
    std::ifstream file(path, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return inputs;
}

// A byte changed, a number made huge, a piece cut out or doubled, or the end cut off.
std::string Mutated(std::string input, std::mt19937& random) {
  if (input.empty()) return input;
  const size_t at = random() % input.size();
  const size_t size = std::min<size_t>(1 + random() % 16, input.size() - at);
  switch (random() % 6) {
    case 0:
      input[at] = static_cast<char>(random());
      break;
    case 1:
      input[at] = "\"\\{}[],:0-e. \n\x80\xff"[random() % 16];
      break;
    case 2:
      input.replace(at, size, size, random() % 2 == 0 ? '\xff' : '\0');
      break;
    case 3:
      input.erase(at, size);
      break;
    case 4:
      input.insert(at, input.substr(at, size));
      break;
    default:
      input.resize(at);
  }
  return input;
}

class FuzzReplay : public ::testing::TestWithParam<Target> {};

TEST_P(FuzzReplay, KeepsItsPromises) {
  const std::vector<std::string> inputs = Corpus(GetParam().name);
  ASSERT_FALSE(inputs.empty());
  std::mt19937 random(1);
  EXPECT_EQ(RunEntry(GetParam(), ""), 0);
  for (const std::string& input : inputs) {
    EXPECT_EQ(RunEntry(GetParam(), input), 0);
    for (int round = 0; round < kRounds; ++round) {
      std::string mutated = Mutated(input, random);
      if (round % 2 == 1) mutated = Mutated(std::move(mutated), random);
      EXPECT_EQ(RunEntry(GetParam(), mutated), 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Entries, FuzzReplay,
                         ::testing::Values(Target{"config_json", config_json_fuzz},
                                           Target{"detokenizer", detokenizer_fuzz},
                                           Target{"embedding_request", embedding_request_fuzz},
                                           Target{"gguf", gguf_fuzz}, Target{"jinja", jinja_fuzz},
                                           Target{"json_request", json_request_fuzz},
                                           Target{"packed_file", packed_file_fuzz},
                                           Target{"pooling", pooling_fuzz},
                                           Target{"safetensors", safetensors_fuzz},
                                           Target{"sentencepiece", sentencepiece_fuzz},
                                           Target{"tokenizer_json", tokenizer_json_fuzz}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace fairlead

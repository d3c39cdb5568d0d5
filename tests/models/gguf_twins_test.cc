// SPDX-License-Identifier: Apache-2.0
// The checkpoints of golden/models as GGUF files, which gguf_twins_files.py writes with the gguf
// package and llama.cpp has computed (golden/models/gguf_oracle.json): the same logits as the
// folders'.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "tests/models/checkpoint_bytes.h"
#include "tests/models/golden_checkpoint.h"

namespace fairlead {
namespace {

// Of encoders and of architectures that we lack.
constexpr std::array<std::string_view, 4> kOthers = {"bert", "ministral3", "nomic-bert",
                                                     "qwen3-embedding"};

std::vector<std::string> Decoders() {
  std::vector<std::string> names;
  const auto oracle = ParseJson(ReadWholeFile(GoldenCheckpoint::Folder("gguf_oracle.json")));
  if (!oracle.ok()) return names;
  for (const auto& [name, file] : (*oracle)["files"].items()) {
    if (std::find(kOthers.begin(), kOthers.end(), name) == kOthers.end()) names.push_back(name);
  }
  return names;
}

class GgufTwinTest : public testing::TestWithParam<std::string> {};

TEST_P(GgufTwinTest, GivesTheFoldersLogits) {
  const auto checkpoint = GoldenCheckpoint::Read(GetParam());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  for (const char* name : {"cpu", "host-simt:32", "host-simt:64"}) {
    SCOPED_TRACE(name);
    checkpoint->ExpectFloat32(FAIRLEAD_TWINS_DIR "/" + GetParam() + ".gguf", [&] {
      auto device = OpenDevice(name, {.threads = 2, .numerics = Numerics::kFloat32});
      EXPECT_TRUE(device.ok()) << device.status();
      return *std::move(device);
    });
  }
}

TEST(GgufTwinsTest, TheOracleNamesThem) { EXPECT_GE(Decoders().size(), 30u); }

INSTANTIATE_TEST_SUITE_P(Decoders, GgufTwinTest, testing::ValuesIn(Decoders()),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace fairlead

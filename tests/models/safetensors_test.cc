// SPDX-License-Identifier: Apache-2.0
#include "models/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "absl/strings/str_cat.h"
#include "kernels/strings.h"
#include "models/registry.h"
#include "tests/models/checkpoint_bytes.h"

namespace fairlead {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Matcher;
using ::testing::StartsWith;

std::string GoldenPath(const std::string& name) {
  return std::string(FAIRLEAD_GOLDEN_DIR) + "/models/" + name;
}

void ExpectRefused(const std::string& file, absl::StatusCode code,
                   const Matcher<std::string>& message) {
  const Bytes bytes = ToBytes(file);
  const auto table = ParseSafetensors(bytes, "evil.safetensors");
  ASSERT_FALSE(table.ok());
  EXPECT_EQ(table.status().code(), code) << table.status();
  EXPECT_THAT(std::string(table.status().message()),
              AllOf(StartsWith("evil.safetensors: "), message));
}

void ExpectMalformed(const std::string& header, std::string_view data,
                     const Matcher<std::string>& message) {
  ExpectRefused(SafetensorsFile(header, data), absl::StatusCode::kInvalidArgument, message);
}

struct Golden {
  std::string name;
  size_t tensors;
  DType dtype;
  std::vector<int64_t> q_dim;
};

class GoldenCheckpoint : public ::testing::TestWithParam<Golden> {};

TEST_P(GoldenCheckpoint, Opens) {
  const auto source = OpenWeights(GoldenPath(GetParam().name));
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->format(), WeightFormat::kSafetensors);
  EXPECT_TRUE((*source)->metadata().is_null());
  EXPECT_EQ((*source)->tensors().size(), GetParam().tensors);
  EXPECT_TRUE((*source)->skipped().empty());
  const WeightInfo* q = (*source)->Find("model.layers.1.self_attn.q_proj.weight");
  ASSERT_NE(q, nullptr);
  EXPECT_EQ(q->dtype, GetParam().dtype);
  EXPECT_EQ(q->dim, GetParam().q_dim);
  EXPECT_EQ(q->bytes, static_cast<size_t>(q->dim[0] * q->dim[1]) * Info(q->dtype).block_bytes);
  EXPECT_EQ((*source)->Find("model.layers.99.self_attn.q_proj.weight"), nullptr);
  const auto config = LoadModelConfig(**source);
  ASSERT_TRUE(config.ok()) << config.status();
  const WeightInfo* embedding = (*source)->Find("model.embed_tokens.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->dim, (std::vector<int64_t>{config->vocab, config->hidden}));
  EXPECT_EQ((*source)->Find("lm_head.weight") == nullptr, config->tied_head);
  EXPECT_EQ((*source)->Find("model.layers.0.mlp.up_proj.bias") != nullptr, config->mlp_bias);
}

// 2 + head, and 9 tensors a layer, 16 with biases.
INSTANTIATE_TEST_SUITE_P(All, GoldenCheckpoint,
                         ::testing::Values(Golden{"llama-gqa", 30, DType::kF32, {64, 64}},
                                           Golden{"llama-tied-mqa", 29, DType::kF32, {64, 64}},
                                           Golden{"llama-bias-sharded", 51, DType::kF32, {64, 64}},
                                           Golden{"llama-bf16", 30, DType::kBF16, {96, 96}},
                                           Golden{"llama-rope-llama3", 30, DType::kF32, {128, 64}},
                                           Golden{"llama-rope-linear", 21, DType::kF32, {64, 64}}),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

constexpr char kTwoTensors[] = R"({"__metadata__":{"format":"pt"},)"
                               R"("b":{"dtype":"F16","shape":[2,1],"data_offsets":[8,12]},)"
                               R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";

TEST(SafetensorsTest, ReadsShapesAndBytes) {
  const Bytes bytes = ToBytes(SafetensorsFile(kTwoTensors, "01234567abcd"));
  const auto table = ParseSafetensors(bytes, "two");
  ASSERT_TRUE(table.ok()) << table.status();
  ASSERT_EQ(table->tensors.size(), 2u);
  EXPECT_EQ(table->tensors[0].name, "a");  // by place, not by name
  EXPECT_EQ(table->tensors[0].dim, std::vector<int64_t>{2});
  EXPECT_EQ(table->tensors[1].dtype, DType::kF16);
  EXPECT_EQ(table->tensors[1].dim, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(table->tensors[1].bytes, 4u);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(table->tensors[1].data), 4), "abcd");
}

TEST(SafetensorsTest, ScalarsAndEmptyTensors) {
  const std::string header = R"({"scalar":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                             R"("empty":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]}})";
  const Bytes bytes = ToBytes(SafetensorsFile(header, "0123"));
  const auto table = ParseSafetensors(bytes, "odd");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->tensors.size(), 2u);
}

TEST(SafetensorsTest, IntegerTensorsAreSkippedButRemembered) {
  const std::string header = R"({"position_ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
                             R"("mask":{"dtype":"BOOL","shape":[4],"data_offsets":[8,12]},)"
                             R"("w":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}})";
  const Bytes bytes = ToBytes(SafetensorsFile(header, std::string(16, '\0')));
  const auto table = ParseSafetensors(bytes, "mixed");
  ASSERT_TRUE(table.ok()) << table.status();
  ASSERT_EQ(table->tensors.size(), 1u);
  EXPECT_EQ(table->tensors[0].name, "w");
  ASSERT_EQ(table->skipped.size(), 2u);
  EXPECT_EQ(table->skipped[1].name, "position_ids");
  EXPECT_EQ(table->skipped[1].dtype, "I64");
}

TEST(SafetensorsTest, UnknownDtypesAreNamed) {
  for (const std::string dtype : {"F64", "F4", "Q4_K"}) {
    const std::string header =
        R"({"model.w":{"dtype":")" + dtype + R"(","shape":[1],"data_offsets":[0,8]}})";
    ExpectRefused(SafetensorsFile(header, "01234567"), absl::StatusCode::kUnimplemented,
                  AllOf(HasSubstr("tensor \"model.w\": dtype \"" + dtype + "\" is not supported"),
                        HasSubstr("known: F32, F16, BF16, I32")));
  }
}

TEST(SafetensorsTest, LyingHeaderLengths) {
  std::string file;
  Put(file, std::numeric_limits<uint64_t>::max());
  ExpectRefused(file + "{}", absl::StatusCode::kInvalidArgument,
                HasSubstr("a header of 18446744073709551615 bytes"));
  file.clear();
  Put(file, uint64_t{3});
  ExpectRefused(file + "{}", absl::StatusCode::kInvalidArgument,
                HasSubstr("a header of 3 bytes at byte 8 of 10"));
  ExpectRefused("1234567", absl::StatusCode::kInvalidArgument, HasSubstr("truncated: 7 bytes"));
  ExpectRefused("", absl::StatusCode::kInvalidArgument, HasSubstr("truncated: 0 bytes"));
}

TEST(SafetensorsTest, HeadersThatAreNoTables) {
  ExpectMalformed("", "", HasSubstr("header (from byte 8): invalid JSON"));
  ExpectMalformed("[]", "", HasSubstr("no JSON object"));
  ExpectMalformed("{\"a\":", "", HasSubstr("invalid JSON at byte"));
  ExpectMalformed(std::string(100000, '['), "", HasSubstr("header"));
  ExpectMalformed(R"({"a":{"x":[[[[[1]]]]]}})", "", HasSubstr("nested deeper than 4"));
  ExpectMalformed(R"({"a":1})", "", HasSubstr("tensor \"a\": its description must be an object"));
  ExpectMalformed(R"({"a":{}})", "", HasSubstr("\"dtype\" must be a string"));
}

TEST(SafetensorsTest, DuplicateTensorNames) {
  const std::string entry = R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  ExpectMalformed("{" + entry + "," + entry + "}", "0123", HasSubstr("duplicate key \"a\""));
}

std::string OneTensor(const std::string& shape, const std::string& offsets) {
  return R"({"a":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

TEST(SafetensorsTest, LyingOffsetsAndShapes) {
  ExpectMalformed(OneTensor("[1]", "[0,8]"), "0123",
                  HasSubstr("tensor \"a\": data offsets 0 to 8 do not lie in the file's 4 bytes"));
  ExpectMalformed(OneTensor("[1]", "[4,0]"), "0123",
                  HasSubstr("data offsets 4 to 0 do not lie in"));
  ExpectMalformed(OneTensor("[1]", "[0,9223372036854775807]"), "0123", HasSubstr("do not lie in"));
  ExpectMalformed(OneTensor("[1]", "[0,18446744073709551615]"), "0123",
                  HasSubstr("\"data_offsets\" holds 18446744073709551615"));
  ExpectMalformed(OneTensor("[1]", "[-4,4]"), "0123", HasSubstr("\"data_offsets\" holds -4"));
  ExpectMalformed(OneTensor("[1]", "[0.0,4]"), "0123", HasSubstr("\"data_offsets\" holds 0.0"));
  ExpectMalformed(OneTensor("[1]", "[0]"), "0123", HasSubstr("must hold two integers"));
  ExpectMalformed(OneTensor("[1]", "[0,2,4]"), "0123", HasSubstr("at most 2 integers"));
  ExpectMalformed(OneTensor("[2]", "[0,4]"), "0123",
                  HasSubstr("hold 4 bytes, its shape and dtype take 8"));
  ExpectMalformed(OneTensor("[-1]", "[0,4]"), "0123", HasSubstr("\"shape\" holds -1"));
  ExpectMalformed(OneTensor("\"x\"", "[0,4]"), "0123", HasSubstr("\"shape\" must be an array"));
  ExpectMalformed(OneTensor("[1,1,1,1,1,1,1,1,1]", "[0,4]"), "0123", HasSubstr("at most 8"));
  ExpectMalformed(OneTensor("[4294967296,4294967296]", "[0,4]"), "0123", HasSubstr("overflows"));
  ExpectMalformed(OneTensor("[4611686018427387904]", "[0,0]"), "0123", HasSubstr("overflows"));
}

std::string TwoTensors(int a_begin, int a_end, int b_begin, int b_end) {
  return absl::StrCat(R"({"a":{"dtype":"U8","shape":[)", a_end - a_begin, R"(],"data_offsets":[)",
                      a_begin, ",", a_end, R"(]},"b":{"dtype":"I8","shape":[)", b_end - b_begin,
                      R"(],"data_offsets":[)", b_begin, ",", b_end, "]}}");
}

TEST(SafetensorsTest, HolesAndOverlaps) {
  ExpectMalformed(TwoTensors(0, 4, 3, 8), "01234567",
                  HasSubstr("tensors \"a\" and \"b\" overlap at data offset 3"));
  ExpectMalformed(TwoTensors(0, 8, 0, 8), "01234567", HasSubstr("overlap at data offset 0"));
  ExpectMalformed(TwoTensors(0, 4, 5, 8), "01234567",
                  HasSubstr("data offsets 4 to 5 before tensor \"b\""));
  ExpectMalformed(TwoTensors(1, 4, 4, 8), "01234567",
                  HasSubstr("data offsets 0 to 1 before tensor \"a\""));
  ExpectMalformed(TwoTensors(0, 4, 4, 8), "012345678",
                  HasSubstr("1 bytes at data offset 8 belong to no tensor"));
}

TEST(SafetensorsTest, EveryTruncationIsAnError) {
  const std::string file = SafetensorsFile(kTwoTensors, "01234567abcd");
  for (size_t length = 0; length < file.size(); ++length) {
    ExpectRefused(file.substr(0, length), absl::StatusCode::kInvalidArgument, HasSubstr(""));
  }
}

TEST(SafetensorsTest, FlippedBytesNeverCrash) {
  const std::string file = SafetensorsFile(kTwoTensors, "01234567abcd");
  std::mt19937_64 random(20240608);
  int opened = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string mutated = file;
    for (uint64_t flips = 1 + random() % 3; flips > 0; --flips) {
      constexpr std::string_view kChoices = "0123456789-.e[]{},:\"\\\xff";
      mutated[random() % mutated.size()] = kChoices[random() % kChoices.size()];
    }
    const Bytes bytes = ToBytes(mutated);
    const auto table = ParseSafetensors(bytes, "flipped");
    if (!table.ok()) continue;
    ++opened;
    for (const WeightInfo& tensor : table->tensors) {
      ASSERT_GE(tensor.data, bytes.data());
      ASSERT_LE(tensor.data + tensor.bytes, bytes.data() + bytes.size());
    }
  }
  EXPECT_GT(opened, 1000);  // names and data may change freely
}

class FolderTest : public ::testing::Test {
 protected:
  FolderTest() { folder_.Write("config.json", R"({"architectures":["LlamaForCausalLM"]})"); }
  void WriteShards(const std::string& weight_map) {
    folder_.Write("one.safetensors", SafetensorsFile(OneTensor("[1]", "[0,4]"), "0123"));
    folder_.Write("model.safetensors.index.json",
                  R"({"metadata":{},"weight_map":)" + weight_map + "}");
  }
  void ExpectError(absl::StatusCode code, const Matcher<std::string>& message) {
    const auto source = OpenWeights(folder_.path());
    ASSERT_FALSE(source.ok());
    EXPECT_EQ(source.status().code(), code) << source.status();
    EXPECT_THAT(std::string(source.status().message()), AllOf(HasSubstr(folder_.path()), message));
  }
  TemporaryFolder folder_;
};

TEST_F(FolderTest, MissingFiles) {
  ExpectError(absl::StatusCode::kNotFound,
              HasSubstr("neither model.safetensors nor model.safetensors.index.json"));
  const TemporaryFolder empty;
  EXPECT_EQ(OpenWeights(empty.path()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(OpenWeights(empty.path()).status().message()), HasSubstr("config.json"));
  EXPECT_EQ(OpenWeights(folder_.path() + "/config.json").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(FolderTest, BrokenConfigs) {
  for (const char* text : {"", "{", "[]", "{\"a\":\xff}", "1"}) {
    folder_.Write("config.json", text);
    ExpectError(absl::StatusCode::kInvalidArgument, HasSubstr("config.json"));
  }
}

TEST_F(FolderTest, ShardsOpen) {
  WriteShards(R"({"a":"one.safetensors"})");
  const auto source = OpenWeights(folder_.path());
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_NE((*source)->Find("a"), nullptr);
}

TEST_F(FolderTest, ShardNamesArePlain) {
  for (const char* name :
       {"../one.safetensors", "/etc/passwd", "sub/one.safetensors", "..", ".", "", "a\\\\b"}) {
    WriteShards(absl::StrCat(R"({"a":")", name, R"("})"));
    ExpectError(absl::StatusCode::kInvalidArgument, HasSubstr("must be a plain file name"));
  }
  WriteShards(R"({"a":1})");
  ExpectError(absl::StatusCode::kInvalidArgument, HasSubstr("must be a plain file name"));
}

TEST_F(FolderTest, IndexAndShardsMustAgree) {
  WriteShards(R"({"a":"one.safetensors","b":"one.safetensors"})");
  ExpectError(absl::StatusCode::kInvalidArgument, HasSubstr("tensor \"b\" is missing"));
  WriteShards(R"({"a":"two.safetensors"})");
  ExpectError(absl::StatusCode::kNotFound, HasSubstr("two.safetensors"));
  WriteShards(R"({})");
  ExpectError(absl::StatusCode::kInvalidArgument, HasSubstr("\"weight_map\""));
  WriteShards(R"([])");
  ExpectError(absl::StatusCode::kInvalidArgument, HasSubstr("\"weight_map\""));
  folder_.Write("two.safetensors", SafetensorsFile(OneTensor("[1]", "[0,4]"), "0123"));
  WriteShards(R"({"a":"one.safetensors","a ":"two.safetensors"})");
  ExpectError(absl::StatusCode::kInvalidArgument, HasSubstr("tensor \"a \" is missing"));
}

TEST_F(FolderTest, OneTensorInTwoShards) {
  WriteShards(R"({"a":"one.safetensors","b":"two.safetensors"})");
  const std::string header = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                             R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})";
  folder_.Write("two.safetensors", SafetensorsFile(header, "01234567"));
  ExpectError(absl::StatusCode::kInvalidArgument, HasSubstr("duplicate tensor name \"a\""));
}

TEST_F(FolderTest, TruncatedShardNamesTheFile) {
  WriteShards(R"({"a":"one.safetensors"})");
  folder_.Write("one.safetensors", SafetensorsFile(OneTensor("[1]", "[0,4]"), "012"));
  ExpectError(absl::StatusCode::kInvalidArgument,
              AllOf(HasSubstr("one.safetensors: tensor \"a\""), HasSubstr("3 bytes of data")));
}

// As transformers 5 has it: only what is equal is tied, whatever the config says.
TEST(TiedHead, IsOnlyWhatEqualsTheTable) {
  Json config = ParseJson(ReadWholeFile(GoldenPath("llama-gqa/config.json"))).value();
  config["tie_word_embeddings"] = true;
  const std::string header =
      R"({"lm_head.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
      R"("model.embed_tokens.weight":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})";
  for (const auto& [data, tied] : {std::pair("abcdabcd", true), std::pair("abcdabce", false)}) {
    const TemporaryFolder folder;
    folder.Write("config.json", DumpJson(config));
    folder.Write("model.safetensors", SafetensorsFile(header, data));
    const auto source = OpenWeights(folder.path());
    ASSERT_TRUE(source.ok()) << source.status();
    const auto read = LoadModelConfig(**source);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->tied_head, tied) << data;
  }
}

// Shapes whose rows nobody can count through: of scalars there are none, of no elements too many.
TEST(TiedHead, ShapesWithoutRows) {
  Json config = ParseJson(ReadWholeFile(GoldenPath("llama-gqa/config.json"))).value();
  config["tie_word_embeddings"] = true;
  for (const auto& [shape, bytes] : {std::pair("[]", 4), std::pair("[4611686018427387904,0]", 0)}) {
    const auto entry = [&](const char* name, int begin) {
      return StrCat("\"", name, "\":{\"dtype\":\"F32\",\"shape\":", shape, ",\"data_offsets\":[",
                    begin, ",", begin + bytes, "]}");
    };
    const TemporaryFolder folder;
    folder.Write("config.json", DumpJson(config));
    folder.Write("model.safetensors",
                 SafetensorsFile(StrCat("{", entry("lm_head.weight", 0), ",",
                                        entry("model.embed_tokens.weight", bytes), "}"),
                                 std::string(static_cast<size_t>(2 * bytes), '\0')));
    const auto source = OpenWeights(folder.path());
    ASSERT_TRUE(source.ok()) << source.status();
    const auto read = LoadModelConfig(**source);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_TRUE(read->tied_head);
  }
}

}  // namespace
}  // namespace fairlead

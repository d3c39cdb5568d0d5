// SPDX-License-Identifier: Apache-2.0
// GGUF files that lie. Each must give a Status that says what and where; under ASan, none may read
// outside its bytes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "models/gguf.h"
#include "models/registry.h"
#include "tests/models/checkpoint_bytes.h"

namespace fairlead {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Matcher;
using ::testing::StartsWith;

void ExpectRefused(const std::string& file, absl::StatusCode code,
                   const Matcher<std::string>& message) {
  const Bytes bytes = ToBytes(file);
  const auto source = OpenGgufBytes(bytes, "evil.gguf");
  ASSERT_FALSE(source.ok());
  EXPECT_EQ(source.status().code(), code) << source.status();
  EXPECT_THAT(std::string(source.status().message()), AllOf(StartsWith("evil.gguf: "), message));
}

void ExpectMalformed(const std::string& file, const Matcher<std::string>& message) {
  ExpectRefused(file, absl::StatusCode::kInvalidArgument, message);
}

GgufWriter::Tensor FourFloats(const std::string& name) {
  return {.name = name, .dims = {4}, .data = std::string(16, '\0'), .offset = {}, .n_dims = {}};
}

std::string WithTensor(GgufWriter::Tensor tensor) {
  GgufWriter writer = TinyLlama();
  writer.AddTensor(std::move(tensor));
  return writer.Build();
}

TEST(GgufHostileTest, WrongMagicAndVersions) {
  ExpectMalformed("", HasSubstr("truncated: magic"));
  ExpectMalformed("GGML" + std::string(100, '\0'), HasSubstr("it starts with \"GGML\""));
  GgufWriter writer = TinyLlama();
  for (const auto& [version, said] : {std::pair{1u, "version 1"},
                                      {4u, "version 4"},
                                      {0u, "version 0"},
                                      {0x03000000u, "big-endian"}}) {
    writer.version = version;
    ExpectRefused(writer.Build(), absl::StatusCode::kUnimplemented,
                  AllOf(HasSubstr(said), HasSubstr("2, 3")));
  }
}

TEST(GgufHostileTest, CountsThatTheFileCannotHold) {
  GgufWriter writer = TinyLlama();
  writer.tensor_count = std::numeric_limits<uint64_t>::max();
  ExpectMalformed(writer.Build(), HasSubstr("tensor count is 18446744073709551615"));
  writer.tensor_count = 1000;
  ExpectMalformed(writer.Build(),
                  AllOf(HasSubstr("tensor count is 1000"), HasSubstr("bytes left hold at most")));
  writer.tensor_count.reset();
  writer.metadata_count = uint64_t{1} << 63;
  ExpectMalformed(writer.Build(), HasSubstr("metadata count is 9223372036854775808"));
  writer.metadata_count = 60000;
  ExpectMalformed(writer.Build(), HasSubstr("metadata count is 60000"));
}

TEST(GgufHostileTest, StringLengthOverflow) {
  for (const uint64_t length :
       {std::numeric_limits<uint64_t>::max(), uint64_t{1} << 62, uint64_t{1} << 20}) {
    GgufWriter writer = TinyLlama();
    std::string value;
    Put(value, length);
    writer.AddRaw("general.name", kGgufString, value + "abc");
    ExpectMalformed(writer.Build(),
                    AllOf(HasSubstr("metadata key \"general.name\""), HasSubstr("string")));
  }
}

TEST(GgufHostileTest, KeyLengthOverflow) {
  GgufWriter writer;
  writer.metadata_count = 1;
  std::string file = writer.Build();
  Put(file, std::numeric_limits<uint64_t>::max());
  ExpectMalformed(file + std::string(64, 'x'),
                  HasSubstr("metadata entry 0: key of 18446744073709551615 bytes"));
}

TEST(GgufHostileTest, ArrayLengthOverflow) {
  for (const uint32_t type : {kGgufU8, kGgufF32, kGgufString, kGgufArray}) {
    GgufWriter writer = TinyLlama();
    writer.AddArray("big", type, std::numeric_limits<uint64_t>::max() / 4 + 2, "");
    ExpectMalformed(writer.Build(),
                    AllOf(HasSubstr("\"big\""), HasSubstr("array length is 4611686018427387905")));
    GgufWriter modest = TinyLlama();
    modest.AddArray("big", type, 1000, "");
    ExpectMalformed(modest.Build(), HasSubstr("array length is 1000, but the"));
  }
}

TEST(GgufHostileTest, ArraysNestedTooDeep) {
  std::string items;
  for (int i = 0; i < 100000; ++i) {
    Put(items, uint32_t{kGgufArray});
    Put(items, uint64_t{1});
  }
  GgufWriter writer = TinyLlama();
  writer.AddArray("deep", kGgufArray, 1, items);
  ExpectMalformed(writer.Build(), AllOf(HasSubstr("\"deep\""), HasSubstr("nested deeper than 4")));
}

TEST(GgufHostileTest, UnknownValueTypes) {
  GgufWriter writer = TinyLlama();
  writer.AddRaw("odd", 13, "12345678");
  ExpectMalformed(writer.Build(), AllOf(HasSubstr("\"odd\""), HasSubstr("unknown value type 13")));
  GgufWriter array = TinyLlama();
  array.AddArray("odd", 0xffffffff, 1, "12345678");
  ExpectMalformed(array.Build(), HasSubstr("unknown value type 4294967295"));
  GgufWriter boolean = TinyLlama();
  boolean.AddRaw("odd", kGgufBool, "\2");
  ExpectMalformed(boolean.Build(), HasSubstr("boolean 2"));
}

TEST(GgufHostileTest, DuplicateAndEmptyKeys) {
  GgufWriter writer = TinyLlama();
  writer.AddU32("llama.block_count", 2);
  ExpectMalformed(writer.Build(), HasSubstr("duplicate key \"llama.block_count\""));
  GgufWriter empty = TinyLlama();
  empty.AddU32("", 2);
  ExpectMalformed(empty.Build(), HasSubstr("empty key"));
}

TEST(GgufHostileTest, TensorPastTheEnd) {
  std::string file = WithTensor(FourFloats("blk.0.attn_q.weight"));
  file.resize(file.size() - 1);
  ExpectMalformed(
      file, AllOf(HasSubstr("tensor \"blk.0.attn_q.weight\": takes 16 bytes at data offset 0"),
                  HasSubstr("data has 15 bytes"), HasSubstr("described at byte ")));
}

TEST(GgufHostileTest, OffsetOverflow) {
  for (const uint64_t offset : {~uint64_t{31}, uint64_t{1} << 63, uint64_t{64}}) {
    GgufWriter::Tensor tensor = FourFloats("a");
    tensor.offset = offset;
    ExpectMalformed(WithTensor(tensor), HasSubstr("at data offset " + std::to_string(offset)));
  }
}

TEST(GgufHostileTest, UnalignedOffset) {
  GgufWriter::Tensor tensor = FourFloats("a");
  tensor.offset = 4;
  ExpectMalformed(WithTensor(tensor),
                  HasSubstr("data offset 4 is not a multiple of the alignment 32"));
}

TEST(GgufHostileTest, OverlappingTensors) {
  GgufWriter writer = TinyLlama();
  GgufWriter::Tensor large = FourFloats("a");
  large.dims = {16};
  large.data = std::string(64, '\0');
  GgufWriter::Tensor inside = FourFloats("b");
  inside.offset = 32;
  writer.AddTensor(large);
  writer.AddTensor(inside);
  ExpectMalformed(writer.Build(), HasSubstr("tensors \"a\" and \"b\" overlap at data offset 32"));
}

TEST(GgufHostileTest, DuplicateTensorNames) {
  GgufWriter writer = TinyLlama();
  writer.AddTensor(FourFloats("a"));
  writer.AddTensor(FourFloats("a"));
  ExpectMalformed(writer.Build(), HasSubstr("duplicate tensor name \"a\""));
  GgufWriter translated = TinyLlama();
  translated.AddTensor(FourFloats("output.weight"));
  translated.AddTensor(FourFloats("lm_head.weight"));
  ExpectMalformed(translated.Build(), AllOf(HasSubstr("duplicate tensor name \"lm_head.weight\""),
                                            HasSubstr("\"output.weight\"")));
}

TEST(GgufHostileTest, NumberOfDimensions) {
  GgufWriter::Tensor tensor = FourFloats("a");
  tensor.dims = {1, 1, 1, 2, 2};
  ExpectMalformed(WithTensor(tensor),
                  AllOf(HasSubstr("tensor \"a\""), HasSubstr("n_dims is 5; allowed: 1 to 4")));
  tensor.n_dims = 0xffffffff;
  ExpectMalformed(WithTensor(tensor), HasSubstr("n_dims is 4294967295"));
  tensor.n_dims = 0;
  ExpectMalformed(WithTensor(tensor), HasSubstr("n_dims is 0"));
}

TEST(GgufHostileTest, DimensionProducts) {
  GgufWriter::Tensor tensor = FourFloats("a");
  tensor.dims = {uint64_t{1} << 32, uint64_t{1} << 32};
  ExpectMalformed(WithTensor(tensor), HasSubstr("product of its dimensions overflows"));
  tensor.dims = {uint64_t{1} << 62};
  ExpectMalformed(WithTensor(tensor), HasSubstr("size in bytes overflows"));
  tensor.dims = {uint64_t{1} << 61};
  ExpectMalformed(WithTensor(tensor), HasSubstr("takes 9223372036854775808 bytes"));
  tensor.dims = {uint64_t{1} << 63};
  ExpectMalformed(WithTensor(tensor), HasSubstr("dimension 0 is 9223372036854775808"));
  tensor.dims = {4, 0};
  ExpectMalformed(WithTensor(tensor), HasSubstr("dimension 1 is 0"));
  // A product of 2^64 * 4 wraps to 0 where it is not checked.
  tensor.dims = {uint64_t{1} << 16, uint64_t{1} << 16, uint64_t{1} << 16, uint64_t{1} << 16};
  ExpectMalformed(WithTensor(tensor), HasSubstr("overflows"));
}

TEST(GgufHostileTest, PartOfABlock) {
  GgufWriter::Tensor tensor = FourFloats("a");
  tensor.type = kTypeQ4_1;
  tensor.dims = {33, 32};  // the elements are a multiple of 32, the rows are not
  tensor.data = std::string(660, '\0');
  ExpectMalformed(WithTensor(tensor),
                  HasSubstr("rows of 33 elements; q4_1 needs a multiple of 32"));
}

// What is made of a tensor when it is read is as large as the file's blocks say.
TEST(GgufHostileTest, BlocksThatAreMadeIntoOthers) {
  GgufWriter::Tensor tensor = FourFloats("a");
  tensor.type = kTypeIq3S;
  tensor.dims = {384, 2};  // the elements are three blocks, the rows are not
  tensor.data = std::string(330, '\0');
  ExpectMalformed(WithTensor(tensor),
                  HasSubstr("rows of 384 elements; IQ3_S needs a multiple of 256"));
  tensor.dims = {256, 4};
  ExpectMalformed(WithTensor(tensor), HasSubstr("takes 440 bytes at data offset 0"));
  tensor.dims = {uint64_t{1} << 62};
  ExpectMalformed(WithTensor(tensor), HasSubstr("takes 1981583836043018240 bytes"));
  tensor.dims = {uint64_t{256}, uint64_t{1} << 55};
  ExpectMalformed(WithTensor(tensor), HasSubstr("overflows"));
  tensor.type = kTypeIq1S;  // at its end, any bytes are indices of its grid
  tensor.dims = {256, 2};
  tensor.data = std::string(100, '\xff');
  const Bytes bytes = ToBytes(WithTensor(tensor));
  const auto source = OpenGgufBytes(bytes, "ones.gguf");
  ASSERT_TRUE(source.ok()) << source.status();
  const WeightInfo& info = *(*source)->Find("a");
  EXPECT_EQ(info.bytes, 1024u);
  EXPECT_NE(WeightBytes(info).data(), nullptr);
  tensor.data.pop_back();
  ExpectMalformed(WithTensor(tensor), HasSubstr("takes 100 bytes at data offset 0"));
}

TEST(GgufHostileTest, ScalesOfNvfp4) {
  const auto with_scale = [](GgufWriter::Tensor scale) {
    GgufWriter writer = TinyLlama();
    writer.AddTensor({.name = "a.weight",
                      .dims = {64, 2},
                      .type = kTypeNvfp4,
                      .data = std::string(72, '\x11'),
                      .offset = {},
                      .n_dims = {}});
    scale.name = "a.scale";
    writer.AddTensor(std::move(scale));
    return writer.Build();
  };
  ExpectMalformed(with_scale(FourFloats("")),
                  HasSubstr("tensor \"a.scale\": must be 1 or 1 f32 values"));
  GgufWriter::Tensor made = FourFloats("");
  made.type = kTypeIq3S;  // has no bytes to read a scale from
  made.dims = {256};
  made.data = std::string(110, '\0');
  ExpectMalformed(with_scale(made), HasSubstr("f32 values"));
}

TEST(GgufHostileTest, ScalesOfOtherTypes) {
  GgufWriter writer = TinyLlama();
  for (const char* name : {"a.weight", "a.scale"}) writer.AddTensor(FourFloats(name));
  ExpectRefused(writer.Build(), absl::StatusCode::kUnimplemented,
                HasSubstr("tensor \"a.scale\": a scale beside a tensor of another type"));
}

TEST(GgufHostileTest, UnknownDtypesAreNamed) {
  GgufWriter::Tensor tensor = FourFloats("blk.0.ffn_up.weight");
  tensor.type = kTypeQ8K;
  ExpectRefused(
      WithTensor(tensor), absl::StatusCode::kUnimplemented,
      AllOf(
          HasSubstr("tensor \"blk.0.ffn_up.weight\": dtype Q8_K (15) is not supported"),
          HasSubstr("known: F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, "
                    "IQ4_NL, IQ4_XS, I32, BF16, MXFP4, "),
          HasSubstr("IQ1_S")));
  tensor.type = 12345;
  ExpectRefused(WithTensor(tensor), absl::StatusCode::kUnimplemented,
                HasSubstr("an unknown type (12345)"));
  tensor.type = 0xffffffff;
  ExpectRefused(WithTensor(tensor), absl::StatusCode::kUnimplemented, HasSubstr("(4294967295)"));
}

TEST(GgufHostileTest, Alignment) {
  for (const uint32_t alignment : {0u, 3u, 1u, 4u, 24u, 1u << 17, 0x80000000u}) {
    GgufWriter writer = TinyLlama();
    writer.AddU32("general.alignment", alignment);
    ExpectMalformed(writer.Build(),
                    HasSubstr("\"general.alignment\" is " + std::to_string(alignment) +
                              "; it must be a power of two"));
  }
  GgufWriter text = TinyLlama();
  text.AddString("general.alignment", "32");
  ExpectMalformed(text.Build(), HasSubstr("\"general.alignment\" is \"32\""));
  GgufWriter wide = TinyLlama();
  wide.alignment = 64;
  wide.AddU32("general.alignment", 64);
  wide.AddVector("a", {1});
  wide.AddVector("b", {2});
  const Bytes bytes = ToBytes(wide.Build());
  const auto source = OpenGgufBytes(bytes, "wide.gguf");
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->Find("b")->data - (*source)->Find("a")->data, 64);
}

TEST(GgufHostileTest, SplitFiles) {
  GgufWriter writer = TinyLlama();
  writer.Add("split.count", 2 /* u16 */, uint16_t{3});
  ExpectRefused(writer.Build(), absl::StatusCode::kUnimplemented, HasSubstr("split.count is 3"));
}

TEST(GgufHostileTest, ConfigNumbers) {
  const auto with = [](std::string_view key, auto add) {
    GgufWriter writer;
    writer.AddString("general.architecture", "llama");
    add(writer, key);
    return writer.Build();
  };
  for (const float value : {std::nanf(""), std::numeric_limits<float>::infinity(), -1.0f}) {
    ExpectMalformed(
        with("llama.rope.freq_base", [&](GgufWriter& w, auto key) { w.AddF32(key, value); }),
        AllOf(HasSubstr("\"llama.rope.freq_base\""), HasSubstr("a finite number, not negative")));
  }
  ExpectMalformed(
      with("llama.block_count", [](GgufWriter& w, auto key) { w.Add(key, kGgufI32, int32_t{-5}); }),
      HasSubstr("\"llama.block_count\" is -5"));
  ExpectMalformed(
      with("llama.block_count", [](GgufWriter& w, auto key) { w.AddString(key, "two"); }),
      HasSubstr("\"llama.block_count\" is \"two\""));
  std::string counts;
  Put(counts, uint32_t{2});
  Put(counts, uint32_t{4});
  ExpectMalformed(
      with("llama.attention.head_count_kv",
           [&](GgufWriter& w, auto key) { w.AddArray(key, kGgufU32, 2, counts); }),
      HasSubstr("\"llama.attention.head_count_kv\" is [2,4]; it must be the same for every layer"));
  ExpectMalformed(with("llama.attention.head_count_kv",
                       [&](GgufWriter& w, auto key) { w.AddArray(key, kGgufU32, 0, ""); }),
                  HasSubstr("is []"));
}

TEST(GgufHostileTest, NoArchitecture) {
  ExpectMalformed(GgufWriter().Build(), HasSubstr("\"general.architecture\""));
  GgufWriter number;
  number.AddU32("general.architecture", 1);
  ExpectMalformed(number.Build(), HasSubstr("\"general.architecture\" is 1"));
}

TEST(GgufHostileTest, RopeDivisors) {
  GgufWriter zero = TinyLlama();
  zero.AddVector("rope_freqs.weight", {1, 0});
  ExpectMalformed(zero.Build(), HasSubstr("\"rope_freqs.weight\": element 1 is 0"));
  GgufWriter nan = TinyLlama();
  nan.AddVector("rope_freqs.weight", {std::nanf(""), 1});
  ExpectMalformed(nan.Build(), HasSubstr("element 0 is nan"));
  GgufWriter::Tensor matrix = FourFloats("rope_freqs.weight");
  matrix.dims = {2, 2};
  ExpectMalformed(WithTensor(matrix), HasSubstr("is not a vector"));
}

TEST(GgufHostileTest, NamesInMessagesAreEscapedAndCut) {
  GgufWriter::Tensor tensor = FourFloats("evil\n\xff" + std::string(200, 'x'));
  tensor.type = kTypeQ8K;
  const Bytes bytes = ToBytes(WithTensor(tensor));
  const auto source = OpenGgufBytes(bytes, "evil.gguf");
  const std::string message(source.status().message());
  EXPECT_THAT(message, HasSubstr("\"evil\\n\\xffxxx"));
  EXPECT_EQ(message.find('\n'), std::string::npos);
  EXPECT_LT(message.size(), 600u);
  tensor.name = std::string(300, 'x');
  ExpectMalformed(WithTensor(tensor), HasSubstr("name of 300 bytes; at most 255"));
}

// Everything that a model would do with an open source, short of arithmetic.
uint64_t Exercise(const WeightSource& source) {
  uint64_t sum = DumpJson(source.metadata()).size() + DumpJson(source.config()).size();
  for (const WeightInfo& tensor : source.tensors()) {
    const WeightBytes bytes(tensor);
    for (size_t i = 0; i < tensor.bytes; ++i) {
      sum += std::to_integer<uint64_t>(bytes.data()[i]);
    }
    sum += source.Find(tensor.name) == &tensor ? 1 : 0;
  }
  const auto config = LoadModelConfig(source);
  if (config.ok()) {
    for (const RopeConfig& rope : config->ropes)
      sum += RopeInverseFrequencies(rope, config->max_positions).size();
  }
  return sum;
}

std::string SmallValidFile() {
  GgufWriter writer = TinyLlama();
  writer.AddU32("general.alignment", 32);
  writer.AddArray("tokenizer.ggml.tokens", kGgufString, 2,
                  GgufWriter::String("a") + GgufWriter::String("bc"));
  std::string inner;
  Put(inner, uint32_t{kGgufU8});
  Put(inner, uint64_t{2});
  writer.AddArray("nested", kGgufArray, 1, inner + "xy");
  writer.AddTensor(FourFloats("token_embd.weight"));
  writer.AddTensor({.name = "blk.0.attn_q.weight",
                    .dims = {32, 2},
                    .type = kTypeQ4_1,
                    .data = std::string(40, '\1'),
                    .offset = {},
                    .n_dims = {}});
  writer.AddTensor({.name = "blk.0.attn_k.weight",
                    .dims = {256, 1},
                    .type = kTypeIq1S,
                    .data = std::string(50, '\1'),
                    .offset = {},
                    .n_dims = {}});
  writer.AddVector("rope_freqs.weight", {1, 8});
  return writer.Build();
}

TEST(GgufHostileTest, EveryTruncationIsAnError) {
  const std::string file = SmallValidFile();
  const Bytes whole = ToBytes(file);
  const auto valid = OpenGgufBytes(whole, "whole.gguf");
  ASSERT_TRUE(valid.ok()) << valid.status();
  EXPECT_GT(Exercise(**valid), 0u);
  for (size_t length = 0; length < file.size(); ++length) {
    ExpectMalformed(file.substr(0, length), HasSubstr(""));
  }
}

TEST(GgufHostileTest, FlippedBytesNeverCrash) {
  const std::string file = SmallValidFile();
  std::mt19937_64 random(20240607);
  int opened = 0;
  int refused = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string mutated = file;
    const int flips = 1 + static_cast<int>(random() % 4);
    for (int i = 0; i < flips; ++i) {
      // Small and huge values in turn: a random byte alone seldom makes a plausible length.
      const char choices[] = {'\0', '\1', '\x7f', '\x80', '\xff', static_cast<char>(random())};
      mutated[random() % mutated.size()] = choices[random() % sizeof(choices)];
    }
    const Bytes bytes = ToBytes(mutated);
    const auto source = OpenGgufBytes(bytes, "flipped.gguf");
    if (source.ok()) {
      EXPECT_GT(Exercise(**source), 0u);
      ++opened;
    } else {
      EXPECT_FALSE(source.status().message().empty());
      ++refused;
    }
  }
  EXPECT_GT(opened, 1000);
  EXPECT_GT(refused, 1000);
}

TEST(GgufHostileTest, PathsThatCannotBeOpened) {
  EXPECT_EQ(OpenWeights("/nonexistent/model.gguf").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(OpenWeights("/nonexistent/model.gguf").status().message()),
              AllOf(HasSubstr("/nonexistent/model.gguf"), HasSubstr("No such file")));
  EXPECT_EQ(OpenWeights("/dev/null").status().code(), absl::StatusCode::kInvalidArgument);
  const TemporaryFolder folder;
  const std::string empty = folder.Write("empty.gguf", "");
  EXPECT_THAT(std::string(OpenWeights(empty).status().message()), HasSubstr("truncated: magic"));
}

}  // namespace
}  // namespace fairlead

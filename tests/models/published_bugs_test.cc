// SPDX-License-Identifier: Apache-2.0
// Classes of bugs that were published of other parsers of model files, one test each, on files made
// for it. tests/fuzz/README.md has the table. The hostile tests beside this one go further.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

#include "models/gguf.h"
#include "models/json_file.h"
#include "models/registry.h"
#include "models/safetensors.h"
#include "models/tokenizer.h"
#include "models/weights.h"
#include "tests/models/checkpoint_bytes.h"

namespace fairlead {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();

absl::Status OpenGgufText(const std::string& file) {
  const Bytes bytes = ToBytes(file);
  return OpenGgufBytes(bytes, "evil").status();
}

absl::Status OpenSafetensorsText(const std::string& header, std::string_view data) {
  const Bytes bytes = ToBytes(SafetensorsFile(header, data));
  return ParseSafetensors(bytes, "evil").status();
}

std::string Text(const absl::Status& status) {
  return std::string(status.message().data(), status.message().size());
}

std::string GgufWith(GgufWriter::Tensor tensor) {
  GgufWriter writer = TinyLlama();
  writer.AddTensor(std::move(tensor));
  return writer.Build();
}

std::string FourZeros() { return std::string(16, '\0'); }

// Ollama: the size that dimensions give was not compared with the file, and what lay behind it in
// the heap could be read.
TEST(PublishedBugs, Cve2026x7482TensorLargerThanTheFile) {
  const absl::Status status = OpenGgufText(
      GgufWith({.name = "a", .dims = {1 << 20}, .data = FourZeros(), .offset = {}, .n_dims = {}}));
  EXPECT_THAT(Text(status), AllOf(HasSubstr("takes 4194304 bytes"), HasSubstr("has 16 bytes")));
  EXPECT_THAT(
      Text(OpenSafetensorsText(
          R"({"a":{"dtype":"F32","shape":[1048576],"data_offsets":[0,4194304]}})", FourZeros())),
      HasSubstr("do not lie in the file's 16 bytes"));
}

// llama.cpp: products of dimensions, and sums of sizes and paddings, wrapped to small numbers.
TEST(PublishedBugs, Cve2025x53630SizesThatWrap) {
  for (const std::vector<uint64_t>& dims :
       {std::vector<uint64_t>{uint64_t{1} << 32, uint64_t{1} << 32},
        std::vector<uint64_t>{uint64_t{1} << 62},
        std::vector<uint64_t>{(uint64_t{1} << 61) + 4, 2}}) {
    const absl::Status status = OpenGgufText(
        GgufWith({.name = "a", .dims = dims, .data = FourZeros(), .offset = {}, .n_dims = {}}));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  }
  EXPECT_THAT(
      Text(OpenSafetensorsText(
          R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", "")),
      HasSubstr("overflows"));
}

// The same again, where the end of a tensor wraps although its size does not.
TEST(PublishedBugs, Cve2026x27940OffsetsThatWrap) {
  for (const uint64_t offset : {kMost - 31, (uint64_t{1} << 63) - 32 + (uint64_t{1} << 63)}) {
    EXPECT_THAT(
        Text(OpenGgufText(GgufWith(
            {.name = "a", .dims = {16}, .data = FourZeros(), .offset = offset, .n_dims = {}}))),
        HasSubstr("at data offset"));
  }
  EXPECT_THAT(Text(OpenSafetensorsText(
                  R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[18446744073709551600,16]}})",
                  FourZeros())),
              HasSubstr("allowed: integers from 0 to 2^63 - 1"));
}

// GGUF readers that allocated what the header's counts said.
TEST(PublishedBugs, CountsThatAreAllocatedUnchecked) {
  for (const uint64_t count : {uint64_t{1} << 60, kMost, uint64_t{1} << 31}) {
    GgufWriter tensors = TinyLlama();
    tensors.tensor_count = count;
    EXPECT_THAT(Text(OpenGgufText(tensors.Build())), HasSubstr("tensor count is"));
    GgufWriter metadata = TinyLlama();
    metadata.metadata_count = count;
    EXPECT_THAT(Text(OpenGgufText(metadata.Build())), HasSubstr("metadata count is"));
    GgufWriter array = TinyLlama();
    array.AddArray("a", kGgufString, count, "");
    EXPECT_THAT(Text(OpenGgufText(array.Build())), HasSubstr("array length is"));
  }
}

// Arrays that the file does hold, but that take many times its bytes in memory.
TEST(PublishedBugs, ArraysThatGrowInMemory) {
  constexpr uint64_t kBytes = 9 << 20, kStrings = 3 << 20;
  GgufWriter bytes = TinyLlama();
  bytes.AddArray("a", kGgufU8, kBytes, std::string(kBytes, '\0'));
  EXPECT_THAT(Text(OpenGgufText(bytes.Build())), HasSubstr("array length is 9437184; at most"));
  GgufWriter strings = TinyLlama();
  strings.AddArray("a", kGgufString, kStrings, std::string(kStrings * 8, '\0'));
  EXPECT_THAT(Text(OpenGgufText(strings.Build())), HasSubstr("array length is 3145728; at most"));
  // Together, too.
  GgufWriter two = TinyLlama();
  two.AddArray("a", kGgufU8, 5 << 20, std::string(5 << 20, '\0'));
  two.AddArray("b", kGgufU8, 5 << 20, std::string(5 << 20, '\0'));
  EXPECT_THAT(Text(OpenGgufText(two.Build())), HasSubstr("array length is 5242880; at most"));
}

// A string's length plus its place wraps, and the copy starts before the file.
TEST(PublishedBugs, StringLengthsThatWrap) {
  for (const uint64_t length : {kMost, kMost - 7, uint64_t{1} << 63}) {
    GgufWriter writer = TinyLlama();
    std::string raw;
    Put(raw, length);
    writer.AddRaw("a", kGgufString, raw);
    EXPECT_THAT(Text(OpenGgufText(writer.Build())), HasSubstr("metadata key \"a\""));
  }
}

TEST(PublishedBugs, TensorsThatOverlap) {
  GgufWriter writer = TinyLlama();
  writer.AddTensor(
      {.name = "a", .dims = {16}, .data = std::string(64, '\0'), .offset = {}, .n_dims = {}});
  writer.AddTensor(
      {.name = "b", .dims = {4}, .data = FourZeros(), .offset = uint64_t{32}, .n_dims = {}});
  EXPECT_THAT(Text(OpenGgufText(writer.Build())), AllOf(HasSubstr("\"a\""), HasSubstr("\"b\"")));
  EXPECT_FALSE(OpenSafetensorsText(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                   R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                                   "0123456789ab")
                   .ok());
}

// Alignments of zero divide by it, others than powers of two round wrongly.
TEST(PublishedBugs, AlignmentsThatDivideByZero) {
  for (const uint32_t alignment : {0u, 3u, 1u << 31}) {
    GgufWriter writer = TinyLlama();
    writer.AddU32("general.alignment", alignment);
    EXPECT_THAT(Text(OpenGgufText(writer.Build())), HasSubstr("general.alignment"));
  }
}

// Indices that are taken from the file and used unchecked: dtypes, value types, dimensions.
TEST(PublishedBugs, EnumerationsOutOfRange) {
  for (const uint32_t type : {1000u, static_cast<uint32_t>(-1)}) {
    EXPECT_FALSE(OpenGgufText(GgufWith({.name = "a",
                                        .dims = {4},
                                        .type = type,
                                        .data = FourZeros(),
                                        .offset = {},
                                        .n_dims = {}}))
                     .ok());
    GgufWriter writer = TinyLlama();
    writer.AddRaw("a", type, std::string(64, '\0'));
    EXPECT_THAT(Text(OpenGgufText(writer.Build())), HasSubstr("unknown value type"));
  }
  EXPECT_THAT(
      Text(OpenGgufText(GgufWith(
          {.name = "a", .dims = {4}, .data = FourZeros(), .offset = {}, .n_dims = 1u << 30}))),
      HasSubstr("n_dims is 1073741824"));
}

// Readers that call themselves for each level.
TEST(PublishedBugs, NestingThatExhaustsTheStack) {
  constexpr size_t kLevels = 1 << 20;
  std::string raw;
  for (size_t i = 0; i < kLevels; ++i) {
    Put(raw, uint32_t{kGgufArray});
    Put(raw, uint64_t{1});
  }
  GgufWriter writer = TinyLlama();
  writer.AddRaw("a", kGgufArray, raw);
  EXPECT_THAT(Text(OpenGgufText(writer.Build())), HasSubstr("nested deeper"));
  const std::string brackets(kLevels, '['), braces = [] {
    std::string text;
    for (size_t i = 0; i < kLevels; ++i) text += "{\"a\":";
    return text;
  }();
  for (const std::string& text : {brackets, braces}) {
    EXPECT_THAT(Text(ParseJsonFile(text).status()), HasSubstr("nested deeper"));
    EXPECT_THAT(Text(OpenSafetensorsText(text, "")), HasSubstr("nested deeper"));
    const TemporaryFolder folder;
    EXPECT_THAT(Text(LoadTokenizerFromPath(folder.Write("tokenizer.json", text)).status()),
                HasSubstr("nested deeper"));
  }
}

// JSON trees of many times the size of their text.
TEST(PublishedBugs, JsonThatGrowsInMemory) {
  std::string list = "[";
  for (size_t i = 0; i < kMaxFileValues - 1; ++i) list += i == 0 ? "0" : ",0";
  EXPECT_TRUE(ParseJsonFile(list + "]").ok());
  EXPECT_THAT(Text(ParseJsonFile(list + ",0]").status()), HasSubstr("more than 1048576 values"));
  EXPECT_THAT(Text(OpenSafetensorsText("{\"a\":" + list + ",0]}", "")),
              HasSubstr("more than 1048576 values"));
  const TemporaryFolder folder;
  EXPECT_THAT(Text(LoadTokenizerFromPath(folder.Write("tokenizer.json", "{\"a\":" + list + ",0]}"))
                       .status()),
              HasSubstr("more than 1048576 values"));
}

// Vocabularies and merges without end, and ids that choose the size of a table.
TEST(PublishedBugs, VocabulariesThatChooseTheSizeOfATable) {
  const auto load = [](const std::string& vocabulary, const std::string& merges) {
    const TemporaryFolder folder;
    return Text(
        LoadTokenizerFromPath(
            folder.Write("tokenizer.json",
                         R"({"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},)"
                         R"("decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":)" +
                             vocabulary + ",\"merges\":" + merges + "}}"))
            .status());
  };
  EXPECT_THAT(load(R"({"a":2305843009213693952})", "[]"), HasSubstr("id 2305843009213693952"));
  EXPECT_THAT(load(R"({"a":-1})", "[]"), HasSubstr("id -1"));
  std::string tokens = "{", merges = "[";
  for (size_t i = 0; i <= 1 << 20; ++i) {
    tokens += i == 0 ? "\"\":0" : ",\"\":0";
    merges += i == 0 ? "\"a a\"" : ",\"a a\"";
  }
  EXPECT_THAT(load(tokens + "}", "[]"), HasSubstr("more than 1048576 tokens"));
  EXPECT_THAT(load("{\"a\":0}", merges + "]"), HasSubstr("more than 1048576 merges"));
}

// A template's ids are put among the tokens as they are, and index the model's embeddings.
TEST(PublishedBugs, IdsOutsideTheVocabulary) {
  for (const char* id : {"1", "1048575", "-1"}) {
    const TemporaryFolder folder;
    const std::string path = folder.Write(
        "tokenizer.json",
        std::string(
            R"({"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},)"
            R"("decoder":{"type":"ByteLevel"},"post_processor":{"type":"TemplateProcessing",)"
            R"("single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],)"
            R"("pair":[],"special_tokens":{"<s>":{"id":"<s>","tokens":["<s>"],"ids":[)") +
            id + R"(]}}},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}})");
    EXPECT_EQ(LoadTokenizerFromPath(path).status().code(), absl::StatusCode::kInvalidArgument)
        << id;
  }
}

// Messages that repeat the file: its text, however long, or bytes that are no text.
TEST(PublishedBugs, ErrorsThatRepeatTheFile) {
  const std::string endless = "{\"a\":\"" + std::string(1 << 20, 'x');
  const TemporaryFolder folder;
  EXPECT_LT(Text(LoadTokenizerFromPath(folder.Write("tokenizer.json", endless)).status()).size(),
            1000u);
  EXPECT_LT(Text(ParseJsonFile(endless).status()).size(), 1000u);
  EXPECT_LT(Text(OpenSafetensorsText(endless, "")).size(), 1000u);
  GgufWriter writer = TinyLlama();
  writer.AddRaw(std::string(60000, '\x01'), 99, "");
  const std::string said = Text(OpenGgufText(writer.Build()));
  EXPECT_LT(said.size(), 1000u);
  EXPECT_THAT(said, Not(HasSubstr("\x01")));
}

// vLLM, CVE-2026-22807: a config's "auto_map" ran the folder's own code. vLLM and others: pickles
// did. We read neither: the key means nothing, and a pickle is no file of weights.
TEST(PublishedBugs, Cve2026x22807CodeOfTheFolder) {
  const TemporaryFolder folder;
  folder.Write("config.json",
               R"({"architectures":["Evil"],"auto_map":{"AutoModel":"evil.Model"}})");
  folder.Write("pytorch_model.bin", "\x80\x02.");
  EXPECT_EQ(OpenWeights(folder.path()).status().code(), absl::StatusCode::kNotFound);
  folder.Write("model.safetensors", SafetensorsFile("{}", ""));
  const auto source = OpenWeights(folder.path());
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_THAT(Text(LoadModelConfig(**source).status()), HasSubstr("architecture \"Evil\""));
}

// Triton, CVE-2026-24208: names in a file that lead out of its folder.
TEST(PublishedBugs, Cve2026x24208NamesThatLeaveTheFolder) {
  for (const char* name : {"../a.safetensors", "/etc/passwd", "..", "a/../../b"}) {
    const TemporaryFolder folder;
    folder.Write("config.json", "{}");
    folder.Write("model.safetensors.index.json",
                 std::string(R"({"weight_map":{"a":")") + name + "\"}}");
    EXPECT_THAT(Text(OpenWeights(folder.path()).status()), HasSubstr("plain file name"));
  }
}

}  // namespace
}  // namespace fairlead

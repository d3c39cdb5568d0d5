// SPDX-License-Identifier: Apache-2.0
// Where a model's chat template and special tokens are found.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/chat_template.h"

namespace fairlead {
namespace {

using ::testing::HasSubstr;

class FakeGguf final : public WeightSource {
 public:
  explicit FakeGguf(Json metadata) : metadata_(std::move(metadata)) {}
  WeightFormat format() const override { return WeightFormat::kGguf; }
  const std::string& path() const override { return path_; }
  const WeightInfo* Find(std::string_view) const override { return nullptr; }
  absl::Span<const WeightInfo> tensors() const override { return {}; }
  const Json& config() const override { return config_; }
  const Json& metadata() const override { return metadata_; }

 private:
  std::string path_ = "model.gguf";
  Json config_ = Json::object();
  Json metadata_;
};

TEST(ChatFormatGguf, ReadsTemplateAndTokens) {
  const FakeGguf source({{"tokenizer.chat_template", "{{ bos_token }}x"},
                         {"tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>"}},
                         {"tokenizer.ggml.bos_token_id", 1},
                         {"tokenizer.ggml.eos_token_id", 2}});
  const absl::StatusOr<ChatFormat> format = LoadChatFormat(source);
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_EQ(format->source, "{{ bos_token }}x");
  EXPECT_EQ(format->bos_token, "<s>");
  EXPECT_EQ(format->eos_token, "</s>");
  ASSERT_NE(format->chat_template, nullptr);
  EXPECT_EQ(format->chat_template->Render({{"bos_token", format->bos_token}})->text, "<s>x");
}

TEST(ChatFormatGguf, HasNoTemplateWhereTheFileHasNone) {
  const absl::StatusOr<ChatFormat> format = LoadChatFormat(FakeGguf(Json::object()));
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_EQ(format->chat_template, nullptr);
  EXPECT_EQ(format->bos_token, "");
}

TEST(ChatFormatGguf, RefusesLies) {
  const Json tokens = {"a", "b"};
  for (const Json& id : {Json(2), Json(-1), Json("1"), Json(0.5)}) {
    const absl::Status status = LoadChatFormat(FakeGguf({{"tokenizer.ggml.tokens", tokens},
                                                         {"tokenizer.ggml.bos_token_id", id}}))
                                    .status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << id;
    EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.ggml.bos_token_id"));
  }
  EXPECT_FALSE(LoadChatFormat(FakeGguf(Json{{"tokenizer.chat_template", 5}})).ok());
  EXPECT_FALSE(LoadChatFormat(FakeGguf(Json{{"tokenizer.chat_template", "{% if %}"}})).ok());
}

class ChatFormatFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::temp_directory_path() / ("chat_format_test_" + std::to_string(::getpid()));
    std::filesystem::create_directory(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& content) {
    std::ofstream(folder_ / name) << content;
  }
  absl::StatusOr<ChatFormat> Load() { return LoadChatFormatFromPath(folder_.string()); }

  std::filesystem::path folder_;
};

TEST_F(ChatFormatFolder, ReadsTheTokenizerConfig) {
  Write("tokenizer_config.json",
        R"({"chat_template": "T", "bos_token": "<s>", "eos_token": {"content": "</s>"}})");
  absl::StatusOr<ChatFormat> format = Load();
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_EQ(format->source, "T");
  EXPECT_EQ(format->bos_token, "<s>");
  EXPECT_EQ(format->eos_token, "</s>");
  Write("tokenizer.json", "{}");
  format = LoadChatFormatFromPath((folder_ / "tokenizer.json").string());
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_EQ(format->source, "T");
}

TEST_F(ChatFormatFolder, TakesTheDefaultOfSeveralTemplates) {
  Write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "tool_use", "template": "U"}, {"name": "default", "template": "D"}], "bos_token": null})");
  const absl::StatusOr<ChatFormat> format = Load();
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_EQ(format->source, "D");
  EXPECT_EQ(format->bos_token, "");
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "U"}]})");
  EXPECT_THAT(std::string(Load().status().message()), HasSubstr("tool_use"));
}

TEST_F(ChatFormatFolder, PrefersTheFileOfItsOwn) {
  Write("tokenizer_config.json", R"({"chat_template": "T"})");
  Write("chat_template.jinja", "J");
  const absl::StatusOr<ChatFormat> format = Load();
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_EQ(format->source, "J");
}

TEST_F(ChatFormatFolder, MayHaveNothing) {
  const absl::StatusOr<ChatFormat> format = Load();
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_EQ(format->chat_template, nullptr);
}

TEST_F(ChatFormatFolder, RefusesBrokenFiles) {
  for (const char* config : {"{", "{\"chat_template\": 5}", "{\"chat_template\": [1]}",
                             "{\"bos_token\": 5}", "{\"chat_template\": \"{{\"}"}) {
    Write("tokenizer_config.json", config);
    EXPECT_EQ(Load().status().code(), absl::StatusCode::kInvalidArgument) << config;
  }
  EXPECT_EQ(LoadChatFormatFromPath((folder_ / "none").string()).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace fairlead

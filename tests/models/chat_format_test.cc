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

TEST(ChatFormatGguf, ReadsNamedTemplates) {
  const absl::StatusOr<ChatFormat> format =
      LoadChatFormat(FakeGguf(Json{{"tokenizer.chat_template", "D"},
                                   {"tokenizer.chat_templates", {"tool_use"}},
                                   {"tokenizer.chat_template.tool_use", "U"}}));
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_EQ((*format->Choose("", false))->Render(Json::object())->text, "D");
  EXPECT_EQ((*format->Choose("", true))->Render(Json::object())->text, "U");
  EXPECT_FALSE(format->Choose("s", true).ok());
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

// What a request gets that names the template `name`, or none (""): its text, or the error.
std::string ChosenText(const ChatFormat& format, const std::string& name, bool has_tools) {
  const absl::StatusOr<const ChatTemplate*> chosen = format.Choose(name, has_tools);
  if (!chosen.ok()) return std::string(chosen.status().message());
  return (*chosen)->Render(Json::object())->text;
}

// As PreTrainedTokenizerBase.get_chat_template chooses.
TEST_F(ChatFormatFolder, ChoosesAmongSeveralTemplates) {
  Write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "tool_use", "template": "U"}, {"name": "default", "template": "D"}, {"name": "rag", "template": "R"}, {"name": "broken", "template": "{{"}], "bos_token": null})");
  absl::StatusOr<ChatFormat> format = Load();
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_EQ(format->source, "D");
  EXPECT_EQ(format->bos_token, "");
  EXPECT_EQ(ChosenText(*format, "", false), "D");
  EXPECT_EQ(ChosenText(*format, "", true), "U");
  EXPECT_EQ(ChosenText(*format, "default", true), "D");
  EXPECT_EQ(ChosenText(*format, "rag", true), "R");
  EXPECT_THAT(ChosenText(*format, "broken", false), HasSubstr("line 1"));
  EXPECT_THAT(ChosenText(*format, "{{ messages }}", false),
              HasSubstr("no chat template named '{{ messages }}', only: default, broken, rag"));
  EXPECT_LT(ChosenText(*format, std::string(10000, 'x'), false).size(), 200u);
}

TEST_F(ChatFormatFolder, MayHaveNoDefault) {
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "U"}]})");
  const absl::StatusOr<ChatFormat> format = Load();
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_TRUE(format->has_template());
  EXPECT_EQ(ChosenText(*format, "", true), "U");
  EXPECT_THAT(ChosenText(*format, "", false), HasSubstr("named 'default', only: tool_use"));
}

// Files of their own replace all that the config has.
TEST_F(ChatFormatFolder, ReadsAdditionalTemplates) {
  Write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "default", "template": "D"}, {"name": "old", "template": "O"}]})");
  std::filesystem::create_directory(folder_ / "additional_chat_templates");
  Write("additional_chat_templates/tool_use.jinja", "U");
  Write("additional_chat_templates/notes.txt", "{{");
  absl::StatusOr<ChatFormat> format = Load();
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_THAT(ChosenText(*format, "", false), HasSubstr("only: tool_use"));
  Write("chat_template.jinja", "J");
  format = Load();
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_EQ(ChosenText(*format, "", false), "J");
  EXPECT_EQ(ChosenText(*format, "", true), "U");
  EXPECT_THAT(ChosenText(*format, "old", false), HasSubstr("only: default, tool_use"));
  for (int i = 0; i < 100; ++i)
    Write("additional_chat_templates/" + std::to_string(i) + ".jinja", "x");
  EXPECT_EQ(Load().status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Load().status().message()),
              HasSubstr("additional_chat_templates: has more than 64 templates"));
}

TEST_F(ChatFormatFolder, TooManyTemplatesAreRefusedWithTheirFile) {
  Json list = Json::array();
  for (int i = 0; i < 65; ++i) list.push_back({{"name", std::to_string(i)}, {"template", "x"}});
  Write("tokenizer_config.json", DumpJson({{"chat_template", list}}));
  EXPECT_EQ(Load().status().message(), (folder_ / "tokenizer_config.json").string() +
                                           ": there are 65 chat templates; at most 64 are allowed");
}

// A caller cannot put a string of its own where templates expect a special token.
TEST_F(ChatFormatFolder, SpecialTokensAreTheModels) {
  Write("tokenizer_config.json",
        R"({"chat_template": "T", "bos_token": "<s>", "pad_token": {"content": "<pad>"}})");
  const absl::StatusOr<ChatFormat> format = Load();
  ASSERT_TRUE(format.ok()) << format.status();
  Json variables = {{"eos_token", "mine"}, {"unk_token", "mine"}, {"pad_token", "mine"}, {"x", 1}};
  format->SetSpecialTokens(variables);
  EXPECT_EQ(variables,
            Json({{"x", 1}, {"bos_token", "<s>"}, {"eos_token", ""}, {"pad_token", "<pad>"}}));
}

TEST_F(ChatFormatFolder, PrefersTheFileOfItsOwn) {
  Write("tokenizer_config.json", R"({"chat_template": "T"})");
  Write("chat_template.jinja", "J");
  const absl::StatusOr<ChatFormat> format = Load();
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_EQ(format->source, "J");
}

// A file that is too large is not read: these take no memory and next to no room on the disk.
TEST_F(ChatFormatFolder, LargeFilesAreRefusedUnread) {
  constexpr std::uintmax_t kHuge = std::uintmax_t{100} << 30;
  std::filesystem::create_directory(folder_ / "additional_chat_templates");
  for (const auto& [name, limit] : {std::pair{"chat_template.jinja", "1048576"},
                                    std::pair{"additional_chat_templates/rag.jinja", "1048576"},
                                    std::pair{"tokenizer_config.json", "67108864"}}) {
    const std::filesystem::path path = folder_ / name;
    Write(name, "");
    std::filesystem::resize_file(path, kHuge);
    const absl::Status status = Load().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(status.message(),
              path.string() + " has 107374182400 bytes; at most " + limit + " are allowed");
    std::filesystem::remove(path);
  }
  Write("chat_template.jinja", std::string(kMaxTemplateBytes, 'x'));
  EXPECT_TRUE(Load().ok()) << Load().status();
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

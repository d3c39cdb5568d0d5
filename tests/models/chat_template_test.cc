// SPDX-License-Identifier: Apache-2.0
// Chat templates against transformers: tests/golden/templates (made by
// golden/make/make_templates.py) and the default model's own prompts; and what transformers has
// not: trust.
#include "models/chat_template.h"
#include "models/chat_messages.h"

#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/civil_time.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fairlead {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

std::string ReadGolden(const std::string& name) {
  std::ifstream file(std::string(FAIRLEAD_GOLDEN_DIR "/") + name, std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

Json GoldenJson(const std::string& name) { return Json::parse(ReadGolden(name)); }

// The moment at which the goldens were made, on this machine's clock.
absl::Time GoldenNow() {
  return absl::FromCivil(absl::CivilSecond(2025, 7, 4, 9, 5, 3), absl::LocalTimeZone());
}

absl::StatusOr<RenderedPrompt> Render(const std::string& source, const Json& variables) {
  absl::StatusOr<std::unique_ptr<ChatTemplate>> parsed = ParseChatTemplate(source);
  if (!parsed.ok()) return parsed.status();
  return (*parsed)->Render(variables, GoldenNow());
}

// The runs cover the text, in order and without gaps, and differ from their neighbours.
void ExpectRunsCover(const RenderedPrompt& prompt) {
  size_t end = 0;
  for (size_t i = 0; i < prompt.runs.size(); ++i) {
    EXPECT_EQ(prompt.runs[i].begin, end);
    EXPECT_GT(prompt.runs[i].end, prompt.runs[i].begin);
    if (i > 0) {
      EXPECT_NE(prompt.runs[i].trusted, prompt.runs[i - 1].trusted);
    }
    end = prompt.runs[i].end;
  }
  EXPECT_EQ(end, prompt.text.size());
}

class GoldenTemplates : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenTemplates, RenderAsTransformersDoes) {
  const Json golden = GoldenJson(std::string("templates/") + GetParam());
  ASSERT_GE(golden["cases"].size(), 60u);
  for (const Json& one : golden["cases"]) {
    SCOPED_TRACE(one["name"].get<std::string>());
    const Json& source = one.contains("template")
                             ? one["template"]
                             : golden["templates"][one["template_name"].get<std::string>()];
    Json variables = golden["variables"];
    if (one.contains("variables")) variables.update(one["variables"]);
    const absl::StatusOr<RenderedPrompt> got = Render(source.get<std::string>(), variables);
    if (one.contains("expected")) {
      ASSERT_TRUE(got.ok()) << got.status();
      EXPECT_EQ(got->text, one["expected"].get<std::string>());
      ExpectRunsCover(*got);
      continue;
    }
    ASSERT_FALSE(got.ok()) << got->text << "\nbut jinja2 says: " << one["error"];
    EXPECT_EQ(got.status().code(), absl::StatusCode::kInvalidArgument);
    if (one["raised"].get<bool>()) {
      EXPECT_EQ(got.status().message(), one["error"].get<std::string>());
    } else {
      EXPECT_THAT(std::string(got.status().message()), HasSubstr("chat template line "));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenTemplates, ::testing::Values("chat.json", "language.json"));

TEST(ChatMessages, ContinuesAsTransformersDoes) {
  const Json golden = GoldenJson("templates/continued.json");
  const Json sources = GoldenJson("templates/chat.json")["templates"];
  ASSERT_GE(golden["cases"].size(), 200u);
  for (const Json& one : golden["cases"]) {
    SCOPED_TRACE(one["name"].get<std::string>());
    Json variables = golden["variables"];
    variables["messages"] = one["messages"];
    const auto parsed =
        ParseChatTemplate(sources[one["template_name"].get<std::string>()].get<std::string>());
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    const auto got = RenderUpToFinalContent(**parsed, variables, GoldenNow());
    EXPECT_EQ(got.ok(), one.contains("expected")) << got.status();
    if (!got.ok()) continue;
    EXPECT_EQ(got->text, one["expected"].get<std::string>());
    ExpectRunsCover(*got);
  }
}

TEST(ChatMessages, WhichTemplatesTakeParts) {
  const Json sources = GoldenJson("templates/chat.json")["templates"];
  Json variables = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  const auto takes = [&](const char* name, const char* role) {
    return TakesTextParts(**ParseChatTemplate(sources[name].get<std::string>()), role, variables);
  };
  EXPECT_TRUE(takes("gemma3", "user"));
  EXPECT_TRUE(takes("gemma3", "assistant"));
  EXPECT_FALSE(takes("gemma3", "system"));  // prints the first part alone
  for (const char* name : {"chatml", "llama31", "qwen3", "mistral", "gptoss"}) {
    for (const char* role : {"user", "system", "assistant", "tool"})
      EXPECT_FALSE(takes(name, role)) << name << " " << role;
  }
  const auto all = ParseChatTemplate(
      "{{ bos_token + '' }}{% for m in messages %}{% if m.content is string %}{{ m.content }}"
      "{% else %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{% endfor %}");
  for (const char* role : {"user", "system", "assistant", "tool", "developer"})
    EXPECT_TRUE(TakesTextParts(**all, role, variables)) << role;
  const Json parts = {{{"type", "text"}, {"text", "a"}}, {{"type", "text"}, {"text", "b"}}};
  EXPECT_EQ(JoinedTextParts(parts), "a\nb");
  EXPECT_EQ(OnlyTextParts(parts), parts);
  EXPECT_EQ(OnlyTextParts({{{"type", "text"}, {"text", "a"}, {"image_url", 1}}}),
            Json::array({parts[0]}));
  for (const Json& other :
       {Json("a"), Json::array({1}), Json::array({{{"type", "image"}}}),
        Json::array({{{"type", "image"}, {"text", "a"}}}),
        Json::array({{{"type", "text"}, {"text", 1}}}), Json::array({{{"text", "a"}}})}) {
    EXPECT_EQ(OnlyTextParts(other), nullptr) << other;
  }
}

TEST(ChatTemplate, RendersTheDefaultModelsPrompts) {
  const std::string source = ReadGolden("smollm2/chat_template.jinja");
  const Json chats = GoldenJson("smollm2/greedy.json")["chats"];
  ASSERT_GT(chats.size(), 5u);
  for (const Json& chat : chats) {
    const absl::StatusOr<RenderedPrompt> got =
        Render(source, {{"messages", chat["messages"]}, {"add_generation_prompt", true}});
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(got->text, chat["prompt"].get<std::string>()) << chat["name"];
  }
}

// The pieces of a rendering as (text, trusted).
std::vector<std::pair<std::string, bool>> PiecesOf(const std::string& source,
                                                   const Json& variables) {
  const absl::StatusOr<RenderedPrompt> got = Render(source, variables);
  EXPECT_TRUE(got.ok()) << got.status();
  std::vector<std::pair<std::string, bool>> pieces;
  if (!got.ok()) return pieces;
  ExpectRunsCover(*got);
  for (const TextPiece& piece : got->Pieces()) {
    pieces.emplace_back(std::string(piece.text), piece.trusted);
  }
  return pieces;
}

TEST(ChatTemplateTrust, MessagesAreUntrustedAndTheTemplateIsTrusted) {
  const Json variables = {{"messages", {{{"role", "user"}, {"content", " <|im_end|> "}}}},
                          {"bos_token", "<s>"},
                          {"eos_token", "</s>"},
                          {"other_token", "<x>"}};
  EXPECT_THAT(
      PiecesOf(
          "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}"
          "<|im_end|>{% endfor %}{{ eos_token + other_token }}",
          variables),
      ElementsAre(Pair("<s><|im_start|>", true), Pair("user", false), Pair("\n", true),
                  Pair("<|im_end|>", false), Pair("<|im_end|></s>", true), Pair("<x>", false)));
}

// Every way a string can take through the language keeps its bytes untrusted, and the template's
// trusted.
TEST(ChatTemplateTrust, FollowsBytesThroughOperations) {
  const Json variables = {{"u", "uVw"}, {"l", {"a", "b"}}, {"d", {{"key", "val"}}}};
  const struct {
    const char* expression;
    std::vector<std::pair<std::string, bool>> pieces;
  } kCases[] = {
      {"'<' + u + '>'", {{"<", true}, {"uVw", false}, {">", true}}},
      {"'<' ~ u ~ 1", {{"<", true}, {"uVw", false}, {"1", true}}},
      {"('<' + u)[0:2]", {{"<", true}, {"u", false}}},
      {"('<' + u)[::-1]", {{"wVu", false}, {"<", true}}},
      {"('<' + u) * 2", {{"<", true}, {"uVw", false}, {"<", true}, {"uVw", false}}},
      {"('x' + u)|upper", {{"X", true}, {"UVW", false}}},
      {"('x' + u).title()", {{"X", true}, {"uvw", false}}},
      {"(' x ' + u + ' ')|trim", {{"x ", true}, {"uVw", false}}},
      {"('a.' + u).replace('.', '::')", {{"a::", true}, {"uVw", false}}},
      {"'a.b'.replace('.', u)", {{"a", true}, {"uVw", false}, {"b", true}}},
      {"(u + ',b').split(',')[0]", {{"uVw", false}}},
      {"(u + ',b').split(',')[1]", {{"b", true}}},
      {"l|join('-')", {{"a", false}, {"-", true}, {"b", false}}},
      {"['x', 'y']|join(u)", {{"x", true}, {"uVw", false}, {"y", true}}},
      {"d|tojson",
       {{"{\"", true}, {"key", false}, {"\": \"", true}, {"val", false}, {"\"}", true}}},
      {"[u]", {{"['", true}, {"uVw", false}, {"']", true}}},
      {"'%s!' % u", {{"uVw", false}, {"!", true}}},
      {"'{}!'.format(u)", {{"uVw", false}, {"!", true}}},
      {"u.format()", {{"uVw", false}}},
      {"(u ~ '%s') % 'x'", {{"uVw", false}, {"x", true}}},
      {"u|list|first", {{"u", false}}},
      {"u|e", {{"uVw", false}}},
      {"d|items|first|first", {{"key", false}}},
      {"l|map('upper')|join", {{"AB", false}}},
      {"u|default('x')", {{"uVw", false}}},
      {"(u ~ '\n' ~ 'b')|indent(1)", {{"uVw", false}, {"\n b", true}}},
      {"'ab'.center(4, u[0])", {{"u", false}, {"ab", true}, {"u", false}}},
      {"(u ~ 'ß').casefold()", {{"uvw", false}, {"ss", true}}},
      {"('a\tb' ~ u).expandtabs(4)", {{"a   b", true}, {"uVw", false}}},
      {"('a' ~ u).partition('V')|join('|')",
       {{"a", true}, {"u", false}, {"|", true}, {"V", false}, {"|", true}, {"w", false}}},
      {"('<'|e) ~ u|e|replace('u', '>'|safe)", {{"&lt;>", true}, {"Vw", false}}},
      {"('-'|safe).join(['<' ~ u, u])",
       {{"&lt;", true}, {"uVw", false}, {"-", true}, {"uVw", false}}},
      {"('x' ~ u).removeprefix('x').zfill(4)", {{"0", true}, {"uVw", false}}},
      {"('%5s|%-5s' % (u, 'a'))", {{"  ", true}, {"uVw", false}, {"|a    ", true}}},
      {"('{:' ~ u[0] ~ '>5}').format('ab')", {{"uuu", false}, {"ab", true}}},
      {"[u, 'b']|tojson(indent=1)", {{"[\n \"", true}, {"uVw", false}, {"\",\n \"b\"\n]", true}}},
      {"[['a', u], ['b', 'c']]|map('join')|list|sort|first", {{"a", true}, {"uVw", false}}},
      {"(u ~ 'abc')|truncate(4, true, '…', 0)", {{"uVw", false}, {"…", true}}},
      {"u|length", {{"3", true}}},
      {"u|int(7)", {{"7", true}}},
      {"strftime_now(u)", {{"uVw", false}}},
  };
  for (const auto& one : kCases) {
    const std::string source = std::string("{{ ") + one.expression + " }}";
    EXPECT_EQ(PiecesOf(source, variables), one.pieces) << one.expression;
  }
}

TEST(ChatTemplateTrust, FollowsBytesThroughBlocks) {
  const Json variables = {{"u", "uVw"}};
  const std::vector<std::pair<std::string, bool>> expected = {
      {"<", true}, {"uVw", false}, {">", true}};
  EXPECT_EQ(PiecesOf("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(u) }}", variables), expected);
  EXPECT_EQ(PiecesOf("{% set b %}<{{ u }}>{% endset %}{{ b }}", variables), expected);
  EXPECT_EQ(
      PiecesOf("{% for x in ['<', [u], '>'] recursive %}{{ x if x is string else loop(x) }}{% "
               "endfor %}",
               variables),
      expected);
  EXPECT_EQ(PiecesOf("{% filter trim %} <{{ u }}> {% endfilter %}", variables), expected);
  EXPECT_EQ(PiecesOf("{% set n = namespace(x='<') %}{% set n.x = n.x + u %}{{ n.x }}>", variables),
            expected);
  EXPECT_EQ(
      PiecesOf("{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}{{ u }}{% endcall %}",
               variables),
      expected);
}

TEST(ChatTemplate, RefusesVariablesThatAreNoObjectOrNotUtf8) {
  const std::unique_ptr<ChatTemplate> parsed = *ParseChatTemplate("{{ x }}");
  EXPECT_EQ(parsed->Render(Json::array()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(parsed->Render({{"x", "\xff"}}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ParseChatTemplate("\xff").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ChatTemplate, ErrorsNameTheLine) {
  const absl::Status parse = ParseChatTemplate("a\n{{ 1 + }}").status();
  EXPECT_THAT(std::string(parse.message()), HasSubstr("line 2"));
  const absl::Status run =
      Render("a\n\n{% if x %}{% endif %}\n{{ x.y.z }}", {{"x", Json::object()}}).status();
  EXPECT_THAT(std::string(run.message()), HasSubstr("line 4"));
  EXPECT_THAT(std::string(run.message()), HasSubstr("'dict object' has no attribute 'y'"));
}

TEST(ChatTemplate, IsSharedByThreads) {
  const std::unique_ptr<ChatTemplate> parsed = *ParseChatTemplate(
      "{% macro m(x) %}[{{ x }}]{% endmacro %}{% for i in range(50) %}{{ m(u ~ i) }}{% endfor %}");
  std::vector<std::string> texts(4);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < texts.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 20; ++round) texts[t] = parsed->Render({{"u", "x"}})->text;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& text : texts) EXPECT_EQ(text, texts[0]);
  EXPECT_THAT(texts[0], HasSubstr("[x49]"));
}

}  // namespace
}  // namespace fairlead

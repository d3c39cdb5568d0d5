// SPDX-License-Identifier: Apache-2.0
// Encoding and decoding, compared with Hugging Face's tokenizers (tests/golden/tokenizers and
// tests/golden/text), and which text is trusted.
#include "models/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <vector>

#include "models/detokenizer.h"
#include "tests/models/tokenizer_testing.h"

namespace fairlead {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::unique_ptr<Tokenizer> Load(const std::string& path) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadTokenizerFromPath(path);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

std::unique_ptr<Tokenizer> LoadText(const std::string& json) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadTokenizerText(json);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

std::unique_ptr<Tokenizer> LoadGolden(const std::string& kind) {
  return Load(GoldenPath("tokenizers/" + kind + "/tokenizer.json"));
}

void ExpectDecodes(const Tokenizer& tokenizer, const std::vector<Token>& ids,
                   const Json& expected) {
  EXPECT_EQ(tokenizer.Decode(ids, false), Text(expected["decoded"]))
      << ::testing::PrintToString(ids);
  EXPECT_EQ(tokenizer.Decode(ids, true), Text(expected["decoded_skip"]))
      << ::testing::PrintToString(ids);
  for (const bool skip : {false, true}) {
    Detokenizer detokenizer(tokenizer, skip);
    std::string text;
    for (const Token id : ids) text += detokenizer.Push(id);
    text += detokenizer.Finish();
    EXPECT_EQ(text, tokenizer.Decode(ids, skip)) << ::testing::PrintToString(ids);
  }
}

void ExpectGoldenCases(const Tokenizer& tokenizer, const std::string& kind) {
  const Json cases = ReadGolden("tokenizers/" + kind + "/cases.json");
  ASSERT_EQ(cases["encode"].size(), 314u);
  ASSERT_EQ(cases["decode"].size(), 60u);
  EXPECT_EQ(tokenizer.vocab_size(), cases["vocab_size"].get<int>());
  for (const Json& one : cases["encode"]) {
    const std::string text = Text(one["text"]);
    EXPECT_EQ(tokenizer.Encode(text, WithoutSpecial()), Tokens(one["ids"])) << text;
    EXPECT_EQ(tokenizer.Encode(text), Tokens(one["ids_special"])) << text;
    ExpectDecodes(tokenizer, Tokens(one["ids_special"]), one);
  }
  for (const Json& one : cases["decode"]) ExpectDecodes(tokenizer, Tokens(one["ids"]), one);
}

class GoldenTokenizer : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenTokenizer, AgreesWithTheLibrary) {
  const std::unique_ptr<Tokenizer> tokenizer = LoadGolden(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  ExpectGoldenCases(*tokenizer, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Kinds, GoldenTokenizer,
                         ::testing::Values("bpe-gpt2", "bpe-gpt2-prefix-space", "bpe-llama3",
                                           "bpe-llama3-merges", "bpe-qwen2", "bpe-smollm",
                                           "bpe-llama2", "bpe-metaspace", "bpe-gemma", "unigram-t5",
                                           "unigram-bytes", "wordpiece-bert"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(DefaultModel, AgreesWithTheLibrary) {
  const std::string path = FAIRLEAD_MODEL;
  ASSERT_FALSE(path.empty()) << "configure with -DFAIRLEAD_MODEL=SmolLM2-135M-Instruct.Q4_1.gguf";
  ASSERT_TRUE(std::filesystem::exists(path))
      << path << " is not there: tests/run.sh fetches it, or configure with -DFAIRLEAD_MODEL=PATH";
  const std::unique_ptr<Tokenizer> tokenizer = Load(path);
  ASSERT_NE(tokenizer, nullptr);
  ExpectGoldenCases(*tokenizer, "smollm2");
  EXPECT_EQ(tokenizer->bos(), 1);                         // <|im_start|>
  EXPECT_THAT(tokenizer->stop_tokens(), ElementsAre(2));  // <|im_end|>
  EXPECT_TRUE(tokenizer->IsSpecial(2));
  EXPECT_EQ(tokenizer->Spelling(216), "\u0120");
  EXPECT_EQ(tokenizer->Bytes(216), " ");
}

// The library's merges may make a special token of text ("hello" is one in some of these
// vocabularies); ours never do. Characters are kept whatever their tokens are said to be.
void ExpectUnparsed(const Tokenizer& tokenizer, const std::string& text,
                    const std::vector<Token>& wanted) {
  const auto special = [&](Token id) {
    return tokenizer.IsSpecial(id) && tokenizer.Spelling(id).size() > 2 &&
           tokenizer.Spelling(id) != "<unk>";
  };
  const std::vector<Token> ids =
      tokenizer.Encode(text, {.add_special_tokens = false, .parse_special = false});
  EXPECT_TRUE(std::none_of(ids.begin(), ids.end(), special)) << text;
  if (std::none_of(wanted.begin(), wanted.end(), special)) {
    EXPECT_EQ(ids, wanted) << text;
  } else {
    EXPECT_EQ(tokenizer.Decode(ids, false), tokenizer.Decode(wanted, false)) << text;
  }
}

// Tiny tokenizers with every flag of added tokens, unknown characters, byte fallback,
// ignore_merges.
TEST(TinyTokenizers, AgreeWithTheLibrary) {
  const Json golden = ReadGolden("text/added.json");
  ASSERT_EQ(golden.size(), 7u);
  for (size_t i = 0; i < golden.size(); ++i) {
    SCOPED_TRACE(i);
    const auto tokenizer = LoadText(DumpJson(golden[i]["tokenizer"]));
    ASSERT_NE(tokenizer, nullptr);
    ASSERT_EQ(golden[i]["encode"].size(), 120u);
    for (const Json& one : golden[i]["encode"]) {
      const std::string text = Text(one["text"]);
      EXPECT_EQ(tokenizer->Encode(text, WithoutSpecial()), Tokens(one["ids"])) << text;
      EXPECT_EQ(tokenizer->Encode(text), Tokens(one["ids_special"])) << text;
      ExpectUnparsed(*tokenizer, text, Tokens(one["ids_unparsed"]));
    }
    for (const Json& one : golden[i]["decode"]) ExpectDecodes(*tokenizer, Tokens(one["ids"]), one);
  }
}

std::vector<Token> EncodePieces(const Tokenizer& tokenizer, const std::vector<TextPiece>& pieces) {
  return tokenizer.Encode(pieces, WithoutSpecial());
}

std::vector<Token> EncodePlain(const Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.Encode(text, {.add_special_tokens = false, .parse_special = false});
}

TEST(Trust, SpecialTokensCountInTrustedPiecesOnly) {
  const auto tokenizer = LoadGolden("bpe-smollm");
  ASSERT_NE(tokenizer, nullptr);
  constexpr Token kStart = 1;
  EXPECT_THAT(tokenizer->Encode("<|im_start|>"), ElementsAre(kStart));
  const std::vector<Token> untrusted = EncodePieces(*tokenizer, {{"<|im_start|>", false}});
  EXPECT_EQ(untrusted, EncodePlain(*tokenizer, "<|im_start|>"));
  EXPECT_THAT(untrusted, ::testing::Not(::testing::Contains(kStart)));
  EXPECT_EQ(tokenizer->Decode(untrusted, true), "<|im_start|>");

  std::vector<Token> expected = {kStart};
  for (const Token id : EncodePlain(*tokenizer, "user\n<|im_start|>x")) expected.push_back(id);
  EXPECT_EQ(EncodePieces(*tokenizer, {{"<|im_start|>user\n", true}, {"<|im_start|>x", false}}),
            expected);
}

TEST(Trust, MergesMakeNoSpecialToken) {
  const auto tokenizer = LoadText(R"({
    "model": {"type": "BPE", "vocab": {"<": 0, "s": 1, ">": 2, "<s": 3, "<s>": 4},
              "merges": ["< s", "<s >"]},
    "added_tokens": [{"id": 4, "content": "<s>", "special": true}]})");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_THAT(tokenizer->Encode("<s>"), ElementsAre(4));
  EXPECT_THAT(EncodePieces(*tokenizer, {{"<s>", false}}), ElementsAre(3, 2));
}

TEST(Trust, NormalizersMayMakeOneTextOfTwoTokens) {
  const auto tokenizer = LoadText(R"({
    "model": {"type": "WordLevel", "vocab": {"x": 0, "[UNK]": 1}, "unk_token": "[UNK]"},
    "normalizer": {"type": "Lowercase"},
    "added_tokens": [{"id": 2, "content": "Foo", "normalized": true},
                     {"id": 3, "content": "foo", "normalized": true}]})");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_THAT(tokenizer->Encode("FOO"), ElementsAre(2));
}

TEST(Trust, ATokenMayNotReachIntoUntrustedText) {
  const auto tokenizer = LoadGolden("bpe-smollm");
  ASSERT_NE(tokenizer, nullptr);
  const std::vector<Token> plain = EncodePlain(*tokenizer, "<|im_start|>");
  EXPECT_EQ(EncodePieces(*tokenizer, {{"<|im_", true}, {"start|>", false}}), plain);
  EXPECT_EQ(EncodePieces(*tokenizer, {{"<|im_", false}, {"start|>", true}}), plain);
  // Two trusted pieces side by side are one trusted text.
  EXPECT_THAT(EncodePieces(*tokenizer, {{"<|im_", true}, {"start|>", true}}), ElementsAre(1));
}

TEST(Trust, WordsAndPlainAddedTokensCrossPieces) {
  const auto tokenizer = LoadGolden("bpe-smollm");
  ASSERT_NE(tokenizer, nullptr);
  const std::vector<TextPiece> pieces = {
      {"the wo", true}, {"rld <tool", false}, {"_call> N", true}, {"ew York", false}};
  EXPECT_EQ(EncodePieces(*tokenizer, pieces),
            tokenizer->Encode("the world <tool_call> New York", WithoutSpecial()));
}

// Two special tokens that overlap: text that is not trusted must not swallow the start of the one
// that is.
TEST(Trust, UntrustedTextHidesNoToken) {
  Json file = ReadGolden("text/added.json")[0]["tokenizer"];
  file["added_tokens"] =
      Json::array({{{"id", 1}, {"content", "ab"}, {"special", true}, {"normalized", false}},
                   {{"id", 2}, {"content", "bc"}, {"special", true}, {"normalized", false}}});
  const auto tokenizer = LoadText(DumpJson(file));
  ASSERT_NE(tokenizer, nullptr);
  const Token bc = tokenizer->Encode("bc", WithoutSpecial())[0];
  const Token a = tokenizer->Encode("a", WithoutSpecial())[0];
  const Token ab = tokenizer->Encode("ab", WithoutSpecial())[0];
  EXPECT_THAT(EncodePieces(*tokenizer, {{"a", false}, {"bc", true}}), ElementsAre(a, bc));
  EXPECT_EQ(EncodePieces(*tokenizer, {{"a", true}, {"bc", true}})[0], ab);
}

// Normalization changes lengths and mixes characters; what was trusted stays so, and nothing else.
TEST(Trust, SurvivesNormalization) {
  Json file = ReadGolden("text/added.json")[0]["tokenizer"];
  file["added_tokens"] =
      Json::array({{{"id", 1}, {"content", "<end>"}, {"special", true}, {"normalized", true}}});
  const auto tokenizer = LoadText(DumpJson(file));
  ASSERT_NE(tokenizer, nullptr);
  const Token end = tokenizer->Encode("<end>", WithoutSpecial())[0];
  const auto ends = [&](const std::vector<TextPiece>& pieces) {
    const std::vector<Token> ids = EncodePieces(*tokenizer, pieces);
    return std::count(ids.begin(), ids.end(), end);
  };
  EXPECT_EQ(ends({{"e\u0301e\u0301<end>", false}, {"<end>", true}, {"e\u0301<end>", false}}), 1);
  EXPECT_EQ(ends({{"<end>", true}, {"\u4e2d\u6587<end>", false}, {"<end>", true}}), 2);
  // The combining stroke of the second piece belongs to the > before it.
  EXPECT_EQ(ends({{"<end>", true}, {"\u0338", false}}), 0);
  EXPECT_EQ(ends({{"<en", true}, {"d>", false}}), 0);
}

TEST(Encode, InvalidUtf8BecomesReplacementCharacters) {
  const auto tokenizer = LoadGolden("bpe-gpt2");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->Encode("a\xC3(b\xFF"), tokenizer->Encode("a\uFFFD(b\uFFFD"));
  // A character cut in two by pieces is two broken ones.
  EXPECT_EQ(EncodePieces(*tokenizer, {{"\xC3", true}, {"\xA9", true}}),
            tokenizer->Encode("\uFFFD\uFFFD"));
}

TEST(Encode, KeepsEveryByteOfAMegabyte) {
  const auto tokenizer = LoadGolden("bpe-gpt2");
  ASSERT_NE(tokenizer, nullptr);
  const size_t kBytes = 1 << 20;
  std::string word(kBytes, 'a');
  std::string mixed;
  while (mixed.size() < kBytes)
    mixed += "The 3 foxes \u4e2d\u6587 jumped!?\r\n\t  \U0001F600 don't ";
  for (const std::string& text :
       {word, std::string(kBytes, ' '), std::string(kBytes, '\n'), mixed}) {
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text), false), text);
  }
}

// The golden tokenizer of this kind, no added token of which takes white space along.
Json GoldenWithoutStripping(const std::string& kind) {
  Json file = ReadGolden("tokenizers/" + kind + "/tokenizer.json");
  for (Json& token : file["added_tokens"]) token["lstrip"] = token["rstrip"] = false;
  return file;
}

// A bound that holds for every text, whatever the normalizer and the pre-tokenizer do.
TEST(MinTokens, IsNoMoreThanThereAre) {
  for (const std::string kind : {"bpe-gpt2", "bpe-llama3", "bpe-qwen2", "bpe-smollm"}) {
    SCOPED_TRACE(kind);
    const auto tokenizer = LoadText(DumpJson(GoldenWithoutStripping(kind)));
    ASSERT_NE(tokenizer, nullptr);
    std::string longest;
    for (Token id = 0; id < tokenizer->vocab_size(); ++id) {
      if (tokenizer->Bytes(id).size() > longest.size()) longest = tokenizer->Bytes(id);
    }
    std::vector<std::string> texts = {"", longest, "e\u0301", "\u212A\u0327", "  \n\n"};
    const Json cases = ReadGolden("tokenizers/" + kind + "/cases.json");
    for (const Json& text : cases["encode"]) texts.push_back(Text(text["text"]));
    for (const std::string& text : texts) {
      std::string many;
      for (int i = 0; i < 50; ++i) many += text;
      EXPECT_LE(tokenizer->MinTokens(many), tokenizer->Encode(many, WithoutSpecial()).size())
          << text;
    }
    EXPECT_EQ(tokenizer->MinTokens(std::string(1 << 16, 'a')), (1 << 16) / longest.size());
  }
}

// Added tokens count with the bytes of their text, and do not hide the model's own token whose id
// they took.
TEST(MinTokens, KnowsTheLongestToken) {
  Json file = GoldenWithoutStripping("bpe-smollm");
  std::string long_text;
  for (int i = 0; i < 100; ++i) long_text += "\u00e9";
  file["added_tokens"].push_back({{"id", 9999},
                                  {"content", long_text},
                                  {"single_word", false},
                                  {"lstrip", false},
                                  {"rstrip", false},
                                  {"normalized", false},
                                  {"special", true}});
  const auto tokenizer = LoadText(DumpJson(file));
  ASSERT_NE(tokenizer, nullptr);
  std::string text;
  for (int i = 0; i < 100; ++i) text += long_text;
  EXPECT_EQ(tokenizer->Encode(text, WithoutSpecial()).size(), 100u);
  EXPECT_LE(tokenizer->MinTokens(text), 100u);

  // A gap in the ids: the added token gets the id of the longest token, which merges still give.
  file = GoldenWithoutStripping("bpe-smollm");
  const auto plain = LoadText(DumpJson(file));
  ASSERT_NE(plain, nullptr);
  Json& vocabulary = file["model"]["vocab"];
  Token longest = 0;
  for (Token id = 0; id < static_cast<Token>(vocabulary.size()); ++id) {
    if (plain->Bytes(id).size() > plain->Bytes(longest).size()) longest = id;
  }
  const auto count = vocabulary.size();
  vocabulary[std::string(plain->Spelling(longest))] = count;  // its own id is a gap now
  file["added_tokens"] = Json::array({{{"id", count},
                                       {"content", "<new>"},
                                       {"single_word", false},
                                       {"lstrip", false},
                                       {"rstrip", false},
                                       {"normalized", false},
                                       {"special", true}}});
  const auto hidden = LoadText(DumpJson(file));
  ASSERT_NE(hidden, nullptr);
  EXPECT_EQ(hidden->Spelling(static_cast<Token>(count)), "<new>");
  EXPECT_EQ(hidden->MinTokens(std::string(1 << 16, 'a')), (1 << 16) / plain->Bytes(longest).size());
}

TEST(Encode, EndsOnceItIsCancelled) {
  const auto tokenizer = LoadGolden("bpe-smollm");
  ASSERT_NE(tokenizer, nullptr);
  const std::atomic<bool> cancelled{true};
  EncodeOptions options = WithoutSpecial();
  options.cancelled = &cancelled;
  std::string words, specials;
  for (int i = 0; i < 100000; ++i) words += "word ";
  for (int i = 0; i < 1000; ++i) specials += "<|im_end|>";
  EXPECT_THAT(tokenizer->Encode(words, options), IsEmpty());
  options.parse_special = true;
  EXPECT_THAT(tokenizer->Encode(specials, options), IsEmpty());
  options.cancelled = nullptr;
  EXPECT_THAT(tokenizer->Encode(specials, options), SizeIs(1000));
}

TEST(MinTokens, IsNothingWhereTextCanVanish) {
  const std::string text(1 << 16, 'a');
  Json file = GoldenWithoutStripping("bpe-smollm");
  Json strips = file;
  strips["added_tokens"][0]["lstrip"] = true;
  EXPECT_EQ(LoadText(DumpJson(strips))->MinTokens(text), 0u);
  Json removes = file;
  Json& steps = removes["pre_tokenizer"]["pretokenizers"];
  const Json drop_a = {{"type", "Split"},
                       {"pattern", {{"String", "a"}}},
                       {"behavior", "Removed"},
                       {"invert", false}};
  steps.insert(steps.begin(), drop_a);
  EXPECT_EQ(LoadText(DumpJson(removes))->MinTokens(text), 0u);
  // Bytes without a token do not count.
  Json lacks = file;
  lacks["model"]["vocab"].erase("a");
  Json& merges = lacks["model"]["merges"];
  merges = Json::array();
  EXPECT_EQ(LoadText(DumpJson(lacks))->MinTokens(text), 0u);
}

TEST(Encode, EndsWhenThereAreEnoughTokens) {
  const auto tokenizer = LoadGolden("bpe-smollm");
  ASSERT_NE(tokenizer, nullptr);
  std::string text;
  for (int i = 0; i < 10000; ++i) text += "word ";
  const std::vector<Token> all = tokenizer->Encode(text, WithoutSpecial());
  EncodeOptions options = WithoutSpecial();
  options.enough_tokens = 100;
  const std::vector<Token> some = tokenizer->Encode(text, options);
  EXPECT_GT(some.size(), 100u);
  EXPECT_LT(some.size(), 120u);
  EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin()));
  options.enough_tokens = all.size();
  EXPECT_EQ(tokenizer->Encode(text, options), all);
}

TEST(Decode, IdsWithoutATokenAreNothing) {
  const auto tokenizer = LoadGolden("bpe-gpt2");
  ASSERT_NE(tokenizer, nullptr);
  const std::vector<Token> odd = {-1, tokenizer->vocab_size(), INT32_MAX, INT32_MIN};
  EXPECT_EQ(tokenizer->Decode(odd, false), "");
  for (const Token id : odd) {
    EXPECT_EQ(tokenizer->Bytes(id), "");
    EXPECT_EQ(tokenizer->Spelling(id), "");
    EXPECT_FALSE(tokenizer->IsSpecial(id));
  }
}

TEST(Encode, TruncationAndPaddingOfTheFileDoNotApply) {
  Json file = ReadGolden("text/added.json")[2]["tokenizer"];
  file["truncation"] = {
      {"direction", "Right"}, {"max_length", 2}, {"strategy", "LongestFirst"}, {"stride", 0}};
  const auto tokenizer = LoadText(DumpJson(file));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->Encode("a b c d").size(), 7u);
}

}  // namespace
}  // namespace fairlead

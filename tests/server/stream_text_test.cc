// SPDX-License-Identifier: Apache-2.0
// Random texts in many scripts, through the tokenizers of tests/golden/tokenizers and the stream of
// a choice: the deltas are valid UTF-8 and together the text, stop strings are found wherever
// tokens begin and end, and logprobs have the place and the bytes of their tokens.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <set>

#include "models/tokenizer.h"
#include "server/choice_stream.h"
#include "tests/models/tokenizer_testing.h"

namespace fairlead {
namespace {

// Tokenizers whose ids give back any text as it was: no normalizer, no added space.
constexpr const char* kLossless[] = {"bpe-gpt2", "bpe-llama3", "bpe-llama3-merges", "bpe-smollm"};

struct Script {
  const char* name;
  std::vector<std::pair<char32_t, char32_t>> letters;  // ranges, ends included
  const char* const* words = nullptr;                  // whole clusters instead
  size_t num_words = 0;
};
constexpr const char* kEmoji[] = {
    "😀",      "👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇳🇴",
    "❤️", "🧑🏿‍🚀",    "1️⃣"};
const std::vector<Script>& Scripts() {
  static const std::vector<Script>& scripts =
      *new std::vector<Script>{{"latin", {{'a', 'z'}, {0xc0, 0xff}}},
                               {"cyrillic", {{0x410, 0x44f}}},
                               {"greek", {{0x3b1, 0x3c9}}},
                               {"arabic", {{0x621, 0x64a}, {0x64b, 0x652}}},
                               {"hebrew", {{0x5d0, 0x5ea}}},
                               {"devanagari", {{0x905, 0x939}, {0x93e, 0x94d}}},
                               {"thai", {{0xe01, 0xe3a}, {0xe40, 0xe4e}}},
                               {"han", {{0x4e00, 0x9fa0}}},
                               {"hangul", {{0xac00, 0xd7a3}}},
                               {"emoji", {}, kEmoji, std::size(kEmoji)}};
  return scripts;
}

size_t Draw(std::mt19937& random, size_t bound) { return random() % bound; }

void AppendUtf8(char32_t c, std::string& out) {
  if (c < 0x80) return out.push_back(static_cast<char>(c));
  if (c >= 0x800) {
    out.push_back(static_cast<char>(0xe0 | (c >> 12)));
    out.push_back(static_cast<char>(0x80 | ((c >> 6) & 0x3f)));
  } else {
    out.push_back(static_cast<char>(0xc0 | (c >> 6)));
  }
  out.push_back(static_cast<char>(0x80 | (c & 0x3f)));
}

std::string RandomText(const Script& script, std::mt19937& random) {
  std::string text;
  const size_t words = 2 + Draw(random, 12);
  for (size_t i = 0; i < words; ++i) {
    if (i > 0)
      text += std::vector<const char*>{" ", " ", " ", ", ", "\n", ". ", "  "}[Draw(random, 7)];
    const size_t letters = 1 + Draw(random, 8);
    for (size_t k = 0; k < letters; ++k) {
      if (script.words != nullptr) {
        text += script.words[Draw(random, script.num_words)];
        continue;
      }
      const auto& [low, high] = script.letters[Draw(random, script.letters.size())];
      AppendUtf8(low + static_cast<char32_t>(Draw(random, high - low + 1)), text);
    }
    if (Draw(random, 5) == 0) text += std::to_string(Draw(random, 1000));
  }
  return text;
}

// Independent of the code under test: the JSON library refuses anything else.
bool IsUtf8(const std::string& text) {
  try {
    (void)nlohmann::json(text).dump();
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

size_t CodePoints(const std::string& text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return count;
}

// The byte at which code point `index` begins.
size_t ByteOf(const std::string& text, size_t index) {
  size_t seen = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    if ((static_cast<unsigned char>(text[at]) & 0xc0) != 0x80 && seen++ == index) return at;
  }
  return text.size();
}

struct Streamed {
  std::vector<std::string> deltas;
  std::string text;  // of all of them
  std::vector<pb::TokenLogprob> logprobs;
  std::optional<pb::Finish> finish;
};

// The engine pushes `tokens`; the deliverer looks now and then, as `random` says.
Streamed Stream(const Tokenizer& tokenizer, const std::vector<Token>& tokens, ChoiceOptions options,
                std::mt19937& random) {
  options.max_tokens = static_cast<int>(tokens.size());
  options.logprobs = 1;
  ChoiceStream stream(std::move(options), &tokenizer, ChoiceStream::Listener{[] {}, [] {}});
  Streamed out;
  const auto take = [&] {
    ChoiceStream::Progress progress = stream.Take();
    if (progress.delta) {
      out.deltas.push_back(progress.delta->text());
      out.text += progress.delta->text();
      for (const auto& logprob : progress.delta->logprobs()) out.logprobs.push_back(logprob);
    }
    if (progress.finish) out.finish = progress.finish;
  };
  for (const Token token : tokens) {
    const TopLogprob top[] = {{token, -1.0f}};
    stream.Push({.token = token, .logprob = -1.0f, .rank = 1, .top = top});
    if (Draw(random, 3) != 0) take();
  }
  EngineResult result;
  result.reason = FinishReason::kLength;
  stream.Close(result);
  take();
  return out;
}

// Of `text`, which the tokens' bytes make up.
void ExpectLogprobsMatch(const Streamed& got, const std::string& text) {
  std::string bytes;
  for (const pb::TokenLogprob& logprob : got.logprobs) {
    // The character in which the token begins.
    size_t begin = bytes.size();
    while (begin < text.size() && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
    EXPECT_EQ(ByteOf(text, static_cast<size_t>(logprob.text_offset())), begin);
    bytes += logprob.text();
  }
  EXPECT_EQ(bytes, text);
}

class StreamTextTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    auto tokenizer =
        LoadTokenizerFromPath(GoldenPath("tokenizers/" + GetParam() + "/tokenizer.json"));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    lossless_ =
        std::find(std::begin(kLossless), std::end(kLossless), GetParam()) != std::end(kLossless);
  }
  // Calls visit(text, tokens) for 200 texts.
  template <typename Visit>
  void ForTexts(std::mt19937& random, Visit visit) {
    for (int round = 0; round < 20; ++round) {
      for (const Script& script : Scripts()) {
        const std::string text = RandomText(script, random);
        SCOPED_TRACE(std::string(script.name) + ": " + text);
        visit(text, tokenizer_->Encode(text, WithoutSpecial()));
      }
    }
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  bool lossless_ = false;
};

TEST_P(StreamTextTest, DeltasAreTheText) {
  std::mt19937 random(1);
  ForTexts(random, [&](const std::string& text, const std::vector<Token>& tokens) {
    const Streamed got = Stream(*tokenizer_, tokens, {}, random);
    for (const std::string& delta : got.deltas) EXPECT_TRUE(IsUtf8(delta));
    EXPECT_EQ(got.text, tokenizer_->Decode(tokens, true));
    ASSERT_EQ(got.logprobs.size(), tokens.size());
    if (!lossless_) return;
    EXPECT_EQ(got.text, text);
    ExpectLogprobsMatch(got, text);
  });
}

// Any ids at all, the library's decode of which has U+FFFD where their bytes are no text.
TEST_P(StreamTextTest, DeltasOfAnyTokensAreTheirDecode) {
  std::mt19937 random(2);
  for (int round = 0; round < 200; ++round) {
    std::vector<Token> tokens(1 + Draw(random, 30));
    for (Token& token : tokens) {
      token = static_cast<Token>(Draw(random, static_cast<size_t>(tokenizer_->vocab_size())));
    }
    ChoiceOptions options;
    options.skip_special_tokens = round % 2 == 0;
    const bool skip = options.skip_special_tokens;
    const Streamed got = Stream(*tokenizer_, tokens, std::move(options), random);
    for (const std::string& delta : got.deltas) EXPECT_TRUE(IsUtf8(delta));
    EXPECT_EQ(got.text, tokenizer_->Decode(tokens, skip));
    int before = 0;
    for (const pb::TokenLogprob& logprob : got.logprobs) {
      EXPECT_GE(logprob.text_offset(), before);
      before = logprob.text_offset();
      const bool hidden = skip && tokenizer_->IsSpecial(logprob.token());
      if (!lossless_ || hidden || !IsUtf8(logprob.text())) continue;
      EXPECT_EQ(
          got.text.substr(ByteOf(got.text, static_cast<size_t>(before)), logprob.text().size()),
          logprob.text());
    }
    EXPECT_LE(static_cast<size_t>(before), CodePoints(got.text));
  }
}

// The stop string is a part of the text, cut between characters anywhere, so it begins and ends
// within tokens and spans several.
TEST_P(StreamTextTest, StopStringsSpanTokens) {
  std::mt19937 random(3);
  int inside = 0;
  ForTexts(random, [&](const std::string&, const std::vector<Token>& tokens) {
    const std::string text = tokenizer_->Decode(tokens, true);
    const size_t length = CodePoints(text);
    if (length == 0) return;  // special tokens alone
    const size_t begin = ByteOf(text, Draw(random, length));
    const size_t end = ByteOf(
        text, CodePoints(text.substr(0, begin)) + 1 + Draw(random, std::min<size_t>(12, length)));
    const std::string stop = text.substr(begin, end - begin);
    if (stop.empty()) return;
    ++inside;
    // What is before the first place where the stop string is complete.
    const std::string before = text.substr(0, text.find(stop));
    for (const bool include : {false, true}) {
      ChoiceOptions options;
      options.stop_strings = {"\x01never", stop};
      options.include_stop_text = include;
      const Streamed got = Stream(*tokenizer_, tokens, std::move(options), random);
      for (const std::string& delta : got.deltas) EXPECT_TRUE(IsUtf8(delta));
      EXPECT_EQ(got.text, include ? before + stop : before) << "stop: " << stop;
      ASSERT_TRUE(got.finish.has_value());
      EXPECT_EQ(got.finish->stop_string(), stop);
      EXPECT_LE(got.logprobs.size(), tokens.size());
    }
  });
  EXPECT_GT(inside, 150);
}

// Prompt logprobs of an echoed prompt, and then the output's.
TEST_P(StreamTextTest, OffsetsBeginAfterTheEcho) {
  std::mt19937 random(4);
  ForTexts(random, [&](const std::string&, const std::vector<Token>& tokens) {
    const std::string text = tokenizer_->Decode(tokens, true);
    Token bos = 0;  // which is not in the echo
    while (!tokenizer_->IsSpecial(bos)) ++bos;
    ChoiceOptions options;
    options.prompt = tokens;
    options.prompt.insert(options.prompt.begin(), bos);
    options.echo_text = text;
    options.prompt_logprobs = 0;
    options.logprobs = 0;
    options.max_tokens = static_cast<int>(tokens.size());
    ChoiceStream stream(options, tokenizer_.get(), ChoiceStream::Listener{[] {}, [] {}});
    for (const Token token : tokens)
      stream.PushPromptLogprob({.token = token, .rank = 1, .top = {}});
    for (const Token token : tokens) stream.Push({.token = token, .rank = 1, .top = {}});
    const ChoiceStream::Progress progress = stream.Take();
    ASSERT_TRUE(progress.prompt_logprobs && progress.delta);
    const auto& prompt = progress.prompt_logprobs->tokens();
    const auto& output = progress.delta->logprobs();
    ASSERT_EQ(prompt.size(), output.size() + 1);
    EXPECT_EQ(prompt[0].text_offset(), 0);
    for (int i = 0; i < output.size(); ++i) {
      EXPECT_EQ(prompt[i + 1].text_offset() + static_cast<int>(CodePoints(text)),
                output[i].text_offset());
    }
  });
}

// Every tokenizer.json there is: one that comes later is tested too.
std::vector<std::string> Tokenizers() {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenPath("tokenizers"))) {
    if (std::filesystem::exists(entry.path() / "tokenizer.json"))
      names.insert(entry.path().filename().string());
  }
  return {names.begin(), names.end()};
}

INSTANTIATE_TEST_SUITE_P(Golden, StreamTextTest, testing::ValuesIn(Tokenizers()));

}  // namespace
}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "models/gguf_pre_tokenizers.h"

#include "absl/status/status.h"
#include "absl/strings/str_join.h"
#include "kernels/strings.h"
#include "models/pretokenizer.h"

namespace fairlead {
namespace {

constexpr std::string_view kEachDigit = "\\p{N}";
constexpr std::string_view kUpToThreeDigits = "\\p{N}{1,3}";
constexpr std::string_view kLlama3Split =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kQwen2Split =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kGpt4oSplit =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kTekkenSplit =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|"
    "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kDeepseekV3Cjk = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+";
constexpr std::string_view kDeepseekV3Split =
    "[!\"#$%&'()*+,\\-./"
    ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
    " ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

// BLOOM and its kin: words with the space before them; these characters stand between words.
constexpr std::string_view kBloomSplit =
    " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+";
// Falcon: runs of punctuation, and digits by threes behind GPT-2's split.
constexpr std::string_view kFalconPunctuation = "[\\p{P}\\$\\+<=>\\^~\\|`]+";
constexpr std::string_view kThreeDigits = "[0-9][0-9][0-9]";
// DeepSeek Coder.
constexpr std::string_view kLineEnd = "[\\r\\n]";
constexpr std::string_view kLetters = "\\s?\\p{L}+";
constexpr std::string_view kPunctuation = "\\s?\\p{P}+";
constexpr std::string_view kDeepseekCjk = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+";

const std::vector<GgufPreTokenizer>& KnownPreTokenizers() {
  static const auto* const kKnown = new std::vector<GgufPreTokenizer>{
      {.name = {"default", "gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "exaone4", "gigachat",
                "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum"},
       .pattern = {kGpt2Split}},
      {.name = {"roberta-bpe", "jina-v1-en", "jina-v2-code"},
       .pattern = {kGpt2Split},
       .add_bos = true,
       .add_eos = true},
      {.name = {"modern-bert"}, .pattern = {kGpt2Split}, .nfc = true},
      {.name = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"},
       .pattern = {kEachDigit, kGpt2Split}},
      {.name = {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2",
                "midm-2.0", "jina-v5-nano"},
       .pattern = {kLlama3Split},
       .ignore_merges = true,
       .add_bos = true},
      {.name = {"dbrx", "smaug-bpe", "glm4", "chatglm-bpe"}, .pattern = {kLlama3Split}},
      {.name = {"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2"},
       .pattern = {kQwen2Split},
       .nfc = true},
      {.name = {"stablelm2", "hunyuan", "megrez"}, .pattern = {kQwen2Split}},
      {.name = {"gpt-4o", "llama4", "kanana2"}, .pattern = {kGpt4oSplit}},
      {.name = {"tekken"}, .pattern = {kTekkenSplit}, .ignore_merges = true, .add_bos = true},
      {.name = {"deepseek-v3", "hunyuan-dense"},
       .pattern = {kUpToThreeDigits, kDeepseekV3Cjk, kDeepseekV3Split}},
      {.name = {"deepseek-coder"},
       .pattern = {kLineEnd, kLetters, kPunctuation, kDeepseekCjk, kEachDigit},
       .add_bos = true},
      {.name = {"falcon"}, .pattern = {kFalconPunctuation, kGpt2Split, kThreeDigits}},
      {.name = {"bloom", "poro-chat", "gpt3-finnish"}, .pattern = {kBloomSplit}},
      {.name = {"viking"}, .pattern = {kBloomSplit, kEachDigit}},
  };
  return *kKnown;
}

}  // namespace

absl::StatusOr<const GgufPreTokenizer*> FindGgufPreTokenizer(const std::string& name) {
  std::vector<std::string> known;
  for (const GgufPreTokenizer& kind : KnownPreTokenizers()) {
    for (const std::string_view candidate : kind.name) {
      if (candidate == name) return &kind;
      known.emplace_back(candidate);
    }
  }
  return absl::UnimplementedError(
      StrCat("tokenizer.ggml.pre \"", name, "\" is unknown; known: ", absl::StrJoin(known, ", ")));
}

}  // namespace fairlead

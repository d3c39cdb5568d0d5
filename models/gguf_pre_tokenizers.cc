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
// Qwen 3.5: marks belong to words.
constexpr std::string_view kQwen35Split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|)"
    R"( ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kUfakzekaSplit =  // without English contractions
    R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kSeedCoderSplit =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kMinicpm5Split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kJais2Split =  // white space by powers of two
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|)"
    R"(\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s)";
constexpr std::string_view kExaoneMoeSplit =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kKimiK2Split =
    R"([\p{Han}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Digits by threes from the right.
constexpr std::string_view kTinyAyaDigits = R"(\d{1,3}(?=(?:\d{3})*\b))";
constexpr std::string_view kSuperBpeDigits = R"((?=(\d{3})+(?!\d)))";
constexpr std::string_view kLines = R"([^\n]+|[\n]+)";
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
// Where the file does not say, or says "default".
constexpr std::string_view kDefaultPunctuation = "[\\p{P}\\$\\+<=>\\^~\\|]+";
constexpr std::string_view kDigits = "\\p{N}+";
// Chameleon.
constexpr std::string_view kSentinels = "<sentinel:[0-9]+>";
constexpr std::string_view kImageTokens = "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z";
constexpr std::string_view kChameleonSpace = "([\\t\\n]|    |  )";
constexpr std::string_view kEachPunctuation = R"([\p{P}!-/:-@\[-`{-~])";
// DeepSeek Coder.
constexpr std::string_view kLineEnd = "[\\r\\n]";
constexpr std::string_view kLetters = "\\s?\\p{L}+";
constexpr std::string_view kPunctuation = "\\s?\\p{P}+";
constexpr std::string_view kDeepseekCjk = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+";

const std::vector<GgufPreTokenizer>& KnownPreTokenizers() {
  static const auto* const kKnown = new std::vector<GgufPreTokenizer>{
      {.name = {"default"}, .pattern = {kDefaultPunctuation, kGpt2Split, kDigits, kThreeDigits}},
      {.name = {"gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "exaone4", "gigachat", "jina-es",
                "jina-de", "a.x-4.0", "mellum", "trillion", "granite-docling"},
       .pattern = {kGpt2Split}},
      {.name = {"roberta-bpe", "jina-v1-en"},
       .pattern = {kGpt2Split},
       .add_bos = true,
       .add_eos = true},
      {.name = {"jina-v2-code"},
       .pattern = {kGpt2Split},
       .add_bos = true,
       .add_eos = true,
       .strip_before_mask = true},
      {.name = {"jina-v2-es", "jina-v2-de"}, .pattern = {kGpt2Split}, .strip_before_mask = true},
      {.name = {"modern-bert"}, .pattern = {kGpt2Split}, .nfc = true},
      {.name = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b",
                "mellum2"},
       .pattern = {kEachDigit, kGpt2Split}},
      {.name = {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2",
                "midm-2.0", "jina-v5-nano"},
       .pattern = {kLlama3Split},
       .ignore_merges = true,
       .add_bos = true},
      {.name = {"dbrx", "smaug-bpe", "glm4", "glm5", "chatglm-bpe"}, .pattern = {kLlama3Split}},
      {.name = {"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2"},
       .pattern = {kQwen2Split},
       .nfc = true},
      {.name = {"stablelm2", "hunyuan", "megrez", "grok-2", "solar-open", "bailingmoe",
                "bailingmoe2", "llada-moe"},
       .pattern = {kQwen2Split}},
      {.name = {"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"}, .pattern = {kGpt4oSplit}},
      {.name = {"qwen35"}, .pattern = {kQwen35Split}, .nfc = true},
      {.name = {"ufakzeka"}, .pattern = {kUfakzekaSplit}},
      {.name = {"seed-coder"}, .pattern = {kSeedCoderSplit}},
      {.name = {"minicpm5"}, .pattern = {kUpToThreeDigits, kMinicpm5Split}, .ignore_merges = true},
      {.name = {"jais-2"}, .pattern = {kJais2Split}},
      {.name = {"exaone-moe"}, .pattern = {kExaoneMoeSplit}},
      {.name = {"kimi-k2"}, .pattern = {kKimiK2Split}},
      {.name = {"tiny_aya", "cohere2moe"}, .pattern = {kTinyAyaDigits, kGpt4oSplit}},
      {.name = {"superbpe"}, .pattern = {kDigits, kSuperBpeDigits}},
      {.name = {"laguna"}, .pattern = {kLines, kQwen2Split}},
      {.name = {"chameleon"},
       .pattern = {kSentinels, kImageTokens, kChameleonSpace, kEachDigit, kEachPunctuation,
                   kGpt2Split},
       .add_bos = true},
      {.name = {"tekken"}, .pattern = {kTekkenSplit}, .ignore_merges = true, .add_bos = true},
      {.name = {"deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"},
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

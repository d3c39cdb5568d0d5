// SPDX-License-Identifier: Apache-2.0
#include "models/tokenizer_gguf.h"

#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_join.h"
#include "kernels/strings.h"
#include "models/config_reader.h"

namespace fairlead {
namespace {

constexpr int kControlToken = 3;
constexpr int kUserDefinedToken = 4;

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

// What a tokenizer.ggml.pre name stands for. The patterns split one after the other, matches
// isolated.
struct PreTokenizerKind {
  std::vector<std::string_view> name;
  std::vector<std::string_view> pattern;
  bool ignore_merges = false;
  bool add_bos = false;  // where the file does not say
  bool nfc = false;      // the models' own tokenizer.json normalizes
};

const std::vector<PreTokenizerKind>& KnownKinds() {
  static const auto* const kKinds = new std::vector<PreTokenizerKind>{
      {.name = {"default", "gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "exaone4"},
       .pattern = {kGpt2Split}},
      {.name = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"},
       .pattern = {kEachDigit, kGpt2Split}},
      {.name = {"llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"},
       .pattern = {kLlama3Split},
       .ignore_merges = true,
       .add_bos = true},
      {.name = {"dbrx", "smaug-bpe", "glm4", "chatglm-bpe"}, .pattern = {kLlama3Split}},
      {.name = {"qwen2", "deepseek-r1-qwen"}, .pattern = {kQwen2Split}, .nfc = true},
      {.name = {"stablelm2", "hunyuan", "megrez"}, .pattern = {kQwen2Split}},
      {.name = {"gpt-4o", "llama4"}, .pattern = {kGpt4oSplit}},
      {.name = {"tekken"}, .pattern = {kTekkenSplit}, .ignore_merges = true, .add_bos = true},
      {.name = {"deepseek-v3", "hunyuan-dense"},
       .pattern = {kUpToThreeDigits, kDeepseekV3Cjk, kDeepseekV3Split}},
  };
  return *kKinds;
}

absl::StatusOr<const PreTokenizerKind*> FindKind(const std::string& name) {
  std::vector<std::string> known;
  for (const PreTokenizerKind& kind : KnownKinds()) {
    for (const std::string_view candidate : kind.name) {
      if (candidate == name) return &kind;
      known.emplace_back(candidate);
    }
  }
  return absl::UnimplementedError(
      StrCat("tokenizer.ggml.pre \"", name, "\" is unknown; known: ", absl::StrJoin(known, ", ")));
}

absl::Status Malformed(std::string_view key, std::string_view what) {
  return absl::InvalidArgumentError(StrCat("tokenizer.ggml.", key, " ", what));
}

// Null if the key is absent.
absl::StatusOr<const Json*> FindList(const Json& metadata, std::string_view key) {
  const auto found = metadata.find(StrCat("tokenizer.ggml.", key));
  if (found == metadata.end()) return nullptr;
  if (!found->is_array()) return Malformed(key, "must be an array");
  return &*found;
}

absl::Status ReadTokens(const Json& metadata, BpeTokenizerParts* parts) {
  absl::StatusOr<const Json*> tokens = FindList(metadata, "tokens");
  if (!tokens.ok()) return tokens.status();
  if (*tokens == nullptr || (*tokens)->empty()) return Malformed("tokens", "is missing or empty");
  absl::StatusOr<const Json*> types = FindList(metadata, "token_type");
  if (!types.ok()) return types.status();
  if (*types != nullptr && (*types)->size() != (*tokens)->size()) {
    return Malformed("token_type", StrCat("has ", (*types)->size(), " entries for ",
                                          (*tokens)->size(), " tokens"));
  }
  parts->vocabulary.reserve((*tokens)->size());
  for (size_t i = 0; i < (*tokens)->size(); ++i) {
    const Json& token = (**tokens)[i];
    if (!token.is_string()) return Malformed("tokens", StrCat("entry ", i, " is not a string"));
    const auto& text = token.get_ref<const std::string&>();
    parts->vocabulary.push_back({text, static_cast<int64_t>(i)});
    if (*types == nullptr) continue;
    const Json& type = (**types)[i];
    if (!type.is_number_integer())
      return Malformed("token_type", StrCat("entry ", i, " is not an integer"));
    const bool special = type == kControlToken;
    if (special || type == kUserDefinedToken) {
      parts->added.push_back({.text = text, .id = static_cast<Token>(i), .special = special});
    }
  }
  return absl::OkStatus();
}

absl::Status ReadMerges(const Json& metadata, BpeTokenizerParts* parts) {
  absl::StatusOr<const Json*> merges = FindList(metadata, "merges");
  if (!merges.ok()) return merges.status();
  if (*merges == nullptr) return Malformed("merges", "is missing; byte-level BPE needs it");
  parts->merges.reserve((*merges)->size());
  for (const Json& merge : **merges) {
    const std::string_view text =
        merge.is_string() ? std::string_view(merge.get_ref<const std::string&>()) : "";
    const size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
      return Malformed("merges", StrCat("entry ", parts->merges.size(), " is not \"left right\""));
    }
    parts->merges.push_back({text.substr(0, space), text.substr(space + 1)});
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BpeTokenizerParts> DescribeGgufTokenizer(const Json& metadata) {
  ConfigReader reader(metadata);
  const std::string model = reader.String("tokenizer.ggml.model", "");
  const std::string pre = reader.String("tokenizer.ggml.pre", "default");
  if (!reader.ok()) return reader.status();
  if (model != "gpt2") {
    return absl::UnimplementedError(
        StrCat("tokenizer.ggml.model \"", model, "\" is unknown; known: gpt2"));
  }
  absl::StatusOr<const PreTokenizerKind*> kind = FindKind(pre);
  if (!kind.ok()) return kind.status();
  absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::FromPatterns((*kind)->pattern);
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();

  BpeTokenizerParts parts;
  parts.pre_tokenizer = *std::move(pre_tokenizer);
  parts.options.ignore_merges = (*kind)->ignore_merges;
  parts.normalize_nfc = (*kind)->nfc;
  if (absl::Status status = ReadTokens(metadata, &parts); !status.ok()) return status;
  if (absl::Status status = ReadMerges(metadata, &parts); !status.ok()) return status;

  const auto read_id = [&](std::string_view name) -> std::optional<Token> {
    const std::string key = StrCat("tokenizer.ggml.", name, "_token_id");
    if (reader.Find(key) == nullptr) return std::nullopt;
    return reader.Int(key, 0, static_cast<int>(parts.vocabulary.size()) - 1);
  };
  const std::optional<Token> bos = read_id("bos");
  const std::optional<Token> eos = read_id("eos");
  for (const std::optional<Token> stop : {eos, read_id("eot"), read_id("eom")}) {
    if (stop) parts.stop.push_back({.id = stop, .text = ""});
  }
  if (bos) parts.bos = TokenName{.id = bos, .text = ""};
  const bool add_bos =
      reader.Bool("tokenizer.ggml.add_bos_token", (*kind)->add_bos && bos.has_value());
  const bool add_eos = reader.Bool("tokenizer.ggml.add_eos_token", false);
  if (!reader.ok()) return reader.status();
  if (add_bos && !bos) return Malformed("add_bos_token", "is true, but there is no bos_token_id");
  if (add_eos && !eos) return Malformed("add_eos_token", "is true, but there is no eos_token_id");
  parts.post_processor =
      PostProcessor::Around(add_bos ? bos : std::nullopt, add_eos ? eos : std::nullopt);
  return parts;
}

}  // namespace fairlead

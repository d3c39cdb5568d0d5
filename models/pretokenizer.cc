// SPDX-License-Identifier: Apache-2.0
#include "models/pretokenizer.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "kernels/strings.h"
#include "models/config_reader.h"
#include "models/pretokenizer_steps.h"
#include "models/unicode.h"

namespace fairlead {

constexpr std::string_view kGpt2Split =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

namespace {

constexpr int kMaxSteps = 64;
constexpr int kMaxRewritingSteps = 6;
constexpr int kMaxLength = 1 << 20;  // characters of FixedLength's words

bool IsOneCharacter(const std::string& text) {
  size_t pos = 0;
  if (!text.empty()) DecodeUtf8(text, &pos);
  return !text.empty() && pos == text.size();
}

bool IsAnyPunctuation(char32_t c) {
  return IsPunctuation8(c) || (c < 0x80 && std::ispunct(static_cast<unsigned char>(c)) != 0);
}

using StepList = std::vector<std::unique_ptr<PreTokenizer::Step>>;

absl::Status AddSplit(std::string_view pattern, SplitBehavior behavior, StepList* out) {
  absl::StatusOr<Regex> regex = Regex::Compile(pattern);
  if (!regex.ok()) return regex.status();
  out->push_back(MakeRegexSplitStep(*std::move(regex), behavior, false));
  return absl::OkStatus();
}

absl::StatusOr<SplitBehavior> ParseBehavior(const std::string& name) {
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return absl::InvalidArgumentError(
      StrCat("pre_tokenizer: behavior \"", name,
             "\"; known: Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous"));
}

absl::Status AddSplitFromJson(const Json& json, StepList* out) {
  ConfigReader reader(json, "pre_tokenizer.");
  const std::string behavior_name = reader.String("behavior", "");
  const bool invert = reader.Bool("invert", false);
  if (!reader.ok()) return reader.status();
  absl::StatusOr<SplitBehavior> behavior = ParseBehavior(behavior_name);
  if (!behavior.ok()) return behavior.status();
  const Json* pattern = reader.Find("pattern");
  if (pattern == nullptr || !pattern->is_object() || pattern->size() != 1 ||
      !pattern->begin()->is_string()) {
    return absl::InvalidArgumentError(
        "pre_tokenizer: Split needs \"pattern\": {\"Regex\": text} or {\"String\": text}");
  }
  const std::string& kind = pattern->begin().key();
  const auto& text = pattern->begin()->get_ref<const std::string&>();
  if (kind != "Regex" && kind != "String") {
    return absl::InvalidArgumentError(
        StrCat("pre_tokenizer: Split pattern of kind \"", kind, "\"; known: Regex, String"));
  }
  absl::StatusOr<Regex> regex =
      kind == "Regex" ? Regex::Compile(text) : Regex::CompileLiteral(text);
  if (!regex.ok()) return regex.status();
  out->push_back(MakeRegexSplitStep(*std::move(regex), *behavior, invert));
  return absl::OkStatus();
}

absl::Status AddMetaspace(ConfigReader& reader, StepList* out) {
  const std::string replacement = reader.String("replacement", "\u2581");
  const std::string scheme =
      reader.String("prepend_scheme", reader.Bool("add_prefix_space", true) ? "always" : "never");
  const bool split = reader.Bool("split", true);
  if (!reader.ok()) return reader.status();
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    return absl::InvalidArgumentError(
        StrCat("pre_tokenizer: prepend_scheme \"", scheme, "\"; known: always, first, never"));
  }
  if (!IsOneCharacter(replacement))
    return absl::InvalidArgumentError("pre_tokenizer: replacement must be one character");
  const auto prepend = scheme == "always"  ? MetaspacePrepend::kAlways
                       : scheme == "first" ? MetaspacePrepend::kFirst
                                           : MetaspacePrepend::kNever;
  out->push_back(MakeMetaspaceStep(replacement, prepend));
  if (!split) return absl::OkStatus();
  absl::StatusOr<Regex> regex = Regex::CompileLiteral(replacement);
  if (!regex.ok()) return regex.status();
  out->push_back(MakeRegexSplitStep(*std::move(regex), SplitBehavior::kMergedWithNext, false));
  return absl::OkStatus();
}

absl::Status AddPunctuation(ConfigReader& reader, StepList* out) {
  const std::string name = reader.String("behavior", "Isolated");
  if (!reader.ok()) return reader.status();
  absl::StatusOr<SplitBehavior> behavior = ParseBehavior(name);
  if (!behavior.ok()) return behavior.status();
  out->push_back(MakeClassSplitStep(IsAnyPunctuation, *behavior));
  return absl::OkStatus();
}

absl::Status AddDelimiter(ConfigReader& reader, StepList* out) {
  const std::string delimiter = reader.String("delimiter", "");
  if (!reader.ok()) return reader.status();
  if (!IsOneCharacter(delimiter))
    return absl::InvalidArgumentError("pre_tokenizer: delimiter must be one character");
  absl::StatusOr<Regex> regex = Regex::CompileLiteral(delimiter);
  if (!regex.ok()) return regex.status();
  out->push_back(MakeRegexSplitStep(*std::move(regex), SplitBehavior::kRemoved, false));
  return absl::OkStatus();
}

absl::Status AddFromJson(const Json& json, StepList* out, bool* byte_level) {
  if (!json.is_object()) return absl::InvalidArgumentError("pre_tokenizer: must be an object");
  if (out->size() >= kMaxSteps)
    return absl::InvalidArgumentError("pre_tokenizer: more than 64 steps");
  ConfigReader reader(json, "pre_tokenizer.");
  const std::string type = reader.String("type", "");
  if (!reader.ok()) return reader.status();
  if (type == "Sequence") {
    const Json* list = reader.Find("pretokenizers");
    if (list == nullptr || !list->is_array()) {
      return absl::InvalidArgumentError("pre_tokenizer: Sequence needs a list \"pretokenizers\"");
    }
    for (const Json& item : *list) {
      absl::Status status = AddFromJson(item, out, byte_level);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }
  if (type == "Split") return AddSplitFromJson(json, out);
  if (type == "Digits") {
    const bool individual = reader.Bool("individual_digits", false);
    if (!reader.ok()) return reader.status();
    return AddSplit("\\p{N}", individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous,
                    out);
  }
  if (type == "ByteLevel") {
    if (reader.Bool("add_prefix_space", true)) out->push_back(MakePrefixSpaceStep());
    absl::Status status = absl::OkStatus();
    if (reader.Bool("use_regex", true))
      status = AddSplit(kGpt2Split, SplitBehavior::kIsolated, out);
    out->push_back(MakeByteAlphabetStep());
    *byte_level = true;
    return reader.ok() ? status : reader.status();
  }
  if (type == "Metaspace") return AddMetaspace(reader, out);
  if (type == "Punctuation") return AddPunctuation(reader, out);
  if (type == "CharDelimiterSplit") return AddDelimiter(reader, out);
  if (type == "FixedLength") {
    out->push_back(MakeFixedLengthStep(reader.Int("length", 1, kMaxLength, 5)));
    return reader.status();
  }
  if (type == "BertPreTokenizer") {
    out->push_back(MakeClassSplitStep(IsWhitespace, SplitBehavior::kRemoved));
    out->push_back(MakeClassSplitStep(IsAnyPunctuation, SplitBehavior::kIsolated));
    return absl::OkStatus();
  }
  if (type == "WhitespaceSplit") {
    out->push_back(MakeClassSplitStep(IsWhitespace, SplitBehavior::kRemoved));
    return absl::OkStatus();
  }
  if (type == "Whitespace") {
    out->push_back(MakeClassSplitStep(IsWhitespace, SplitBehavior::kRemoved));
    out->push_back(MakeClassSplitStep(IsWordCharacter, SplitBehavior::kContiguous));
    return absl::OkStatus();
  }
  return absl::UnimplementedError(
      StrCat("pre_tokenizer type \"", type,
             "\" is unknown; known: Sequence, Split, Digits, ByteLevel, Metaspace, "
             "BertPreTokenizer, Whitespace, WhitespaceSplit, Punctuation, CharDelimiterSplit, "
             "FixedLength"));
}

}  // namespace

PreTokenizer::PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

absl::StatusOr<PreTokenizer> PreTokenizer::FromJson(const Json& json) {
  PreTokenizer out;
  if (json.is_null()) return out;
  absl::Status status = AddFromJson(json, &out.step_, &out.byte_level_);
  if (!status.ok()) return status;
  const auto rewriting = std::count_if(out.step_.begin(), out.step_.end(),
                                       [](const auto& step) { return step->rewrites(); });
  if (rewriting > kMaxRewritingSteps) {
    return absl::InvalidArgumentError(StrCat(
        "pre_tokenizer: ", rewriting, " steps that rewrite text; allowed: ", kMaxRewritingSteps));
  }
  return out;
}

absl::StatusOr<PreTokenizer> PreTokenizer::FromPatterns(
    const std::vector<std::string_view>& pattern) {
  PreTokenizer out;
  for (const std::string_view p : pattern) {
    absl::Status status = AddSplit(p, SplitBehavior::kIsolated, &out.step_);
    if (!status.ok()) return status;
  }
  out.step_.push_back(MakeByteAlphabetStep());
  out.byte_level_ = true;
  return out;
}

bool PreTokenizer::keeps_all() const {
  const auto alphabets = std::count_if(step_.begin(), step_.end(),
                                       [](const auto& step) { return step->is_alphabet(); });
  return alphabets == 1 && std::all_of(step_.begin(), step_.end(),
                                       [](const auto& step) { return step->keeps_all(); });
}

Words PreTokenizer::Split(std::string_view text, bool at_start) const {
  Words words;
  words.at_start = at_start;
  words.text = text;
  if (!text.empty()) words.span.push_back({0, text.size()});
  for (const auto& step : step_) step->Apply(&words);
  return words;
}

}  // namespace fairlead

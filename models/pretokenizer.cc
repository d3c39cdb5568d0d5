// SPDX-License-Identifier: Apache-2.0
#include "models/pretokenizer.h"

#include <algorithm>
#include <utility>

#include "kernels/strings.h"
#include "models/byte_level.h"
#include "models/config_reader.h"

namespace fairlead {

constexpr std::string_view kGpt2Split =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

namespace {

constexpr int kMaxSteps = 64;

// A stretch of a word: a match of the pattern or what lies between two.
struct Stretch {
  TextSpan span;
  bool is_match;
};

// Joins each match that does not follow a match to the stretch before it.
std::vector<Stretch> MergeWithPrevious(const std::vector<Stretch>& stretch) {
  std::vector<Stretch> out;
  bool after_match = false;
  for (const Stretch& s : stretch) {
    if (s.is_match && !after_match && !out.empty()) {
      out.back().span.end = s.span.end;
    } else {
      out.push_back({s.span, false});
    }
    after_match = s.is_match;
  }
  return out;
}

// The mirror image of MergeWithPrevious.
std::vector<Stretch> MergeWithNext(const std::vector<Stretch>& stretch) {
  std::vector<Stretch> out;
  bool before_match = false;
  for (auto s = stretch.rbegin(); s != stretch.rend(); ++s) {
    if (s->is_match && !before_match && !out.empty()) {
      out.back().span.begin = s->span.begin;
    } else {
      out.push_back({s->span, false});
    }
    before_match = s->is_match;
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<Stretch> MergeEqual(const std::vector<Stretch>& stretch) {
  std::vector<Stretch> out;
  bool previous = false;
  for (const Stretch& s : stretch) {
    if (s.is_match == previous && !out.empty()) {
      out.back().span.end = s.span.end;
    } else {
      out.push_back({s.span, false});
    }
    previous = s.is_match;
  }
  return out;
}

}  // namespace

class PreTokenizer::Step {
 public:
  virtual ~Step() = default;
  virtual void Apply(Words* words) const = 0;
  virtual bool keeps_all() const { return true; }
  virtual bool is_alphabet() const { return false; }
};

namespace {

class SplitStep : public PreTokenizer::Step {
 public:
  SplitStep(Regex regex, SplitBehavior behavior, bool invert)
      : regex_(std::move(regex)), behavior_(behavior), invert_(invert) {}

  void Apply(Words* words) const override {
    std::vector<TextSpan> out;
    out.reserve(words->span.size());
    Regex::Search search(regex_, words->text.size());
    std::vector<TextSpan> match;
    std::vector<Stretch> stretch;
    for (size_t i = 0; i < words->span.size(); ++i) {
      match.clear();
      stretch.clear();
      search.FindAll(words->word(i), &match);
      Cover(words->span[i], match, &stretch);
      Emit(stretch, &out);
    }
    words->span = std::move(out);
  }
  bool keeps_all() const override { return behavior_ != SplitBehavior::kRemoved; }

 private:
  // Matches (relative to the word) and the gaps between them, as spans of the text.
  void Cover(TextSpan word, const std::vector<TextSpan>& match, std::vector<Stretch>* out) const {
    size_t end = word.begin;
    for (const TextSpan& m : match) {
      const TextSpan span = {word.begin + m.begin, word.begin + m.end};
      if (span.begin != end) out->push_back({{end, span.begin}, invert_});
      out->push_back({span, !invert_});
      end = span.end;
    }
    if (end != word.end) out->push_back({{end, word.end}, invert_});
  }

  void Emit(const std::vector<Stretch>& stretch, std::vector<TextSpan>* out) const {
    switch (behavior_) {
      case SplitBehavior::kMergedWithPrevious:
        return EmitKept(MergeWithPrevious(stretch), out);
      case SplitBehavior::kMergedWithNext:
        return EmitKept(MergeWithNext(stretch), out);
      case SplitBehavior::kContiguous:
        return EmitKept(MergeEqual(stretch), out);
      case SplitBehavior::kIsolated:
      case SplitBehavior::kRemoved:
        return EmitKept(stretch, out);
    }
  }

  void EmitKept(const std::vector<Stretch>& stretch, std::vector<TextSpan>* out) const {
    for (const Stretch& s : stretch) {
      if (s.span.size() == 0 || (behavior_ == SplitBehavior::kRemoved && s.is_match)) continue;
      out->push_back(s.span);
    }
  }

  const Regex regex_;
  const SplitBehavior behavior_;
  const bool invert_;
};

class PrefixSpaceStep : public PreTokenizer::Step {
 public:
  void Apply(Words* words) const override {
    Words out;
    out.text.reserve(words->text.size() + words->span.size());
    out.span.reserve(words->span.size());
    for (size_t i = 0; i < words->span.size(); ++i) {
      const size_t begin = out.text.size();
      const std::string_view word = words->word(i);
      if (word.front() != ' ') out.text.push_back(' ');
      out.text.append(word);
      out.span.push_back({begin, out.text.size()});
    }
    *words = std::move(out);
  }
};

class ByteAlphabetStep : public PreTokenizer::Step {
 public:
  bool is_alphabet() const override { return true; }
  void Apply(Words* words) const override {
    Words out;
    out.text.reserve(words->text.size() * 3 / 2);
    out.span.reserve(words->span.size());
    for (size_t i = 0; i < words->span.size(); ++i) {
      const size_t begin = out.text.size();
      AppendByteLevel(words->word(i), &out.text);
      out.span.push_back({begin, out.text.size()});
    }
    *words = std::move(out);
  }
};

using StepList = std::vector<std::unique_ptr<PreTokenizer::Step>>;

absl::Status AddSplit(std::string_view pattern, SplitBehavior behavior, StepList* out) {
  absl::StatusOr<Regex> regex = Regex::Compile(pattern);
  if (!regex.ok()) return regex.status();
  out->push_back(std::make_unique<SplitStep>(*std::move(regex), behavior, false));
  return absl::OkStatus();
}

absl::StatusOr<SplitBehavior> ParseBehavior(const std::string& name) {
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return absl::InvalidArgumentError(
      StrCat("pre_tokenizer: Split behavior \"", name,
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
  out->push_back(std::make_unique<SplitStep>(*std::move(regex), *behavior, invert));
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
    if (reader.Bool("add_prefix_space", true)) out->push_back(std::make_unique<PrefixSpaceStep>());
    absl::Status status = absl::OkStatus();
    if (reader.Bool("use_regex", true))
      status = AddSplit(kGpt2Split, SplitBehavior::kIsolated, out);
    out->push_back(std::make_unique<ByteAlphabetStep>());
    *byte_level = true;
    return reader.ok() ? status : reader.status();
  }
  return absl::UnimplementedError(StrCat(
      "pre_tokenizer type \"", type, "\" is unknown; known: Sequence, Split, Digits, ByteLevel"));
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
  return out;
}

absl::StatusOr<PreTokenizer> PreTokenizer::FromPatterns(
    const std::vector<std::string_view>& pattern) {
  PreTokenizer out;
  for (const std::string_view p : pattern) {
    absl::Status status = AddSplit(p, SplitBehavior::kIsolated, &out.step_);
    if (!status.ok()) return status;
  }
  out.step_.push_back(std::make_unique<ByteAlphabetStep>());
  out.byte_level_ = true;
  return out;
}

bool PreTokenizer::keeps_all() const {
  const auto alphabets = std::count_if(step_.begin(), step_.end(),
                                       [](const auto& step) { return step->is_alphabet(); });
  return alphabets == 1 && std::all_of(step_.begin(), step_.end(),
                                       [](const auto& step) { return step->keeps_all(); });
}

Words PreTokenizer::Split(std::string_view text) const {
  Words words;
  words.text = text;
  if (!text.empty()) words.span.push_back({0, text.size()});
  for (const auto& step : step_) step->Apply(&words);
  return words;
}

}  // namespace fairlead

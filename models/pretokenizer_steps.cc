// SPDX-License-Identifier: Apache-2.0
#include "models/pretokenizer_steps.h"

#include <algorithm>
#include <utility>

#include "models/byte_level.h"
#include "models/unicode.h"

namespace fairlead {
namespace {

using Step = PreTokenizer::Step;

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

class SplitStep : public Step {
 public:
  SplitStep(SplitBehavior behavior, bool invert) : behavior_(behavior), invert_(invert) {}
  bool keeps_all() const override { return behavior_ != SplitBehavior::kRemoved; }

 protected:
  // find(word, &matches) appends the matches of a word, relative to it.
  template <typename Find>
  void Split(Words* words, Find find) const {
    std::vector<TextSpan> out;
    out.reserve(words->span.size());
    std::vector<TextSpan> match;
    std::vector<Stretch> stretch;
    for (size_t i = 0; i < words->span.size(); ++i) {
      match.clear();
      stretch.clear();
      find(words->word(i), &match);
      Cover(words->span[i], match, &stretch);
      Emit(stretch, &out);
    }
    words->at_start &= !out.empty() && out[0].begin == words->span[0].begin;
    words->span = std::move(out);
  }

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

  const SplitBehavior behavior_;
  const bool invert_;
};

class RegexSplitStep final : public SplitStep {
 public:
  RegexSplitStep(Regex regex, SplitBehavior behavior, bool invert)
      : SplitStep(behavior, invert), regex_(std::move(regex)) {}
  void Apply(Words* words) const override {
    Regex::Search search(regex_, words->text.size());
    Split(words, [&](std::string_view word, std::vector<TextSpan>* match) {
      search.FindAll(word, match);
    });
  }

 private:
  const Regex regex_;
};

class ClassSplitStep final : public SplitStep {
 public:
  ClassSplitStep(bool (*is_in)(char32_t), SplitBehavior behavior)
      : SplitStep(behavior, false), is_in_(is_in) {}
  void Apply(Words* words) const override {
    Split(words, [this](std::string_view word, std::vector<TextSpan>* match) {
      for (size_t pos = 0; pos < word.size();) {
        const size_t begin = pos;
        if (is_in_(DecodeUtf8(word, &pos))) match->push_back({begin, pos});
      }
    });
  }

 private:
  bool (*const is_in_)(char32_t);
};

// Writes each word anew.
class RewriteStep : public Step {
 public:
  bool rewrites() const final { return true; }
  void Apply(Words* words) const final {
    Words out;
    out.at_start = words->at_start;
    out.text.reserve(words->text.size() * 3 / 2);
    out.span.reserve(words->span.size());
    for (size_t i = 0; i < words->span.size(); ++i) {
      const size_t begin = out.text.size();
      Append(words->word(i), words->at_start && i == 0, &out.text);
      if (out.text.size() > begin) out.span.push_back({begin, out.text.size()});
    }
    *words = std::move(out);
  }

 protected:
  // at_start: the word begins where the input does.
  virtual void Append(std::string_view word, bool at_start, std::string* out) const = 0;
};

class PrefixSpaceStep final : public RewriteStep {
 protected:
  void Append(std::string_view word, bool, std::string* out) const override {
    if (word.front() != ' ') out->push_back(' ');
    out->append(word);
  }
};

class ByteAlphabetStep final : public RewriteStep {
 public:
  bool is_alphabet() const override { return true; }

 protected:
  void Append(std::string_view word, bool, std::string* out) const override {
    AppendByteLevel(word, out);
  }
};

class MetaspaceStep final : public RewriteStep {
 public:
  MetaspaceStep(std::string replacement, MetaspacePrepend prepend)
      : replacement_(std::move(replacement)), prepend_(prepend) {}

 protected:
  void Append(std::string_view word, bool at_start, std::string* out) const override {
    const bool prepends =
        prepend_ == MetaspacePrepend::kAlways || (prepend_ == MetaspacePrepend::kFirst && at_start);
    if (prepends && word.front() != ' ' && !word.starts_with(replacement_))
      out->append(replacement_);
    for (const char c : word) {
      if (c == ' ') {
        out->append(replacement_);
      } else {
        out->push_back(c);
      }
    }
  }

 private:
  const std::string replacement_;
  const MetaspacePrepend prepend_;
};

class FixedLengthStep final : public Step {
 public:
  explicit FixedLengthStep(int length) : length_(length) {}
  void Apply(Words* words) const override {
    std::vector<TextSpan> out;
    for (const TextSpan& word : words->span) {
      for (size_t pos = word.begin; pos < word.end;) {
        const size_t begin = pos;
        for (int i = 0; i < length_ && pos < word.end; ++i) DecodeUtf8(words->text, &pos);
        out.push_back({begin, pos});
      }
    }
    words->span = std::move(out);
  }

 private:
  const int length_;
};

}  // namespace

std::unique_ptr<Step> MakeRegexSplitStep(Regex regex, SplitBehavior behavior, bool invert) {
  return std::make_unique<RegexSplitStep>(std::move(regex), behavior, invert);
}
std::unique_ptr<Step> MakeClassSplitStep(bool (*is_in)(char32_t), SplitBehavior behavior) {
  return std::make_unique<ClassSplitStep>(is_in, behavior);
}
std::unique_ptr<Step> MakePrefixSpaceStep() { return std::make_unique<PrefixSpaceStep>(); }
std::unique_ptr<Step> MakeByteAlphabetStep() { return std::make_unique<ByteAlphabetStep>(); }
std::unique_ptr<Step> MakeMetaspaceStep(std::string replacement, MetaspacePrepend prepend) {
  return std::make_unique<MetaspaceStep>(std::move(replacement), prepend);
}
std::unique_ptr<Step> MakeFixedLengthStep(int length) {
  return std::make_unique<FixedLengthStep>(length);
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "models/normalizer_steps.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "models/byte_level.h"

namespace fairlead {
namespace {

// Unicode 15, annex 15, table 8: U+FDFA grows most, from 3 bytes to 33 in NFKD. Case: U+023A.
constexpr double kFormGrowth = 11, kCaseGrowth = 1.5;

// Each character becomes what `map` appends for it.
template <typename Map>
std::string MapCharacters(std::string_view text, TrustedSpans* trusted, Map map) {
  NormalizedText out(*trusted);
  std::string mapped;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = DecodeUtf8(text, &pos);
    mapped.clear();
    map(c, &mapped);
    out.Append(begin, pos, mapped);
  }
  return std::move(out).Take(trusted);
}

// Normalization changes lengths, and may mix what stands on both sides of the edge of a trusted
// span. Each edge is moved into the trusted side until the text can be cut there; then the parts
// are normalized one by one, which gives the same text as all at once.
class FormNormalizer final : public Normalizer {
 public:
  explicit FormNormalizer(NormalizationForm form) : form_(form) {}
  bool is_nfc() const override { return form_ == NormalizationForm::kC; }
  double growth() const override { return kFormGrowth; }

  std::string Apply(std::string_view text, TrustedSpans* trusted) const override {
    std::string out;
    TrustedSpans moved;
    size_t done = 0;
    for (TextSpan span : trusted->spans()) {
      while (span.begin < span.end && span.begin > 0 && !CanCut(text, span.begin))
        DecodeUtf8(text, &span.begin);
      while (span.begin < span.end && !CanCut(text, span.end)) span.end = Previous(text, span.end);
      if (span.begin >= span.end) continue;
      out.append(Normalize(text.substr(done, span.begin - done), form_));
      const size_t begin = out.size();
      out.append(Normalize(text.substr(span.begin, span.size()), form_));
      moved.Add(begin, out.size());
      done = span.end;
    }
    out.append(Normalize(text.substr(done), form_));
    *trusted = std::move(moved);
    return out;
  }

 private:
  static bool CanCut(std::string_view text, size_t pos) {
    return pos >= text.size() || StartsSegment(DecodeUtf8(text, &pos));
  }
  static size_t Previous(std::string_view text, size_t pos) {
    do {
      --pos;
    } while ((static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80);
    return pos;
  }

  const NormalizationForm form_;
};

class LowercaseNormalizer final : public Normalizer {
 public:
  double growth() const override { return kCaseGrowth; }
  std::string Apply(std::string_view text, TrustedSpans* trusted) const override {
    return MapCharacters(text, trusted, AppendLowercase);
  }
};

class StripAccentsNormalizer final : public Normalizer {
 public:
  std::string Apply(std::string_view text, TrustedSpans* trusted) const override {
    return MapCharacters(text, trusted, [](char32_t c, std::string* out) {
      if (!IsMark9(c)) AppendUtf8(c, out);
    });
  }
};

class StripNormalizer final : public Normalizer {
 public:
  StripNormalizer(bool left, bool right) : left_(left), right_(right) {}
  std::string Apply(std::string_view text, TrustedSpans* trusted) const override {
    const size_t begin = left_ ? SkipWhitespace(text, 0) : 0;
    const size_t end = right_ ? SkipWhitespaceBack(text, text.size(), begin) : text.size();
    *trusted = trusted->Slice(begin, end);
    return std::string(text.substr(begin, end - begin));
  }

 private:
  const bool left_, right_;
};

class ReplaceNormalizer final : public Normalizer {
 public:
  ReplaceNormalizer(Regex regex, size_t pattern_bytes, std::string content)
      : regex_(std::move(regex)), pattern_bytes_(pattern_bytes), content_(std::move(content)) {}
  double growth() const override {
    const auto size = static_cast<double>(content_.size());
    // Where a match may have no bytes, there is one at each.
    return pattern_bytes_ == 0 ? 1 + size
                               : std::max(1.0, size / static_cast<double>(pattern_bytes_));
  }
  std::string Apply(std::string_view text, TrustedSpans* trusted) const override {
    std::vector<TextSpan> match;
    Regex::Search(regex_, text.size()).FindAll(text, &match);
    NormalizedText out(*trusted);
    size_t done = 0;
    for (const TextSpan& m : match) {
      out.Copy(text, done, m.begin);
      out.Append(m.begin, m.end, content_);
      done = m.end;
    }
    out.Copy(text, done, text.size());
    return std::move(out).Take(trusted);
  }

 private:
  const Regex regex_;
  const size_t pattern_bytes_;
  const std::string content_;
};

class PrependNormalizer final : public Normalizer {
 public:
  explicit PrependNormalizer(std::string prefix) : prefix_(std::move(prefix)) {}
  std::string Apply(std::string_view text, TrustedSpans* trusted) const override {
    NormalizedText out(*trusted);
    if (text.empty()) return "";
    // As trusted as what it stands before: a token's normalized text begins with it.
    size_t first = 0;
    DecodeUtf8(text, &first);
    out.Append(0, first, prefix_);
    out.Copy(text, 0, text.size());
    return std::move(out).Take(trusted);
  }

 private:
  const std::string prefix_;
};

class NmtNormalizer final : public Normalizer {
 public:
  std::string Apply(std::string_view text, TrustedSpans* trusted) const override {
    return MapCharacters(text, trusted, [](char32_t c, std::string* out) {
      if (!IsDropped(c)) AppendUtf8(IsSpace(c) ? U' ' : c, out);
    });
  }

 private:
  static bool IsDropped(char32_t c) {
    return (c >= 0x1 && c <= 0x8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F ||
           c == 0x8F || c == 0x9F;
  }
  static bool IsSpace(char32_t c) {
    return c == 0x9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
           (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
           c == 0xFEFF || c == 0xFFFD;
  }
};

class ByteLevelNormalizer final : public Normalizer {
 public:
  double growth() const override { return 2; }
  std::string Apply(std::string_view text, TrustedSpans* trusted) const override {
    return MapCharacters(text, trusted, [](char32_t c, std::string* out) {
      std::string bytes;
      AppendUtf8(c, &bytes);
      AppendByteLevel(bytes, out);
    });
  }
};

class BertNormalizer final : public Normalizer {
 public:
  explicit BertNormalizer(const BertNormalizerOptions& options)
      : options_(options), decompose_(NormalizationForm::kD) {}
  double growth() const override { return 2 * kFormGrowth * kCaseGrowth; }

  std::string Apply(std::string_view text, TrustedSpans* trusted) const override {
    std::string out(text);
    if (options_.clean_text) out = MapCharacters(out, trusted, Clean);
    if (options_.handle_chinese_chars) out = MapCharacters(out, trusted, SetApart);
    if (options_.strip_accents) {
      out = decompose_.Apply(out, trusted);
      out = MapCharacters(out, trusted, [](char32_t c, std::string* mapped) {
        if (!IsNonspacingMark8(c)) AppendUtf8(c, mapped);
      });
    }
    if (options_.lowercase) out = MapCharacters(out, trusted, AppendLowercase);
    return out;
  }

 private:
  static void Clean(char32_t c, std::string* out) {
    const bool is_space = IsWhitespace(c);
    const bool is_control = c != '\t' && c != '\n' && c != '\r' && IsOther8(c);
    if (c == 0 || c == 0xFFFD || is_control) return;
    AppendUtf8(is_space ? U' ' : c, out);
  }
  static void SetApart(char32_t c, std::string* out) {
    if (!IsIdeograph(c)) return AppendUtf8(c, out);
    out->push_back(' ');
    AppendUtf8(c, out);
    out->push_back(' ');
  }
  // The blocks that BERT's own tokenizer counts.
  static bool IsIdeograph(char32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
           (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
  }

  const BertNormalizerOptions options_;
  const FormNormalizer decompose_;
};

}  // namespace

std::unique_ptr<Normalizer> MakeFormNormalizer(NormalizationForm form) {
  return std::make_unique<FormNormalizer>(form);
}
std::unique_ptr<Normalizer> MakeLowercaseNormalizer() {
  return std::make_unique<LowercaseNormalizer>();
}
std::unique_ptr<Normalizer> MakeStripAccentsNormalizer() {
  return std::make_unique<StripAccentsNormalizer>();
}
std::unique_ptr<Normalizer> MakeStripNormalizer(bool left, bool right) {
  return std::make_unique<StripNormalizer>(left, right);
}
std::unique_ptr<Normalizer> MakeReplaceNormalizer(Regex regex, size_t pattern_bytes,
                                                  std::string content) {
  return std::make_unique<ReplaceNormalizer>(std::move(regex), pattern_bytes, std::move(content));
}
std::unique_ptr<Normalizer> MakePrependNormalizer(std::string prefix) {
  return std::make_unique<PrependNormalizer>(std::move(prefix));
}
std::unique_ptr<Normalizer> MakeNmtNormalizer() { return std::make_unique<NmtNormalizer>(); }
std::unique_ptr<Normalizer> MakeByteLevelNormalizer() {
  return std::make_unique<ByteLevelNormalizer>();
}
std::unique_ptr<Normalizer> MakeBertNormalizer(const BertNormalizerOptions& options) {
  return std::make_unique<BertNormalizer>(options);
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "models/added_tokens.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "kernels/strings.h"
#include "models/detokenizer.h"
#include "models/unicode.h"

namespace fairlead {
namespace {

constexpr int32_t kNoNode = 0;  // the root is nobody's child

bool StartsWithWord(std::string_view text, size_t pos) {
  return pos < text.size() && IsWordCharacter(DecodeUtf8(text, &pos));
}

bool EndsWithWord(std::string_view text, size_t pos) {
  if (pos == 0) return false;
  do {
    --pos;
  } while (pos > 0 && (static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80);
  return IsWordCharacter(DecodeUtf8(text, &pos));
}

// The white space run seen last, so that many tokens in one run do not each walk to its end.
class RunCache {
 public:
  size_t SkipWhitespaceFrom(std::string_view text, size_t pos) {
    if (pos < begin_ || pos > end_) {
      begin_ = pos;
      end_ = SkipWhitespace(text, pos);
    }
    return end_;
  }

 private:
  size_t begin_ = 1;
  size_t end_ = 0;
};

}  // namespace

void TrustedSpans::Add(size_t begin, size_t end) {
  if (begin == end) return;
  if (!span_.empty() && span_.back().end == begin) {
    span_.back().end = end;
  } else {
    span_.push_back({begin, end});
  }
}

bool TrustedSpans::Contains(size_t begin, size_t end) const {
  const auto next = std::upper_bound(span_.begin(), span_.end(), begin,
                                     [](size_t at, TextSpan span) { return at < span.begin; });
  return next != span_.begin() && end <= std::prev(next)->end;
}

TrustedSpans TrustedSpans::Slice(size_t begin, size_t end) const {
  TrustedSpans out;
  auto span = std::upper_bound(span_.begin(), span_.end(), begin,
                               [](size_t at, TextSpan s) { return at < s.end; });
  for (; span != span_.end() && span->begin < end; ++span) {
    out.Add(std::max(span->begin, begin) - begin, std::min(span->end, end) - begin);
  }
  return out;
}

JoinedText JoinPieces(absl::Span<const TextPiece> pieces, bool parse_special) {
  JoinedText joined;
  for (const TextPiece& piece : pieces) {
    const size_t begin = joined.text.size();
    joined.text.append(IsValidUtf8(piece.text) ? piece.text : ReplaceInvalidUtf8(piece.text));
    if (piece.trusted && parse_special) joined.trusted.Add(begin, joined.text.size());
  }
  return joined;
}

int32_t AddedTokenMatcher::Child(int32_t node, unsigned char byte) const {
  if (node == 0) return first_[byte];
  const auto found = edge_.find(static_cast<uint64_t>(node) << 8 | byte);
  return found == edge_.end() ? kNoNode : found->second;
}

bool AddedTokenMatcher::Has(std::string_view text) const {
  int32_t node = 0;
  for (const char c : text) {
    node = Child(node, static_cast<unsigned char>(c));
    if (node == kNoNode) return false;
  }
  return token_at_[node] >= 0;
}

absl::Status AddedTokenMatcher::Add(const AddedToken& token, std::string_view text) {
  const auto refuse = [&](std::string_view why) {
    return absl::InvalidArgumentError(StrCat("added token ", token.id, " \"",
                                             absl::CHexEscape(AbslView(text.substr(0, 80))), "\" ",
                                             why));
  };
  if (text.empty()) return refuse("has no text");
  if (text.size() > kMaxTextBytes)
    return refuse(StrCat("is longer than ", kMaxTextBytes, " bytes"));
  int32_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    int32_t child = Child(node, byte);
    if (child == kNoNode) {
      child = static_cast<int32_t>(token_at_.size());
      token_at_.push_back(-1);
      (node == 0 ? first_[byte] : edge_[static_cast<uint64_t>(node) << 8 | byte]) = child;
    }
    node = child;
  }
  if (token_at_[node] >= 0) {
    return refuse(StrCat("is matched by the same text as token ", token_[token_at_[node]].id));
  }
  token_at_[node] = static_cast<int32_t>(token_.size());
  token_.push_back(token);
  return absl::OkStatus();
}

AddedTokenMatcher::Match AddedTokenMatcher::LongestAt(std::string_view text, size_t pos,
                                                      const TrustedSpans& trusted) const {
  Match longest;
  int32_t node = 0;
  for (size_t end = pos; end < text.size();) {
    node = Child(node, static_cast<unsigned char>(text[end]));
    if (node == kNoNode) break;
    ++end;
    if (token_at_[node] < 0) continue;
    const AddedToken& token = token_[token_at_[node]];
    if (!token.special || trusted.Contains(pos, end)) longest = {&token, end};
  }
  return longest;
}

void AddedTokenMatcher::Split(std::string_view text, const TrustedSpans& trusted,
                              std::vector<Segment>* out) const {
  if (text.empty()) return;
  size_t done = 0;  // end of the last segment
  RunCache run;
  for (size_t pos = 0; pos < text.size();) {
    const Match match = LongestAt(text, pos, trusted);
    if (match.token == nullptr) {
      ++pos;
      continue;
    }
    size_t begin = pos;
    size_t end = match.end;
    pos = match.end;  // matched text is never looked at again, kept or not
    const AddedToken& token = *match.token;
    if (token.single_word && (EndsWithWord(text, begin) || StartsWithWord(text, end))) continue;
    // White space that the token before has taken is not taken again.
    if (token.lstrip) begin = SkipWhitespaceBack(text, begin, done);
    if (token.rstrip) end = run.SkipWhitespaceFrom(text, end);
    if (done < begin) out->push_back({{done, begin}, std::nullopt});
    out->push_back({{begin, end}, token.id});
    done = end;
  }
  if (done < text.size()) out->push_back({{done, text.size()}, std::nullopt});
}

}  // namespace fairlead

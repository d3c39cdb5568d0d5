// SPDX-License-Identifier: Apache-2.0
#include "models/sentencepiece_normalizer.h"

#include "models/unicode.h"

namespace fairlead {

SentencePieceNormalizer::Step SentencePieceNormalizer::Next(std::string_view text) const {
  if (const size_t length = user_defined.LongestPrefix(text, 0); length > 0)
    return {text.substr(0, length), length};
  if (const auto match = charsmap.Longest(text)) return {match->replacement, match->length};
  size_t length = 0;
  // A rule of a hostile file may end inside a character; what is left is taken byte by byte.
  if ((static_cast<unsigned char>(text.front()) & 0xC0) == 0x80) return {"\uFFFD", 1};
  DecodeUtf8(text, &length);
  return {text.substr(0, length), length};
}

std::string SentencePieceNormalizer::Normalize(std::string_view text, bool add_dummy) const {
  const std::string_view space = escape_whitespaces ? kSpaceSymbol : " ";
  std::string out;
  if (remove_extra_whitespaces) {
    while (!text.empty()) {
      const Step step = Next(text);
      if (step.text != " ") break;
      text.remove_prefix(step.length);
    }
  }
  if (text.empty()) return out;
  out.reserve(text.size() * 3 / 2);
  add_dummy = add_dummy && add_dummy_prefix;
  if (add_dummy && !treat_whitespace_as_suffix) out.append(space);
  bool after_space = remove_extra_whitespaces;
  while (!text.empty()) {
    Step step = Next(text);
    text.remove_prefix(step.length);
    while (after_space && step.text.starts_with(' ')) step.text.remove_prefix(1);
    for (const char c : step.text) {
      if (c == ' ') {
        out.append(space);
      } else {
        out.push_back(c);
      }
    }
    if (!step.text.empty()) after_space = step.text.ends_with(' ');
    if (!remove_extra_whitespaces) after_space = false;
  }
  if (remove_extra_whitespaces) {
    while (std::string_view(out).ends_with(space)) out.resize(out.size() - space.size());
  }
  if (add_dummy && treat_whitespace_as_suffix) out.append(space);
  return out;
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// What SentencePiece does to a text before it cuts it into pieces (Kudo and Richardson 2018,
// "SentencePiece"): replacement rules, white space, and U+2581 in place of spaces. Equal to
// sentencepiece 0.2.3. Immutable: any thread. O(n) time and memory.
#pragma once

#include <string>
#include <string_view>

#include "models/byte_trie.h"
#include "models/charsmap.h"

namespace fairlead {

// U+2581, which stands for a space in the vocabulary.
inline constexpr std::string_view kSpaceSymbol = "\u2581";

struct SentencePieceNormalizer {
  Charsmap charsmap;
  ByteTrie user_defined;  // pieces that no rule changes
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool treat_whitespace_as_suffix = false;  // the dummy is a suffix

  // Of valid UTF-8; gives valid UTF-8. `add_dummy`: whether this text gets the dummy, if the model
  // has one.
  std::string Normalize(std::string_view text, bool add_dummy) const;

 private:
  struct Step {
    std::string_view text;  // what the next bytes become
    size_t length;          // how many these are
  };
  Step Next(std::string_view text) const;
};

}  // namespace fairlead

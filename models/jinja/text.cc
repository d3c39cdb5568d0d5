// SPDX-License-Identifier: Apache-2.0
#include "models/jinja/text.h"

namespace fairlead::jinja {

void Text::Append(std::string_view piece, bool trusted) {
  if (piece.empty()) return;
  if (bytes_.empty()) {
    first_trusted_ = trusted;
  } else if (trusted != (first_trusted_ == (flips_.size() % 2 == 0))) {
    flips_.push_back(bytes_.size());
  }
  bytes_.append(piece);
}

void Text::Append(const Text& other, size_t begin, size_t end) {
  other.ForEachRun(begin, end,
                   [this](std::string_view piece, bool trusted) { Append(piece, trusted); });
}

void TextBuilder::Append(std::string_view piece, bool trusted) {
  if (!Admit(piece.size())) return;
  const size_t runs = text_.run_bytes();
  text_.Append(piece, trusted);
  charge_.Grow(text_.run_bytes() - runs);
}

void TextBuilder::Append(const Text& text, size_t begin, size_t end) {
  if (begin >= end || !Admit(end - begin)) return;
  const size_t runs = text_.run_bytes();
  text_.Append(text, begin, end);
  charge_.Grow(text_.run_bytes() - runs);
}

}  // namespace fairlead::jinja

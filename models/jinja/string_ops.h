// SPDX-License-Identifier: Apache-2.0
// Operations on text that filters and methods share. All keep the trust of the bytes they copy;
// positions are bytes unless said otherwise.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "models/jinja/text.h"
#include "models/jinja/value.h"

namespace fairlead::jinja {

struct ByteRange {
  size_t begin = 0;
  size_t end = 0;
};

// Part of a string as a string of the same kind (markup stays markup).
Value Substring(const Value& string, ByteRange range, Budget& budget);

// Where `wanted` begins in `text`, from byte `from` on (the last place for FindLast), or npos. In
// linear time whatever the texts: those of std::string may take the product of both lengths.
size_t FindFirst(std::string_view text, std::string_view wanted, size_t from = 0);
size_t FindLast(std::string_view text, std::string_view wanted);

// What is left without leading or trailing characters of `chars` (spaces if nothing is given).
ByteRange StripRange(std::string_view text, std::optional<std::string_view> chars, bool left,
                     bool right);

void AppendUpperCase(const Text& text, ByteRange range, TextBuilder& out);
// `context`: the characters around, which decide the form of a capital sigma.
void AppendLowerCase(const Text& text, ByteRange range, ByteRange context, TextBuilder& out);
void AppendFoldedCase(const Text& text, TextBuilder& out);
void AppendSwappedCase(const Text& text, TextBuilder& out);
// str.title(), str.capitalize() and Jinja's `title` filter.
void AppendTitleCase(const Text& text, TextBuilder& out);
void AppendCapitalized(const Text& text, TextBuilder& out);
void AppendJinjaTitle(const Text& text, TextBuilder& out);

// Lines as str.splitlines() finds them: `content` ends before the line break, `whole` after it.
struct Line {
  ByteRange content;
  ByteRange whole;
};
std::vector<Line> SplitLines(std::string_view text, Budget& budget);

// str.split() and rsplit(): by spaces when `separator` is empty; at most `limit` splits if >= 0.
std::vector<ByteRange> Split(std::string_view text, std::string_view separator, Int limit,
                             bool from_right, Budget& budget);

// str.replace(): at most `limit` times if >= 0.
void AppendReplaced(const Text& text, const Text& from, const Text& to, Int limit,
                    TextBuilder& out);

// The text `count` times, at a cost that depends on the bytes alone.
void AppendRepeated(const Text& text, Int count, TextBuilder& out);

// The text padded with `fill` to `width` code points; kCenter puts the smaller half on the left.
enum class Align { kLeft, kRight, kCenter };
void AppendAligned(const Text& text, size_t length, Int width, Align align, const Text& fill,
                   TextBuilder& out);

}  // namespace fairlead::jinja

// SPDX-License-Identifier: Apache-2.0
#include "models/jinja/string_ops.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "models/jinja/unicode.h"

namespace fairlead::jinja {
namespace {

// Appends the range's characters, each mapped by map(char32_t, std::string& out), with their trust.
template <typename Map>
void AppendMapped(const Text& text, ByteRange range, TextBuilder& out, Map map) {
  text.ForEachRun(range.begin, range.end, [&](std::string_view run, bool trusted) {
    constexpr size_t kFlushBytes = 4096;
    // What a character costs, compared with a copy of it; a table look-up more outside ASCII.
    constexpr size_t kWork = 12;
    constexpr size_t kMoreWork = 24;
    const auto others = static_cast<size_t>(std::count_if(
        run.begin(), run.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; }));
    if (!out.budget().Work(kWork * run.size() + kMoreWork * others)) return;
    std::string mapped;
    for (size_t at = 0; at < run.size();) {
      const DecodedCodePoint c = DecodeAt(run, at);
      map(c.value, mapped);
      at += c.size;
      if (mapped.size() < kFlushBytes) continue;
      if (!out.budget().ok()) return;
      out.Append(mapped, trusted);
      mapped.clear();
    }
    out.Append(mapped, trusted);
  });
}

constexpr char32_t kCapitalSigma = 0x3a3;

// Whether a capital sigma at `at` ends a word: its small form differs there.
bool IsFinalSigma(std::string_view text, ByteRange range, size_t at, size_t size) {
  size_t before = at;
  bool cased_before = false;
  while (before > range.begin) {
    before = PreviousBoundary(text, before);
    const char32_t c = DecodeAt(text, before).value;
    if (IsCaseIgnorable(c)) continue;
    cased_before = IsCased(c);
    break;
  }
  if (!cased_before) return false;
  for (size_t after = at + size; after < range.end;) {
    const DecodedCodePoint c = DecodeAt(text, after);
    if (!IsCaseIgnorable(c.value)) return !IsCased(c.value);
    after += c.size;
  }
  return true;
}

// The character at byte `at` in lower case.
void AppendLowerAt(std::string_view text, ByteRange context, size_t at, char32_t c,
                   std::string& out) {
  if (c == kCapitalSigma) {
    AppendUtf8(IsFinalSigma(text, context, at, 2) ? 0x3c2 : 0x3c3, out);
  } else {
    AppendLower(c, out);
  }
}

bool IsLineBreak(char32_t c) {
  return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

// The characters of a set, sorted.
std::u32string SetOf(std::string_view characters) {
  std::u32string set;
  for (size_t at = 0; at < characters.size();) {
    const DecodedCodePoint c = DecodeAt(characters, at);
    set.push_back(c.value);
    at += c.size;
  }
  std::sort(set.begin(), set.end());
  return set;
}

std::vector<ByteRange> SplitAtSpaces(std::string_view text, Int limit, Budget& budget) {
  std::vector<ByteRange> parts;
  size_t at = 0;
  while (budget.Step()) {
    at += StripRange(text.substr(at), std::nullopt, true, false).begin;
    if (at >= text.size()) break;
    if (limit >= 0 && static_cast<Int>(parts.size()) >= limit) {
      parts.push_back({at, text.size()});
      break;
    }
    size_t end = at;
    while (end < text.size() && !IsSpace(DecodeAt(text, end).value)) {
      end += DecodeAt(text, end).size;
    }
    parts.push_back({at, end});
    at = end;
  }
  return parts;
}

std::vector<ByteRange> SplitAtSpacesFromRight(std::string_view text, Int limit, Budget& budget) {
  std::vector<ByteRange> parts;
  size_t end = text.size();
  while (budget.Step()) {
    end = StripRange(text.substr(0, end), std::nullopt, false, true).end;
    if (end == 0) break;
    if (limit >= 0 && static_cast<Int>(parts.size()) >= limit) {
      parts.push_back({0, end});
      break;
    }
    size_t begin = end;
    while (begin > 0) {
      const size_t previous = PreviousBoundary(text, begin);
      if (IsSpace(DecodeAt(text, previous).value)) break;
      begin = previous;
    }
    parts.push_back({begin, end});
    end = begin;
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

size_t FindFirst(std::string_view text, std::string_view wanted, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  constexpr size_t kShort = 32;  // bounds the product, and saves memmem's preparation
  if (wanted.size() <= kShort) return text.find(wanted, from);
  const void* found =
      ::memmem(text.data() + from, text.size() - from, wanted.data(), wanted.size());
  return found == nullptr ? std::string_view::npos
                          : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

size_t FindLast(std::string_view text, std::string_view wanted) {
  const std::string reversed_text(text.rbegin(), text.rend());
  const std::string reversed_wanted(wanted.rbegin(), wanted.rend());
  const size_t found = FindFirst(reversed_text, reversed_wanted);
  return found == std::string_view::npos ? found : text.size() - found - wanted.size();
}

Value Substring(const Value& string, ByteRange range, Budget& budget) {
  if (range.begin == 0 && range.end == string.text().size()) return string;
  TextBuilder builder(budget);
  builder.Append(string.text(), range.begin, range.end);
  return NewString(std::move(builder), string.string().markup);
}

ByteRange StripRange(std::string_view text, std::optional<std::string_view> chars, bool left,
                     bool right) {
  const std::u32string set = chars ? SetOf(*chars) : std::u32string();
  const auto strips = [&](size_t at) {
    const char32_t c = DecodeAt(text, at).value;
    return chars ? std::binary_search(set.begin(), set.end(), c) : IsSpace(c);
  };
  ByteRange range{0, text.size()};
  while (left && range.begin < range.end && strips(range.begin)) {
    range.begin += DecodeAt(text, range.begin).size;
  }
  while (right && range.begin < range.end) {
    const size_t last = PreviousBoundary(text, range.end);
    if (!strips(last)) break;
    range.end = last;
  }
  return range;
}

void AppendUpperCase(const Text& text, ByteRange range, TextBuilder& out) {
  AppendMapped(text, range, out, AppendUpper);
}

void AppendLowerCase(const Text& text, ByteRange range, ByteRange context, TextBuilder& out) {
  size_t at = range.begin;
  AppendMapped(text, range, out, [&](char32_t c, std::string& mapped) {
    AppendLowerAt(text.bytes(), context, at, c, mapped);
    at += DecodeAt(text.bytes(), at).size;
  });
}

void AppendFoldedCase(const Text& text, TextBuilder& out) {
  AppendMapped(text, {0, text.size()}, out, AppendFolded);
}

void AppendSwappedCase(const Text& text, TextBuilder& out) {
  const ByteRange whole{0, text.size()};
  size_t at = 0;
  AppendMapped(text, whole, out, [&](char32_t c, std::string& mapped) {
    if (IsUpper(c)) {
      AppendLowerAt(text.bytes(), whole, at, c, mapped);
    } else if (IsLower(c)) {
      AppendUpper(c, mapped);
    } else {
      AppendUtf8(c, mapped);
    }
    at += DecodeAt(text.bytes(), at).size;
  });
}

void AppendTitleCase(const Text& text, TextBuilder& out) {
  const ByteRange whole{0, text.size()};
  bool in_word = false;
  size_t at = 0;
  AppendMapped(text, whole, out, [&](char32_t c, std::string& mapped) {
    if (in_word) {
      AppendLowerAt(text.bytes(), whole, at, c, mapped);
    } else {
      AppendTitle(c, mapped);
    }
    in_word = IsCased(c);
    at += DecodeAt(text.bytes(), at).size;
  });
}

void AppendCapitalized(const Text& text, TextBuilder& out) {
  if (text.empty()) return;
  const size_t first = DecodeAt(text.bytes(), 0).size;
  AppendMapped(text, {0, first}, out, AppendTitle);
  AppendLowerCase(text, {first, text.size()}, {0, text.size()}, out);
}

// Words end at spaces and at - ( { [ <.
void AppendJinjaTitle(const Text& text, TextBuilder& out) {
  const std::string& bytes = text.bytes();
  const auto separates = [](char32_t c) {
    return IsSpace(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  size_t at = 0;
  while (at < bytes.size() && out.budget().ok()) {
    const DecodedCodePoint first = DecodeAt(bytes, at);
    if (separates(first.value)) {
      out.Append(text, at, at + first.size);
      at += first.size;
      continue;
    }
    size_t end = at;
    while (end < bytes.size() && !separates(DecodeAt(bytes, end).value)) {
      end += DecodeAt(bytes, end).size;
    }
    AppendUpperCase(text, {at, at + first.size}, out);
    AppendLowerCase(text, {at + first.size, end}, {at + first.size, end}, out);
    at = end;
  }
}

std::vector<Line> SplitLines(std::string_view text, Budget& budget) {
  std::vector<Line> lines;
  if (!budget.Work(text.size())) return lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const DecodedCodePoint c = DecodeAt(text, at);
    size_t next = at + c.size;
    if (IsLineBreak(c.value)) {
      if (c.value == '\r' && next < text.size() && text[next] == '\n') ++next;
      lines.push_back({{begin, at}, {begin, next}});
      begin = next;
      if (!budget.Step()) return lines;
    }
    at = next;
  }
  if (begin < text.size()) lines.push_back({{begin, text.size()}, {begin, text.size()}});
  return lines;
}

std::vector<ByteRange> Split(std::string_view text, std::string_view separator, Int limit,
                             bool from_right, Budget& budget) {
  std::vector<ByteRange> parts;
  if (!budget.Work(text.size())) return parts;
  if (separator.empty()) {
    return from_right ? SplitAtSpacesFromRight(text, limit, budget)
                      : SplitAtSpaces(text, limit, budget);
  }
  const auto may_split = [&] {
    return budget.Step() && (limit < 0 || static_cast<Int>(parts.size()) < limit);
  };
  if (from_right) {
    // Splits the reversed text from the left, then turns the parts round.
    const std::string reversed_text(text.rbegin(), text.rend());
    const std::string reversed_separator(separator.rbegin(), separator.rend());
    parts = Split(reversed_text, reversed_separator, limit, false, budget);
    for (ByteRange& part : parts) part = {text.size() - part.end, text.size() - part.begin};
    std::reverse(parts.begin(), parts.end());
    return parts;
  }
  size_t begin = 0;
  while (may_split()) {
    const size_t found = FindFirst(text, separator, begin);
    if (found == std::string_view::npos) break;
    parts.push_back({begin, found});
    begin = found + separator.size();
  }
  parts.push_back({begin, text.size()});
  return parts;
}

void AppendReplaced(const Text& text, const Text& from, const Text& to, Int limit,
                    TextBuilder& out) {
  const std::string& bytes = text.bytes();
  if (!out.budget().Work(bytes.size())) return;
  size_t at = 0;
  Int done = 0;
  const auto may_replace = [&] { return out.budget().Step() && (limit < 0 || done++ < limit); };
  if (from.empty()) {  // before every character and at the end
    while (may_replace()) {
      out.Append(to);
      if (at >= bytes.size()) return;
      const size_t next = at + DecodeAt(bytes, at).size;
      out.Append(text, at, next);
      at = next;
    }
    out.Append(text, at, bytes.size());
    return;
  }
  while (may_replace()) {
    const size_t found = FindFirst(bytes, from.bytes(), at);
    if (found == std::string::npos) break;
    out.Append(text, at, found);
    out.Append(to);
    at = found + from.size();
  }
  out.Append(text, at, bytes.size());
}

void AppendRepeated(const Text& text, Int count, TextBuilder& out) {
  constexpr size_t kChunkBytes = 4096;
  if (text.empty() || count <= 0) return;
  if (count > static_cast<Int>(INT64_MAX / text.size()) ||
      !out.budget().FitsOneString(text.size() * static_cast<size_t>(count))) {
    out.budget().FitsOneString(SIZE_MAX);
    return;
  }
  Text chunk = text;
  Int in_chunk = 1;
  while (chunk.size() < kChunkBytes && 2 * in_chunk <= count) {
    chunk.Append(Text(chunk), 0, chunk.size());
    in_chunk *= 2;
  }
  for (; count >= in_chunk && out.budget().ok(); count -= in_chunk) out.Append(chunk);
  for (; count > 0 && out.budget().ok(); --count) out.Append(text);
}

void AppendAligned(const Text& text, size_t length, Int width, Align align, const Text& fill,
                   TextBuilder& out) {
  const Int padding = width - static_cast<Int>(length);
  if (padding <= 0) return out.Append(text);
  Int left = align == Align::kLeft ? 0 : padding;
  if (align == Align::kCenter) left = padding / 2;
  AppendRepeated(fill, left, out);
  out.Append(text);
  AppendRepeated(fill, padding - left, out);
}

}  // namespace fairlead::jinja

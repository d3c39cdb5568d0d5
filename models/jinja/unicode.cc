// SPDX-License-Identifier: Apache-2.0
#include "models/jinja/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>

namespace fairlead::jinja {
namespace {

struct SpecialCase {
  char32_t character;
  char32_t upper[3];
  char32_t title[3];
};
constexpr SpecialCase kSpecialCases[] = {
#include "models/jinja/special_casing.inc"
};

const SpecialCase* FindSpecialCase(char32_t c) {
  const auto* found = std::lower_bound(
      std::begin(kSpecialCases), std::end(kSpecialCases), c,
      [](const SpecialCase& entry, char32_t value) { return entry.character < value; });
  return found != std::end(kSpecialCases) && found->character == c ? found : nullptr;
}

void AppendAll(const char32_t (&characters)[3], std::string& out) {
  for (const char32_t c : characters) {
    if (c != 0) AppendUtf8(c, out);
  }
}

utf8proc_category_t Category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

// Numeric_Type=Digit outside category Nd (Unicode 14).
constexpr struct {
  char32_t first, last;
} kOtherDigits[] = {{0xb2, 0xb3},       {0xb9, 0xb9},       {0x1369, 0x1371},   {0x19da, 0x19da},
                    {0x2070, 0x2070},   {0x2074, 0x2079},   {0x2080, 0x2089},   {0x2460, 0x2468},
                    {0x2474, 0x247c},   {0x2488, 0x2490},   {0x24ea, 0x24ea},   {0x24f5, 0x24fd},
                    {0x24ff, 0x24ff},   {0x2776, 0x277e},   {0x2780, 0x2788},   {0x278a, 0x2792},
                    {0x10a40, 0x10a43}, {0x10e60, 0x10e68}, {0x11052, 0x1105a}, {0x1f100, 0x1f10a}};

bool InRange(char32_t c, char32_t first, char32_t last) { return first <= c && c <= last; }

bool IsContinuation(char byte) { return (static_cast<uint8_t>(byte) & 0xc0) == 0x80; }

}  // namespace

DecodedCodePoint DecodeAt(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[at + i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xe0) return {static_cast<char32_t>((lead & 0x1f) << 6 | (byte(1) & 0x3f)), 2};
  if (lead < 0xf0) {
    return {static_cast<char32_t>((lead & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f)),
            3};
  }
  return {static_cast<char32_t>((lead & 0x07) << 18 | (byte(1) & 0x3f) << 12 |
                                (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f)),
          4};
}

size_t PreviousBoundary(std::string_view text, size_t end) {
  do {
    --end;
  } while (end > 0 && IsContinuation(text[end]));
  return end;
}

void AppendUtf8(char32_t c, std::string& out) {
  utf8proc_uint8_t bytes[4];
  const auto size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
}

bool IsValidUtf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  size_t at = 0;
  while (at < text.size()) {
    if (bytes[at] < 0x80) {
      ++at;
      continue;
    }
    utf8proc_int32_t c;
    const auto size =
        utf8proc_iterate(bytes + at, static_cast<utf8proc_ssize_t>(text.size() - at), &c);
    if (size <= 0) return false;
    at += static_cast<size_t>(size);
  }
  return true;
}

size_t CountCodePoints(std::string_view text) {
  return text.size() - static_cast<size_t>(std::count_if(text.begin(), text.end(), IsContinuation));
}

bool IsSpace(char32_t c) {
  if (c < 0x80) return c == ' ' || InRange(c, 0x09, 0x0d) || InRange(c, 0x1c, 0x1f);
  return c == 0x85 || c == 0xa0 || c == 0x1680 || InRange(c, 0x2000, 0x200a) || c == 0x2028 ||
         c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool IsAlpha(char32_t c) {
  return InRange(Category(c), UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LO);
}

bool IsDecimal(char32_t c) { return Category(c) == UTF8PROC_CATEGORY_ND; }

bool IsDigit(char32_t c) {
  if (IsDecimal(c)) return true;
  return std::any_of(std::begin(kOtherDigits), std::end(kOtherDigits),
                     [c](const auto& range) { return InRange(c, range.first, range.last); });
}

bool IsNumeric(char32_t c) {
  return InRange(Category(c), UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NO);
}

// Other_Uppercase and Other_Lowercase (roman numerals, circled and modifier letters) count for
// Python.
bool IsUpper(char32_t c) {
  return Category(c) == UTF8PROC_CATEGORY_LU || InRange(c, 0x2160, 0x216f) ||
         InRange(c, 0x24b6, 0x24cf) || InRange(c, 0x1f130, 0x1f149) ||
         InRange(c, 0x1f150, 0x1f169) || InRange(c, 0x1f170, 0x1f189);
}

bool IsLower(char32_t c) {
  return Category(c) == UTF8PROC_CATEGORY_LL || c == 0xaa || c == 0xba ||
         InRange(c, 0x2b0, 0x2b8) || InRange(c, 0x2c0, 0x2c1) || InRange(c, 0x2e0, 0x2e4) ||
         c == 0x345 || c == 0x37a || InRange(c, 0x1d2c, 0x1d6a) || c == 0x1d78 ||
         InRange(c, 0x1d9b, 0x1dbf) || c == 0x2071 || c == 0x207f || InRange(c, 0x2090, 0x209c) ||
         InRange(c, 0x2170, 0x217f) || InRange(c, 0x24d0, 0x24e9) || InRange(c, 0x2c7c, 0x2c7d) ||
         InRange(c, 0xa69c, 0xa69d) || c == 0xa770 || InRange(c, 0xa7f8, 0xa7f9) ||
         InRange(c, 0xab5c, 0xab5f);
}

bool IsTitle(char32_t c) { return Category(c) == UTF8PROC_CATEGORY_LT; }

bool IsPrintable(char32_t c) {
  if (c < 0x80) return InRange(c, 0x20, 0x7e);
  switch (Category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

bool IsCaseIgnorable(char32_t c) {
  switch (Category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return c == '\'' || c == '.' || c == ':' || c == 0xb7 || c == 0x2018 || c == 0x2019;
  }
}

void AppendUpper(char32_t c, std::string& out) {
  if (c < 0x80)
    return out.push_back(InRange(c, 'a', 'z') ? static_cast<char>(c - 32) : static_cast<char>(c));
  if (const SpecialCase* special = FindSpecialCase(c)) return AppendAll(special->upper, out);
  AppendUtf8(static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))), out);
}

void AppendLower(char32_t c, std::string& out) {
  if (c < 0x80)
    return out.push_back(InRange(c, 'A', 'Z') ? static_cast<char>(c + 32) : static_cast<char>(c));
  if (c == 0x130) {  // the only lower-case mapping to two characters
    out.append("i\xcc\x87");
    return;
  }
  AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
}

void AppendTitle(char32_t c, std::string& out) {
  if (c < 0x80) return AppendUpper(c, out);
  if (const SpecialCase* special = FindSpecialCase(c)) return AppendAll(special->title, out);
  AppendUtf8(static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))), out);
}

void AppendFolded(char32_t c, std::string& out) {
  if (c < 0x80) return AppendLower(c, out);
  std::array<utf8proc_int32_t, 4> folded;  // at most 3 code points
  const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), folded.data(),
                                             folded.size(), UTF8PROC_CASEFOLD, nullptr);
  for (utf8proc_ssize_t i = 0; i < count; ++i)
    AppendUtf8(static_cast<char32_t>(folded[static_cast<size_t>(i)]), out);
}

}  // namespace fairlead::jinja

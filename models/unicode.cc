// SPDX-License-Identifier: Apache-2.0
#include "models/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "kernels/check.h"

namespace fairlead {
namespace {

// Below U+0300 nothing combines and everything is its own NFC; in UTF-8 these are the texts without
// a byte from 0xCC on.
constexpr char32_t kFirstCombining = 0x300;
constexpr unsigned char kFirstCombiningLead = 0xCC;

bool IsMark(char32_t code_point) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
  return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
         category == UTF8PROC_CATEGORY_ME;
}

int CombiningClass(utf8proc_int32_t code_point) {
  if (code_point < static_cast<utf8proc_int32_t>(kFirstCombining)) return 0;
  return static_cast<int>(utf8proc_get_property(code_point)->combining_class);
}

// Canonical decomposition, in the order of the text.
void AppendDecomposed(char32_t code_point, std::vector<utf8proc_int32_t>* out) {
  utf8proc_int32_t part[8];  // the longest canonical decomposition has 4 code points
  int boundclass = UTF8PROC_BOUNDCLASS_START;
  const utf8proc_ssize_t count = utf8proc_decompose_char(
      static_cast<utf8proc_int32_t>(code_point), part, 8,
      static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE), &boundclass);
  FAIRLEAD_CHECK(count >= 0 && count <= 8);
  out->insert(out->end(), part, part + count);
}

// Canonical ordering: runs of marks sorted by class, equal classes kept in order.
// utf8proc_decompose would swap neighbours, which takes quadratic time on a long run.
void SortMarks(std::vector<utf8proc_int32_t>* text) {
  for (size_t begin = 0; begin < text->size();) {
    size_t end = begin;
    while (end < text->size() && CombiningClass((*text)[end]) != 0) ++end;
    if (end - begin > 1) {
      std::stable_sort(text->begin() + begin, text->begin() + end,
                       [](utf8proc_int32_t a, utf8proc_int32_t b) {
                         return CombiningClass(a) < CombiningClass(b);
                       });
    }
    begin = end + 1;
  }
}

}  // namespace

char32_t DecodeUtf8(std::string_view text, size_t* pos) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[*pos + i]); };
  const unsigned char lead = byte(0);
  char32_t code_point = lead;
  size_t length = 1;
  if (lead >= 0xF0) {
    code_point =
        (lead & 0x07u) << 18 | (byte(1) & 0x3Fu) << 12 | (byte(2) & 0x3Fu) << 6 | (byte(3) & 0x3Fu);
    length = 4;
  } else if (lead >= 0xE0) {
    code_point = (lead & 0x0Fu) << 12 | (byte(1) & 0x3Fu) << 6 | (byte(2) & 0x3Fu);
    length = 3;
  } else if (lead >= 0xC0) {
    code_point = (lead & 0x1Fu) << 6 | (byte(1) & 0x3Fu);
    length = 2;
  }
  *pos += length;
  return code_point;
}

void AppendUtf8(char32_t code_point, std::string* out) {
  const auto push = [out](char32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    push(code_point);
  } else if (code_point < 0x800) {
    push(0xC0 | code_point >> 6);
    push(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    push(0xE0 | code_point >> 12);
    push(0x80 | (code_point >> 6 & 0x3F));
    push(0x80 | (code_point & 0x3F));
  } else {
    push(0xF0 | code_point >> 18);
    push(0x80 | (code_point >> 12 & 0x3F));
    push(0x80 | (code_point >> 6 & 0x3F));
    push(0x80 | (code_point & 0x3F));
  }
}

bool IsWhitespace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool IsWordCharacter(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:  // Join_Control, and Other_Alphabetic as far as it is neither letter nor mark: circled
              // letters
      return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
             (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
             (c >= 0x1F170 && c <= 0x1F189);
  }
}

size_t SkipWhitespace(std::string_view text, size_t pos) {
  while (pos < text.size()) {
    size_t next = pos;
    if (!IsWhitespace(DecodeUtf8(text, &next))) break;
    pos = next;
  }
  return pos;
}

size_t SkipWhitespaceBack(std::string_view text, size_t pos, size_t floor) {
  while (pos > floor) {
    size_t start = pos - 1;
    while (start > floor && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    size_t next = start;
    if (!IsWhitespace(DecodeUtf8(text, &next))) break;
    pos = start;
  }
  return pos;
}

std::string NormalizeNfc(std::string_view text) {
  const auto may_change = [](char c) {
    return static_cast<unsigned char>(c) >= kFirstCombiningLead;
  };
  if (std::none_of(text.begin(), text.end(), may_change)) return std::string(text);
  std::vector<utf8proc_int32_t> code_point;
  code_point.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) AppendDecomposed(DecodeUtf8(text, &pos), &code_point);
  SortMarks(&code_point);
  const utf8proc_ssize_t length =
      utf8proc_normalize_utf32(code_point.data(), static_cast<utf8proc_ssize_t>(code_point.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  FAIRLEAD_CHECK(length >= 0);
  std::string out;
  out.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < length; ++i)
    AppendUtf8(static_cast<char32_t>(code_point[i]), &out);
  return out;
}

bool StartsNfcSegment(char32_t code_point) {
  if (code_point < kFirstCombining) return true;
  std::vector<utf8proc_int32_t> part;
  AppendDecomposed(code_point, &part);
  // Besides marks only the vowels and final consonants of Hangul compose with what precedes them.
  const auto first = static_cast<char32_t>(part[0]);
  return !IsMark(first) && !(first >= 0x1160 && first <= 0x11FF);
}

}  // namespace fairlead

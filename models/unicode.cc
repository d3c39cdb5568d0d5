// SPDX-License-Identifier: Apache-2.0
#include "models/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "kernels/check.h"
#include "models/unicode_ages.h"

namespace fairlead {
namespace {

// Below U+0300 nothing combines and everything is its own NFC; in UTF-8 these are the texts without
// a byte from 0xCC on.
constexpr char32_t kFirstCombining = 0x300;
constexpr unsigned char kFirstCombiningLead = 0xCC;

utf8proc_category_t CategoryOf(char32_t code_point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
}

struct Range {
  char32_t first;
  char32_t last;
};
// Marks that came with Unicode 10 to 15, and U+11930, whose one composition came with Unicode 13.
constexpr Range kNewMarks[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
    {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x11930, 0x11930}, {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0},
    {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42},
    {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1},
    {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
    {0x1E4EC, 0x1E4EF},
};

// The one character with a canonical decomposition that came after Unicode 9.
constexpr utf8proc_int32_t kNewComposite = 0x11938;

template <size_t n>
bool IsIn(const Range (&ranges)[n], char32_t c) {
  const Range* range = std::lower_bound(std::begin(ranges), std::end(ranges), c,
                                        [](Range r, char32_t at) { return r.last < at; });
  return range != std::end(ranges) && range->first <= c;
}

bool IsNewMark(utf8proc_int32_t code_point) {
  return IsIn(kNewMarks, static_cast<char32_t>(code_point));
}

int CombiningClass(utf8proc_int32_t code_point) {
  if (code_point < static_cast<utf8proc_int32_t>(kFirstCombining) || IsNewMark(code_point))
    return 0;
  return static_cast<int>(utf8proc_get_property(code_point)->combining_class);
}

// The longest compatibility decomposition, that of U+FDFA, has 18 code points.
constexpr int kMaxDecomposition = 18;

// Full decomposition, canonical or (NFKC, NFKD) of compatibility, in the order of the text.
void AppendDecomposed(char32_t code_point, bool compatibility, std::vector<utf8proc_int32_t>* out) {
  const auto c = static_cast<utf8proc_int32_t>(code_point);
  if (c == kNewComposite || (compatibility && DecomposesSince9(code_point)))
    return out->push_back(c);
  utf8proc_int32_t part[kMaxDecomposition];
  int boundclass = UTF8PROC_BOUNDCLASS_START;
  const utf8proc_ssize_t count =
      utf8proc_decompose_char(c, part, kMaxDecomposition,
                              static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE |
                                                             (compatibility ? UTF8PROC_COMPAT : 0)),
                              &boundclass);
  FAIRLEAD_CHECK(count >= 0 && count <= kMaxDecomposition);
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

// Composes text in canonical order, in place. New marks are kept apart: in the middle of what
// utf8proc sees they would let characters around them compose.
void Compose(std::vector<utf8proc_int32_t>* text) {
  size_t length = 0;
  for (size_t begin = 0; begin < text->size();) {
    size_t end = begin + 1;
    while (end < text->size() && !IsNewMark((*text)[end])) ++end;
    const utf8proc_ssize_t part = utf8proc_normalize_utf32(
        text->data() + begin, static_cast<utf8proc_ssize_t>(end - begin),
        static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    FAIRLEAD_CHECK(part >= 0);
    std::copy_n(text->begin() + begin, part, text->begin() + length);
    length += part;
    begin = end;
  }
  text->resize(length);
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

std::string Normalize(std::string_view text, NormalizationForm form) {
  const bool composes = form == NormalizationForm::kC || form == NormalizationForm::kKC;
  const bool compatibility = form == NormalizationForm::kKC || form == NormalizationForm::kKD;
  // ASCII stays as it is, and in NFC whatever comes before the marks.
  const unsigned char first = form == NormalizationForm::kC ? kFirstCombiningLead : 0x80;
  const auto may_change = [first](char c) { return static_cast<unsigned char>(c) >= first; };
  if (std::none_of(text.begin(), text.end(), may_change)) return std::string(text);
  std::vector<utf8proc_int32_t> code_point;
  code_point.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    AppendDecomposed(DecodeUtf8(text, &pos), compatibility, &code_point);
  }
  SortMarks(&code_point);
  if (composes) Compose(&code_point);
  std::string out;
  out.reserve(text.size());
  for (const utf8proc_int32_t c : code_point) AppendUtf8(static_cast<char32_t>(c), &out);
  return out;
}

bool StartsSegment(char32_t code_point) {
  if (code_point < kFirstCombining) return true;
  std::vector<utf8proc_int32_t> part;
  AppendDecomposed(code_point, true, &part);
  // Besides marks only the vowels and final consonants of Hangul compose with what precedes them.
  const auto first = static_cast<char32_t>(part[0]);
  return !IsMark(first) && !(first >= 0x1160 && first <= 0x11FF);
}

bool IsMark(char32_t c) {
  const utf8proc_category_t category = CategoryOf(c);
  return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
         category == UTF8PROC_CATEGORY_ME;
}

bool IsMark9(char32_t c) {
  // The last two have been letters since Unicode 12.
  return (IsMark(c) && !IsMarkSince9(c)) || c == 0x1CF2 || c == 0x1CF3;
}

bool IsNonspacingMark8(char32_t c) {
  constexpr char32_t kSpacingSince14 = 0x1734;
  return (CategoryOf(c) == UTF8PROC_CATEGORY_MN && !IsNonspacingSince8(c)) || c == kSpacingSince14;
}

bool IsPunctuation8(char32_t c) {
  const utf8proc_category_t category = CategoryOf(c);
  const bool now = category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
  // A symbol since Unicode 12, a mark since Unicode 11.
  return (now && !IsPunctuationSince8(c)) || c == 0x166D || c == 0x111C9;
}

bool IsOther8(char32_t c) { return CategoryOf(c) >= UTF8PROC_CATEGORY_CC && !IsOtherSince8(c); }

void AppendLowercase(char32_t code_point, std::string* out) {
  constexpr char32_t kDottedCapitalI = 0x130;  // the one character whose lower case is two
  if (code_point == kDottedCapitalI) {
    out->append("i\u0307");
    return;
  }
  AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code_point))),
             out);
}

}  // namespace fairlead

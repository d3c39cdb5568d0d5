// SPDX-License-Identifier: Apache-2.0
#include "models/charsmap.h"

#include <utf8proc.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/status/status.h"
#include "kernels/strings.h"
#include "models/detokenizer.h"
#include "models/unicode.h"

namespace fairlead {
namespace {

// A unit of the double array: the byte that leads to it, whether a value hangs below it, and the
// distance to its children. A unit that holds a value has the top bit set, so its label is no byte.
constexpr uint32_t kValueBit = 1u << 31;
uint32_t Label(uint32_t unit) { return unit & (kValueBit | 0xFF); }
bool HasValue(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t Offset(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }

// The format is little-endian, as all that we run on.
static_assert(std::endian::native == std::endian::little);
uint32_t ReadUnit(std::string_view bytes, size_t index) {
  uint32_t unit;
  std::memcpy(&unit, bytes.data() + index * sizeof(unit), sizeof(unit));
  return unit;
}

absl::Status Malformed(std::string_view what) {
  return absl::InvalidArgumentError(StrCat("precompiled_charsmap: ", what));
}

// Where the extended grapheme cluster that starts at `pos` ends (Unicode annex 29).
size_t GraphemeEnd(std::string_view text, size_t pos) {
  const auto is_ascii = [&](size_t at) { return static_cast<unsigned char>(text[at]) < 0x80; };
  // Two ASCII characters side by side stay apart, but for a line end of two.
  if (pos + 1 < text.size() && is_ascii(pos) && is_ascii(pos + 1) && text[pos] != '\r')
    return pos + 1;
  utf8proc_int32_t state = 0;
  auto previous = static_cast<utf8proc_int32_t>(DecodeUtf8(text, &pos));
  while (pos < text.size()) {
    size_t next = pos;
    const auto current = static_cast<utf8proc_int32_t>(DecodeUtf8(text, &next));
    if (utf8proc_grapheme_break_stateful(previous, current, &state)) break;
    previous = current;
    pos = next;
  }
  return pos;
}

}  // namespace

absl::StatusOr<Charsmap> Charsmap::Create(std::string_view bytes) {
  Charsmap map;
  if (bytes.empty()) return map;
  if (bytes.size() < sizeof(uint32_t)) return Malformed("is shorter than its header of 4 bytes");
  const size_t trie_bytes = ReadUnit(bytes, 0);
  bytes.remove_prefix(sizeof(uint32_t));
  if (trie_bytes > bytes.size() || trie_bytes % sizeof(uint32_t) != 0) {
    return Malformed(StrCat("the trie's size is ", trie_bytes,
                            " bytes; it must be a multiple of 4, at most ", bytes.size()));
  }
  const std::string_view replacements = bytes.substr(trie_bytes);
  if (!IsValidUtf8(replacements)) return Malformed("a replacement is not valid UTF-8");
  for (size_t begin = 0; begin < replacements.size();) {
    const size_t end = replacements.find('\0', begin);
    if (end == std::string_view::npos) return Malformed("the last replacement has no end");
    if (end - begin > kMaxReplacementBytes) {
      return Malformed(StrCat("a replacement has ", end - begin, " bytes; at most ",
                              kMaxReplacementBytes, " are allowed"));
    }
    map.longest_ = std::max(map.longest_, end - begin);
    begin = end + 1;
  }
  map.unit_.resize(trie_bytes / sizeof(uint32_t));
  for (size_t i = 0; i < map.unit_.size(); ++i) map.unit_[i] = ReadUnit(bytes, i);
  map.replacement_ = replacements;
  return map;
}

template <typename Visit>
void Charsmap::ForEachRule(std::string_view text, Visit visit) const {
  if (unit_.empty()) return;
  size_t node = Offset(unit_[0]);
  const size_t end = std::min(text.size(), kMaxKeyBytes);
  for (size_t i = 0; i < end; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    node ^= byte;
    if (node >= unit_.size() || Label(unit_[node]) != byte) return;
    const bool has_value = HasValue(unit_[node]);
    node ^= Offset(unit_[node]);
    if (!has_value) continue;
    if (node >= unit_.size()) return;
    if (!visit(i + 1, unit_[node] & ~kValueBit)) return;
  }
}

std::optional<std::string_view> Charsmap::Replacement(uint32_t offset) const {
  if (offset >= replacement_.size()) return std::nullopt;
  const std::string_view rest = std::string_view(replacement_).substr(offset);
  // Behind the first byte of a character there is no text.
  if ((static_cast<unsigned char>(rest.front()) & 0xC0) == 0x80) return std::nullopt;
  return rest.substr(0, rest.find('\0'));
}

std::optional<Charsmap::Match> Charsmap::Longest(std::string_view text) const {
  std::optional<Match> longest;
  ForEachRule(text, [&](size_t length, uint32_t value) {
    if (const auto replacement = Replacement(value)) longest = Match{length, *replacement};
    return true;
  });
  return longest;
}

std::optional<Charsmap::Match> Charsmap::Shortest(std::string_view text) const {
  std::optional<Match> shortest;
  ForEachRule(text, [&](size_t length, uint32_t value) {
    if (const auto replacement = Replacement(value)) shortest = Match{length, *replacement};
    return !shortest.has_value();
  });
  return shortest;
}

absl::StatusOr<std::unique_ptr<Normalizer>> PrecompiledNormalizer::Create(
    const std::string& bytes) {
  absl::StatusOr<Charsmap> map = Charsmap::Create(bytes);
  if (!map.ok()) return map.status();
  return std::make_unique<PrecompiledNormalizer>(*std::move(map));
}

std::string PrecompiledNormalizer::Apply(std::string_view text, TrustedSpans* trusted) const {
  constexpr size_t kWholeBelow = 6;  // bytes: the reference's bound
  NormalizedText out(*trusted);
  for (size_t pos = 0; pos < text.size();) {
    const size_t end = GraphemeEnd(text, pos);
    const std::string_view grapheme = text.substr(pos, end - pos);
    if (grapheme.size() < kWholeBelow) {
      if (const auto match = map_.Shortest(grapheme)) {
        out.Append(pos, end, match->replacement);
        pos = end;
        continue;
      }
    }
    while (pos < end) {
      const size_t begin = pos;
      DecodeUtf8(text, &pos);
      const std::string_view character = text.substr(begin, pos - begin);
      const auto match = map_.Shortest(character);
      out.Append(begin, pos, match ? match->replacement : character);
    }
  }
  return std::move(out).Take(trusted);
}

}  // namespace fairlead

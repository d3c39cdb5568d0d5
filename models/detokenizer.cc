// SPDX-License-Identifier: Apache-2.0
#include "models/detokenizer.h"

#include <algorithm>
#include <cstring>

namespace fairlead {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

struct Sequence {
  size_t length;   // of the character, or of the longest start of one (at least 1)
  bool valid;      // it is a whole character
  bool truncated;  // it is a start that more bytes could complete
};

// What stands at bytes[pos] by table 3-7 of the Unicode standard: the second byte's range depends
// on the lead, later bytes are 80..BF.
Sequence ReadSequence(std::string_view bytes, size_t pos) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char lead = at(pos);
  if (lead < 0x80) return {1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {1, false, false};
  const size_t needed = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  unsigned char low = 0x80;
  unsigned char high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  size_t length = 1;
  while (length < needed) {
    if (pos + length == bytes.size()) return {length, false, true};
    if (at(pos + length) < low || at(pos + length) > high) return {length, false, false};
    low = 0x80;
    high = 0xBF;
    ++length;
  }
  return {needed, true, false};
}

// Offset of the first byte from `pos` on that is not ASCII.
size_t SkipAscii(std::string_view bytes, size_t pos) {
  constexpr uint64_t kHighBits = 0x8080808080808080;
  while (pos + sizeof(uint64_t) <= bytes.size()) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + pos, sizeof(word));
    if ((word & kHighBits) != 0) break;
    pos += sizeof(word);
  }
  while (pos < bytes.size() && static_cast<unsigned char>(bytes[pos]) < 0x80) ++pos;
  return pos;
}

class BytesStream final : public TextStream {
 public:
  BytesStream(const Tokenizer& tokenizer, bool skip_special_tokens)
      : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

  std::string Push(Token token) override {
    if (skip_special_tokens_ && tokenizer_.IsSpecial(token)) return "";
    pending_.append(tokenizer_.Bytes(token));
    const size_t complete = CompleteUtf8Prefix(pending_);
    std::string text = ReplaceInvalidUtf8(std::string_view(pending_).substr(0, complete));
    pending_.erase(0, complete);
    return text;
  }
  std::string Finish() override { return ReplaceInvalidUtf8(pending_); }
  std::string Held() const override { return pending_; }

 private:
  const Tokenizer& tokenizer_;
  const bool skip_special_tokens_;
  std::string pending_;  // at most 3 bytes: the start of one character
};

}  // namespace

bool IsValidUtf8(std::string_view bytes) {
  for (size_t pos = SkipAscii(bytes, 0); pos < bytes.size(); pos = SkipAscii(bytes, pos)) {
    const Sequence sequence = ReadSequence(bytes, pos);
    if (!sequence.valid) return false;
    pos += sequence.length;
  }
  return true;
}

size_t CharacterLength(std::string_view bytes) {
  const Sequence sequence = ReadSequence(bytes, 0);
  return sequence.valid ? sequence.length : 0;
}

std::string ReplaceInvalidUtf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t pos = 0; pos < bytes.size();) {
    const size_t ascii_end = SkipAscii(bytes, pos);
    out.append(bytes.substr(pos, ascii_end - pos));
    if (ascii_end == bytes.size()) break;
    const Sequence sequence = ReadSequence(bytes, ascii_end);
    out.append(sequence.valid ? bytes.substr(ascii_end, sequence.length) : kReplacement);
    pos = ascii_end + sequence.length;
  }
  return out;
}

size_t CompleteUtf8Prefix(std::string_view bytes) {
  // A lead byte starts a sequence wherever it stands, so only the last one can be unfinished.
  for (size_t back = 1; back <= std::min<size_t>(3, bytes.size()); ++back) {
    const size_t pos = bytes.size() - back;
    if ((static_cast<unsigned char>(bytes[pos]) & 0xC0) == 0x80) continue;
    const Sequence sequence = ReadSequence(bytes, pos);
    return sequence.truncated ? pos : bytes.size();
  }
  return bytes.size();
}

std::unique_ptr<TextStream> Tokenizer::NewStream(bool skip_special_tokens) const {
  return std::make_unique<BytesStream>(*this, skip_special_tokens);
}

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(tokenizer),
      skip_special_tokens_(skip_special_tokens),
      stream_(tokenizer.NewStream(skip_special_tokens)) {}

std::string Detokenizer::Push(Token token) { return stream_->Push(token); }

std::string Detokenizer::Finish() {
  std::string text = stream_->Finish();
  stream_ = tokenizer_.NewStream(skip_special_tokens_);
  return text;
}

}  // namespace fairlead

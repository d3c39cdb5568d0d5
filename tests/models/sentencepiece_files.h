// SPDX-License-Identifier: Apache-2.0
// SentencePiece models written by hand, field by field, and the pieces of written ones. One thread.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "sentencepiece/model.pb.h"

namespace fairlead {

inline std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}

// A length-delimited field.
inline std::string Field(int number, std::string_view bytes) {
  return Varint(static_cast<uint64_t>(number) << 3 | 2) + Varint(bytes.size()) + std::string(bytes);
}

inline std::string Piece(std::string_view text, float score, int type) {
  sentencepiece::Piece piece;
  piece.set_text(std::string(text));
  piece.set_score(score);
  piece.set_type(type);
  return Field(1, piece.SerializeAsString());
}

// <unk> <s> </s> and three pieces; unigram, no dummy prefix.
inline std::string SmallModel() {
  sentencepiece::NormalizerSpec normalizer;
  normalizer.set_add_dummy_prefix(false);
  normalizer.set_remove_extra_whitespaces(false);
  return Piece("<unk>", 0, 2) + Piece("<s>", 0, 3) + Piece("</s>", 0, 3) + Piece("a", -1, 1) +
         Piece("b", -1, 1) + Piece("ab", -1.5, 1) + Field(3, normalizer.SerializeAsString());
}

// The last field of this number in a well-formed message of length-delimited fields.
inline std::string FindField(std::string_view message, int number) {
  std::string found;
  const auto read = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(message.front());
      message.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (!message.empty()) {
    const uint64_t tag = read();
    const uint64_t size = read();
    if (tag >> 3 == static_cast<uint64_t>(number)) found = message.substr(0, size);
    message.remove_prefix(size);
  }
  return found;
}

}  // namespace fairlead

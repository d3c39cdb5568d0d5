// SPDX-License-Identifier: Apache-2.0
#include "models/jinja/string_literal.h"

#include <cstdint>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "kernels/strings.h"
#include "models/jinja/status_macros.h"
#include "models/jinja/unicode.h"

namespace fairlead::jinja {
namespace {

class Unescaper {
 public:
  explicit Unescaper(std::string_view body) : body_(body) {}

  absl::StatusOr<std::string> Run() {
    while (at_ < body_.size()) {
      if (body_[at_] != '\\') {
        out_.push_back(body_[at_++]);
        continue;
      }
      ++at_;
      if (at_ >= body_.size()) return absl::InvalidArgumentError("\\ at end of string");
      JINJA_RETURN_IF_ERROR(ReadEscape());
    }
    return std::move(out_);
  }

 private:
  absl::Status ReadEscape() {
    constexpr std::string_view kNames = "\\'\"abfnrtv";
    constexpr std::string_view kValues = "\\'\"\a\b\f\n\r\t\v";
    const char c = body_[at_];
    if (const size_t simple = kNames.find(c); simple != std::string_view::npos) {
      out_.push_back(kValues[simple]);
      ++at_;
      return absl::OkStatus();
    }
    switch (c) {
      case '\n':
        ++at_;
        return absl::OkStatus();
      case 'x':
        return ReadHex(2);
      case 'u':
        return ReadHex(4);
      case 'U':
        return ReadHex(8);
      case 'N':
        return absl::InvalidArgumentError("character names (\\N{...}) are not supported");
      default:
        break;
    }
    if (c >= '0' && c <= '7') {
      ReadOctal();
    } else if (static_cast<uint8_t>(c) >= 0x80) {
      ReadEscapedNonAscii();
    } else {
      out_.push_back('\\');
      out_.push_back(c);
      ++at_;
    }
    return absl::OkStatus();
  }

  absl::Status ReadHex(int digits) {
    ++at_;
    uint32_t value = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      if (at_ >= body_.size() || !absl::ascii_isxdigit(static_cast<unsigned char>(body_[at_]))) {
        return absl::InvalidArgumentError(
            StrCat("truncated escape: ", digits, " hexadecimal digits are needed"));
      }
      const char c = absl::ascii_tolower(static_cast<unsigned char>(body_[at_]));
      value = value * 16 + static_cast<uint32_t>(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    if (value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) {
      return absl::InvalidArgumentError(absl::StrFormat("illegal Unicode character U+%04X", value));
    }
    AppendUtf8(static_cast<char32_t>(value), out_);
    return absl::OkStatus();
  }

  void ReadOctal() {
    char32_t value = 0;
    for (int i = 0; i < 3 && at_ < body_.size() && body_[at_] >= '0' && body_[at_] <= '7'; ++i) {
      value = value * 8 + static_cast<char32_t>(body_[at_++] - '0');
    }
    AppendUtf8(value, out_);
  }

  // jinja2 spells characters beyond ASCII as escapes before it unescapes. A backslash before one
  // thus escapes the backslash of that spelling, and the spelling stays.
  void ReadEscapedNonAscii() {
    const DecodedCodePoint c = DecodeAt(body_, at_);
    const uint32_t value = c.value;
    out_.push_back('\\');
    if (value < 0x100) {
      absl::StrAppendFormat(&out_, "x%02x", value);
    } else if (value < 0x10000) {
      absl::StrAppendFormat(&out_, "u%04x", value);
    } else {
      absl::StrAppendFormat(&out_, "U%08x", value);
    }
    at_ += c.size;
  }

  std::string_view body_;
  size_t at_ = 0;
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> UnescapeLiteral(std::string_view body) { return Unescaper(body).Run(); }

}  // namespace fairlead::jinja

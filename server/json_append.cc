// SPDX-License-Identifier: Apache-2.0
#include "server/json_append.h"

#include "models/detokenizer.h"
#include "models/json.h"

namespace fairlead {
namespace {

void AppendEscaped(char c, std::string* out) {
  constexpr char kHex[] = "0123456789abcdef";
  switch (c) {
    case '"':
      out->append("\\\"");
      return;
    case '\\':
      out->append("\\\\");
      return;
    case '\b':
      out->append("\\b");
      return;
    case '\f':
      out->append("\\f");
      return;
    case '\n':
      out->append("\\n");
      return;
    case '\r':
      out->append("\\r");
      return;
    case '\t':
      out->append("\\t");
      return;
    default:
      out->append("\\u00");
      out->push_back(kHex[c >> 4]);
      out->push_back(kHex[c & 15]);
  }
}

}  // namespace

void AppendJsonString(std::string_view text, std::string* out) {
  if (!IsValidUtf8(text)) {
    out->append(DumpJson(Json(std::string(text))));
    return;
  }
  out->push_back('"');
  size_t plain = 0;  // where the run of bytes begins that stand for themselves
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out->append(text.substr(plain, i - plain));
    AppendEscaped(text[i], out);
    plain = i + 1;
  }
  out->append(text.substr(plain));
  out->push_back('"');
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// Values as text: Python's str() and repr(), and json.dumps. What a string value contributes keeps
// its trust; punctuation, numbers and keywords are the program's own and trusted.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "models/jinja/text.h"
#include "models/jinja/value.h"

namespace fairlead::jinja {

void AppendStr(const Value& value, TextBuilder& out);
void AppendRepr(const Value& value, TextBuilder& out);
// str(value), sharing it when it is a string already.
Value ToString(const Value& value, Budget& budget);
// The text with `& < > ' "` as entities.
void AppendEscaped(const Text& text, TextBuilder& out);

std::string IntToString(Int value);
// Python's repr of a float: the shortest text that reads back as the same number.
std::string FloatRepr(double value);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool multiline = false;  // an indent was given
  Text indent;             // one level of it
  Text item_separator{", ", true};
  Text key_separator{": ", true};
};
// json.dumps(value, ...). Errors: what JSON cannot hold.
absl::Status AppendJson(const Value& value, const JsonStyle& style, TextBuilder& out);

}  // namespace fairlead::jinja

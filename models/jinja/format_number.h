// SPDX-License-Identifier: Apache-2.0
// Numbers by the format specifications of Python's `%` and format().
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "models/jinja/value.h"

namespace fairlead::jinja {

struct NumberFormat {
  std::string fill = " ";  // one character
  bool fill_given = false;
  bool trusted = true;     // whether the template wrote the specification
  char align = '\0';       // < > ^ =, or none
  char sign = '\0';        // + - space, or none
  bool alternate = false;  // #
  bool zero = false;       // after the sign, unless an alignment is given
  int width = 0;
  char grouping = '\0';  // , _ or none
  int precision = -1;
  char type = '\0';
};

absl::StatusOr<NumberFormat> ParseFormat(std::string_view specification);
// A width or precision; an error beyond what a format may ask for.
absl::StatusOr<int> CheckedFormatNumber(Int number);

// Types d b o x X.
std::string FormatInt(Int value, const NumberFormat& format);
// Types e E f F g G %; precision is set.
std::string FormatFloat(double value, const NumberFormat& format);
// Whatever format() does for a number. Errors: a type that is none of its types.
absl::StatusOr<std::string> FormatNumber(const Value& value, NumberFormat format);
// chr(code).
absl::StatusOr<std::string> CharacterOf(Int code);

}  // namespace fairlead::jinja

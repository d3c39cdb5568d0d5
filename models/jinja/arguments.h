// SPDX-License-Identifier: Apache-2.0
// Arguments of a call and their binding to parameters by Python's rules.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "models/jinja/value.h"

namespace fairlead::jinja {

// A parameter: where its value goes. Optional ones keep the default already there.
struct Parameter {
  std::string_view name;
  Value* value;
  bool required = false;
  bool positional_only = false;
};
inline Parameter Required(std::string_view name, Value& value) { return {name, &value, true}; }
inline Parameter Optional(std::string_view name, Value& value) { return {name, &value, false}; }
// Python's builtins take most arguments by position only.
inline Parameter RequiredPositional(Value& value) { return {"", &value, true, true}; }
inline Parameter OptionalPositional(Value& value) { return {"", &value, false, true}; }

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // Errors: too many, unknown, doubled or missing arguments, with `function` in the message.
  absl::Status Bind(std::string_view function, std::initializer_list<Parameter> parameters) const;
  absl::Status BindNone(std::string_view function) const { return Bind(function, {}); }
};

// `value` as an integer argument; TypeError for anything but int and bool.
absl::StatusOr<Int> IntArgument(std::string_view function, const Value& value);
// `value` as a string argument; TypeError otherwise.
absl::StatusOr<const Text*> TextArgument(std::string_view function, const Value& value);

}  // namespace fairlead::jinja

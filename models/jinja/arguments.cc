// SPDX-License-Identifier: Apache-2.0
#include "models/jinja/arguments.h"

#include <algorithm>

#include "kernels/strings.h"
#include "models/jinja/objects.h"
#include "models/jinja/status_macros.h"

namespace fairlead::jinja {

absl::Status Arguments::Bind(std::string_view function,
                             std::initializer_list<Parameter> parameters) const {
  if (positional.size() > parameters.size()) {
    return TypeError(StrCat(function, "() takes at most ", parameters.size(), " arguments (",
                            positional.size(), " given)"));
  }
  std::vector<bool> bound(parameters.size(), false);
  for (size_t i = 0; i < positional.size(); ++i) {
    *parameters.begin()[i].value = positional[i];
    bound[i] = true;
  }
  for (const auto& [name, value] : named) {
    const auto* found = std::find_if(
        parameters.begin(), parameters.end(),
        [&name = name](const Parameter& p) { return !p.positional_only && p.name == name; });
    if (found == parameters.end()) {
      return TypeError(StrCat(function, "() got an unexpected keyword argument '", name, "'"));
    }
    const size_t index = static_cast<size_t>(found - parameters.begin());
    if (bound[index]) {
      return TypeError(StrCat(function, "() got multiple values for argument '", name, "'"));
    }
    *found->value = value;
    bound[index] = true;
  }
  for (size_t i = 0; i < bound.size(); ++i) {
    const Parameter& parameter = parameters.begin()[i];
    if (parameter.required && !bound[i]) {
      return TypeError(StrCat(function, "() missing required argument ",
                              parameter.positional_only ? StrCat(i + 1) : parameter.name));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Int> IntArgument(std::string_view function, const Value& value) {
  if (value.is_integral()) return value.as_int();
  if (const auto* undefined = value.As<Undefined>()) return undefined->Error();
  return TypeError(
      StrCat(function, ": '", TypeName(value), "' object cannot be interpreted as an integer"));
}

absl::StatusOr<const Text*> TextArgument(std::string_view function, const Value& value) {
  if (value.is_string()) return &value.text();
  return TypeError(StrCat(function, ": a str is needed, not '", TypeName(value), "'"));
}

}  // namespace fairlead::jinja

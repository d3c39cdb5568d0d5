// SPDX-License-Identifier: Apache-2.0
// Methods of str, list, tuple, dict, int and float values.
#pragma once

#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "models/jinja/arguments.h"
#include "models/jinja/objects.h"

namespace fairlead::jinja {

// The method bound to `object`, or nothing if its type has none of that name.
std::optional<Value> FindMethod(Runtime& runtime, const Value& object, std::string_view name);

// Methods that would change a list or dict: the immutable sandbox hides them.
bool IsMutatingMethod(const Value& object, std::string_view name);

using MethodFunction = absl::StatusOr<Value> (*)(Runtime& runtime, const Value& self,
                                                 Arguments& arguments);
struct Method {
  std::string_view name;
  MethodFunction function;
};
// In the file of each type; null if there is none.
const Method* FindStringMethod(std::string_view name);
const Method* FindContainerMethod(const Value& object, std::string_view name);

}  // namespace fairlead::jinja

// SPDX-License-Identifier: Apache-2.0
// Operators, subscripts and attributes with Python's meaning under jinja2's sandbox.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "models/jinja/ast.h"
#include "models/jinja/objects.h"
#include "models/jinja/value.h"

namespace fairlead::jinja {

absl::StatusOr<Value> ApplyBinary(Runtime& runtime, BinaryOperator op, const Value& left,
                                  const Value& right);
absl::StatusOr<Value> Add(Runtime& runtime, const Value& left, const Value& right);
absl::StatusOr<Value> Negate(const Value& operand);
absl::StatusOr<Value> Positive(const Value& operand);
absl::StatusOr<bool> ApplyCompare(Runtime& runtime, CompareOperator op, const Value& left,
                                  const Value& right);
// `item in container`.
absl::StatusOr<bool> Contains(Runtime& runtime, const Value& item, const Value& container);

// `object.name`: an attribute or method, else the item of that key, else Undefined. `name_value` is
// the name as a value.
absl::StatusOr<Value> GetAttribute(Runtime& runtime, const Value& object, std::string_view name,
                                   const Value& name_value);
// `object[index]`: the item, else (for a str index) the attribute, else Undefined.
absl::StatusOr<Value> GetItem(Runtime& runtime, const Value& object, const Value& index);
// `object[start:stop:step]`; None where a part is left out.
absl::StatusOr<Value> GetSlice(Runtime& runtime, const Value& object, const Value& start,
                               const Value& stop, const Value& step);

// A checked integer result.
absl::StatusOr<Value> NewInt(Int value);
// int(x) of a float; errors for infinity, NaN and what does not fit.
absl::StatusOr<Value> Truncate(double value);

}  // namespace fairlead::jinja

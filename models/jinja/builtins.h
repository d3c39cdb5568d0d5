// SPDX-License-Identifier: Apache-2.0
// The filters, tests, methods and global functions a template may use.
#pragma once

#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "models/jinja/arguments.h"
#include "models/jinja/objects.h"
#include "models/jinja/value.h"

namespace fairlead::jinja {

using FilterFunction = absl::StatusOr<Value> (*)(Runtime& runtime, const Value& input,
                                                 Arguments& arguments);
using TestFunction = absl::StatusOr<bool> (*)(Runtime& runtime, const Value& input,
                                              Arguments& arguments);

// Null: no filter, or test, of that name.
FilterFunction FindFilter(std::string_view name);
TestFunction FindTest(std::string_view name);

// A function every template can call by name: range, dict, namespace, cycler, joiner,
// raise_exception, strftime_now. Missing if there is none.
Value FindGlobal(std::string_view name);

// raise_exception's error carries this code inside the engine, so that its message stays untouched.
inline constexpr absl::StatusCode kRaisedByTemplate = absl::StatusCode::kAborted;

}  // namespace fairlead::jinja

// SPDX-License-Identifier: Apache-2.0
// `"%s" % x` and `"{}".format(x)`.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "models/jinja/arguments.h"
#include "models/jinja/objects.h"

namespace fairlead::jinja {

// `arguments` is a tuple of values, a dict for %(name)s, or the one value.
absl::StatusOr<Value> FormatPercent(Runtime& runtime, const Value& format, const Value& arguments);

absl::StatusOr<Value> FormatBraces(Runtime& runtime, const Value& format,
                                   const Arguments& arguments);

// format(value, specification): [[fill]align][sign][#][0][width][grouping][.precision][type].
// Widths and precisions of strings count code points.
absl::Status AppendFormatted(Runtime& runtime, const Value& value, const Text& specification,
                             TextBuilder& out);

}  // namespace fairlead::jinja

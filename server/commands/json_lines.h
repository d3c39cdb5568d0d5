// SPDX-License-Identifier: Apache-2.0
// One JSON value a line in, one a line out: the commands that scripts drive. One thread.
#pragma once

#include <functional>
#include <istream>
#include <ostream>

#include "absl/status/statusor.h"
#include "models/json.h"

namespace fairlead {

// Answers every line that is not blank with what `answer` makes of its value; a line that is not
// JSON, or an error, becomes {"error": "..."}, and the next one is read. Each answer is flushed.
// kDataLoss when `out` cannot be written.
absl::Status AnswerJsonLines(std::istream& in, std::ostream& out,
                             const std::function<absl::StatusOr<Json>(const Json&)>& answer);

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// Early return on error, for the interpreter: nearly every operation of a template can fail.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define JINJA_CONCAT_INNER(a, b) a##b
#define JINJA_CONCAT(a, b) JINJA_CONCAT_INNER(a, b)

#define JINJA_RETURN_IF_ERROR(expression)                     \
  do {                                                        \
    if (absl::Status status_ = (expression); !status_.ok()) { \
      return status_;                                         \
    }                                                         \
  } while (false)

#define JINJA_ASSIGN_IMPL(result, target, expression)  \
  auto result = (expression);                          \
  if (!result.ok()) return std::move(result).status(); \
  target = *std::move(result)

// `target` may declare a variable: JINJA_ASSIGN_OR_RETURN(const Value value, Evaluate(...)).
#define JINJA_ASSIGN_OR_RETURN(target, expression) \
  JINJA_ASSIGN_IMPL(JINJA_CONCAT(result_, __LINE__), target, expression)

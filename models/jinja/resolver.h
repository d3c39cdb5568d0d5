// SPDX-License-Identifier: Apache-2.0
// Binds names to slots by jinja2's scoping (its idtracking and compiler modules): an assignment
// belongs to the scope it stands in, branches of an `if` share their scope, loops, macros, blocks
// and `with` open one.
#pragma once

#include "absl/status/status.h"
#include "models/jinja/ast.h"

namespace fairlead::jinja {

// Errors: an unknown filter or test outside `if`, an assignment to a loop's own variable.
absl::Status ResolveNames(TemplateAst& ast);

}  // namespace fairlead::jinja

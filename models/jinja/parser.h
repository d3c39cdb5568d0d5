// SPDX-License-Identifier: Apache-2.0
// Tokens to a tree, by jinja2's grammar with loop controls and the `generation` tag. Not supported,
// with an error: block, extends, include, import, from, autoescape.
#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "models/jinja/ast.h"

namespace fairlead::jinja {

// `max_depth` bounds nested brackets and nested tags, and (fourfold) chains of operators, filters
// and subscripts. Errors name the line.
absl::StatusOr<std::unique_ptr<TemplateAst>> ParseTemplate(std::string_view source, int max_depth);

}  // namespace fairlead::jinja

// SPDX-License-Identifier: Apache-2.0
// Walks over a parsed template, in the order of jinja2's node fields.
#pragma once

#include <functional>
#include <set>
#include <string>

#include "models/jinja/ast.h"

namespace fairlead::jinja {

template <typename T>
T& As(Statement& statement) {
  return static_cast<T&>(statement);
}
template <typename T>
const T& As(const Statement& statement) {
  return static_cast<const T&>(statement);
}

// Calls visit(const ExprPtr&) for every child that is there.
void ForEachChild(const Expr& expression, const std::function<void(const ExprPtr&)>& visit);

// Calls visit(name) for every name that evaluating `expression` (may be null) loads.
void WalkNames(const Expr* expression, const std::function<void(const std::string&)>& visit);

// Those of `names` that `body` loads, at any depth, before it assigns them.
std::set<std::string> FindUndeclared(const Block& body, std::set<std::string> names);

}  // namespace fairlead::jinja

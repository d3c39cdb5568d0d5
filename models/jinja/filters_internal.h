// SPDX-License-Identifier: Apache-2.0
// What the files that define filters share.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/jinja/builtins.h"

namespace fairlead::jinja {

struct FilterEntry {
  std::string_view name;
  FilterFunction function;
};
absl::Span<const FilterEntry> StringFilters();
absl::Span<const FilterEntry> SequenceFilters();
absl::Span<const FilterEntry> SelectionFilters();
absl::Span<const FilterEntry> NumberFilters();

// `attribute` ("a.b.0", an integer, or None for the item itself) of an item.
class AttributeGetter {
 public:
  // Errors: an attribute that is neither.
  static absl::StatusOr<AttributeGetter> Make(const Value& attribute, Runtime& runtime);
  // `otherwise`, unless it is None, stands in for Undefined at every step.
  absl::StatusOr<Value> Get(Runtime& runtime, const Value& item,
                            const Value& otherwise = Value()) const;

 private:
  std::vector<Value> path_;
};

// Strings in lower case, other values as they are: the key of sort and its relatives.
Value IgnoreCase(const Value& value, Budget& budget);

// Positions of `keys` in ascending (or descending) order; equal ones keep their order.
absl::StatusOr<std::vector<size_t>> SortedOrder(const std::vector<Value>& keys, bool descending,
                                                Budget& budget);

}  // namespace fairlead::jinja

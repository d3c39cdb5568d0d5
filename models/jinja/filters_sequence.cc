// SPDX-License-Identifier: Apache-2.0
// Filters over whole sequences.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "kernels/strings.h"
#include "models/jinja/filters_internal.h"
#include "models/jinja/operators.h"
#include "models/jinja/printer.h"
#include "models/jinja/status_macros.h"
#include "models/jinja/string_ops.h"
#include "models/jinja/unicode.h"

namespace fairlead::jinja {
namespace {

using Result = absl::StatusOr<Value>;

Value ListFrom(std::vector<Value> items, Budget& budget) {
  ListBuilder builder(budget);
  for (Value& item : items) builder.Push(std::move(item));
  return builder.FinishList();
}

Result LengthFilter(Runtime& runtime, const Value& input, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("length"));
  if (const std::optional<int64_t> length = Length(input)) return Value(Int{*length});
  if (auto* with = input.is_object() ? dynamic_cast<WithAttributes*>(&input.object()) : nullptr) {
    JINJA_ASSIGN_OR_RETURN(const std::optional<Value> length, with->Attribute(runtime, "length"));
    if (length) return *length;
  }
  return TypeError(StrCat("object of type '", TypeName(input), "' has no len()"));
}

Result First(Runtime& runtime, const Value& input, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("first"));
  JINJA_ASSIGN_OR_RETURN(const std::shared_ptr<Iterator> iterator, Iterate(input, runtime));
  Value item;
  JINJA_ASSIGN_OR_RETURN(const bool more, iterator->Next(item));
  return more ? item : Undefined::WithHint("No first item, sequence was empty.");
}

Result Last(Runtime& runtime, const Value& input, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("last"));
  const std::shared_ptr<Iterator> iterator = ReverseIterate(input, runtime);
  if (iterator == nullptr) {
    return TypeError(StrCat("'", TypeName(input), "' object is not reversible"));
  }
  Value item;
  JINJA_ASSIGN_OR_RETURN(const bool more, iterator->Next(item));
  return more ? item : Undefined::WithHint("No last item, sequence was empty.");
}

Result ListFilter(Runtime& runtime, const Value& input, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("list"));
  JINJA_ASSIGN_OR_RETURN(std::vector<Value> items, Collect(input, runtime));
  return ListFrom(std::move(items), runtime.budget);
}

Result Join(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value delimiter = NewTrusted("", runtime.budget);
  Value attribute;
  JINJA_RETURN_IF_ERROR(
      arguments.Bind("join", {Optional("d", delimiter), Optional("attribute", attribute)}));
  JINJA_ASSIGN_OR_RETURN(const AttributeGetter getter, AttributeGetter::Make(attribute, runtime));
  const Value separator = ToString(delimiter, runtime.budget);
  JINJA_ASSIGN_OR_RETURN(const std::shared_ptr<Iterator> iterator, Iterate(input, runtime));
  TextBuilder builder(runtime.budget);
  Value item;
  for (bool first = true;; first = false) {
    JINJA_ASSIGN_OR_RETURN(const bool more, iterator->Next(item));
    if (!more) break;
    if (!runtime.budget.Step()) return runtime.budget.status();
    JINJA_ASSIGN_OR_RETURN(const Value part, getter.Get(runtime, item));
    if (!first) builder.Append(separator.text());
    AppendStr(part, builder);
  }
  return NewString(std::move(builder));
}

Result Reverse(Runtime& runtime, const Value& input, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("reverse"));
  if (input.is_string()) return GetSlice(runtime, input, Value(), Value(), Value(Int{-1}));
  if (std::shared_ptr<Iterator> iterator = ReverseIterate(input, runtime)) {
    return Generator::New(std::move(iterator), "list_reverseiterator", runtime);
  }
  if (!IsIterable(input)) return TypeError("argument must be iterable");
  JINJA_ASSIGN_OR_RETURN(std::vector<Value> items, Collect(input, runtime));
  std::reverse(items.begin(), items.end());
  return ListFrom(std::move(items), runtime.budget);
}

// The key that orders an item: its attributes ("a,b" for two), in lower case unless case matters.
class SortKey {
 public:
  static absl::StatusOr<SortKey> Make(const Value& attribute, bool case_sensitive,
                                      Runtime& runtime) {
    SortKey key(case_sensitive);
    if (!attribute.is_string()) {
      JINJA_ASSIGN_OR_RETURN(AttributeGetter getter, AttributeGetter::Make(attribute, runtime));
      key.getters_.push_back(std::move(getter));
      return key;
    }
    for (const ByteRange& part : Split(attribute.text().bytes(), ",", -1, false, runtime.budget)) {
      JINJA_ASSIGN_OR_RETURN(
          AttributeGetter getter,
          AttributeGetter::Make(Substring(attribute, part, runtime.budget), runtime));
      key.getters_.push_back(std::move(getter));
    }
    return key;
  }

  Result Get(Runtime& runtime, const Value& item) const {
    ListBuilder parts(runtime.budget);
    for (const AttributeGetter& getter : getters_) {
      JINJA_ASSIGN_OR_RETURN(Value part, getter.Get(runtime, item));
      parts.Push(case_sensitive_ ? std::move(part) : IgnoreCase(part, runtime.budget));
    }
    return parts.FinishList();
  }

 private:
  explicit SortKey(bool case_sensitive) : case_sensitive_(case_sensitive) {}
  std::vector<AttributeGetter> getters_;
  bool case_sensitive_;
};

absl::StatusOr<std::vector<Value>> Picked(const std::vector<Value>& items,
                                          const std::vector<Value>& keys, const Value& reverse,
                                          Budget& budget) {
  JINJA_ASSIGN_OR_RETURN(const Int descending, IntArgument("sort", reverse));
  JINJA_ASSIGN_OR_RETURN(const std::vector<size_t> order,
                         SortedOrder(keys, descending != 0, budget));
  std::vector<Value> sorted;
  for (const size_t i : order) sorted.push_back(items[i]);
  return sorted;
}

Result Sort(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value reverse(false);
  Value case_sensitive(false);
  Value attribute;
  JINJA_RETURN_IF_ERROR(arguments.Bind(
      "sort", {Optional("reverse", reverse), Optional("case_sensitive", case_sensitive),
               Optional("attribute", attribute)}));
  JINJA_ASSIGN_OR_RETURN(const SortKey key,
                         SortKey::Make(attribute, IsTrue(case_sensitive), runtime));
  JINJA_ASSIGN_OR_RETURN(const std::vector<Value> items, Collect(input, runtime));
  std::vector<Value> keys;
  for (const Value& item : items) {
    JINJA_ASSIGN_OR_RETURN(Value one, key.Get(runtime, item));
    keys.push_back(std::move(one));
  }
  JINJA_ASSIGN_OR_RETURN(std::vector<Value> sorted, Picked(items, keys, reverse, runtime.budget));
  return ListFrom(std::move(sorted), runtime.budget);
}

Result DictSort(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value case_sensitive(false);
  Value by = NewTrusted("key", runtime.budget);
  Value reverse(false);
  JINJA_RETURN_IF_ERROR(
      arguments.Bind("dictsort", {Optional("case_sensitive", case_sensitive), Optional("by", by),
                                  Optional("reverse", reverse)}));
  const std::string what = by.is_string() ? by.text().bytes() : "";
  if (what != "key" && what != "value") {
    return absl::InvalidArgumentError("You can only sort by either \"key\" or \"value\"");
  }
  if (!input.is_dict()) {
    if (const auto* undefined = input.As<Undefined>()) return undefined->Error();
    return TypeError(StrCat("'", TypeName(input), "' object has no attribute 'items'"));
  }
  std::vector<Value> items;
  std::vector<Value> keys;
  for (const auto& [key, value] : input.dict().entries()) {
    if (!runtime.budget.Step()) return runtime.budget.status();
    items.push_back(NewTuple({key, value}, runtime.budget));
    const Value& chosen = what == "key" ? key : value;
    keys.push_back(IsTrue(case_sensitive) ? chosen : IgnoreCase(chosen, runtime.budget));
  }
  JINJA_ASSIGN_OR_RETURN(std::vector<Value> sorted, Picked(items, keys, reverse, runtime.budget));
  return ListFrom(std::move(sorted), runtime.budget);
}

template <bool kMax>
Result MinMax(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value case_sensitive(false);
  Value attribute;
  JINJA_RETURN_IF_ERROR(arguments.Bind(
      kMax ? "max" : "min",
      {Optional("case_sensitive", case_sensitive), Optional("attribute", attribute)}));
  JINJA_ASSIGN_OR_RETURN(const AttributeGetter getter, AttributeGetter::Make(attribute, runtime));
  JINJA_ASSIGN_OR_RETURN(const std::vector<Value> items, Collect(input, runtime));
  if (items.empty()) return Undefined::WithHint("No aggregated item, sequence was empty.");
  Value best, best_key;
  for (size_t i = 0; i < items.size(); ++i) {
    JINJA_ASSIGN_OR_RETURN(Value key, getter.Get(runtime, items[i]));
    if (!IsTrue(case_sensitive)) key = IgnoreCase(key, runtime.budget);
    bool better = i == 0;
    if (!better) {
      JINJA_ASSIGN_OR_RETURN(const auto ordering,
                             Order(key, best_key, kMax ? ">" : "<", runtime.budget));
      better = kMax ? ordering > 0 : ordering < 0;
    }
    if (!better) continue;
    best = items[i];
    best_key = std::move(key);
  }
  return best;
}

Result Sum(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value attribute;
  Value total(Int{0});
  JINJA_RETURN_IF_ERROR(
      arguments.Bind("sum", {Optional("attribute", attribute), Optional("start", total)}));
  if (total.is_string()) return TypeError("sum() can't sum strings [use ''.join(seq) instead]");
  JINJA_ASSIGN_OR_RETURN(const AttributeGetter getter, AttributeGetter::Make(attribute, runtime));
  JINJA_ASSIGN_OR_RETURN(const std::shared_ptr<Iterator> iterator, Iterate(input, runtime));
  Value item;
  while (true) {
    JINJA_ASSIGN_OR_RETURN(const bool more, iterator->Next(item));
    if (!more) return total;
    if (!runtime.budget.Step()) return runtime.budget.status();
    JINJA_ASSIGN_OR_RETURN(const Value part, getter.Get(runtime, item));
    JINJA_ASSIGN_OR_RETURN(total, Add(runtime, total, part));
  }
}

Result GroupBy(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value attribute, otherwise;
  Value case_sensitive(false);
  JINJA_RETURN_IF_ERROR(
      arguments.Bind("groupby", {Required("attribute", attribute), Optional("default", otherwise),
                                 Optional("case_sensitive", case_sensitive)}));
  Budget& budget = runtime.budget;
  JINJA_ASSIGN_OR_RETURN(const AttributeGetter getter, AttributeGetter::Make(attribute, runtime));
  JINJA_ASSIGN_OR_RETURN(const std::vector<Value> items, Collect(input, runtime));
  std::vector<Value> real_keys;
  std::vector<Value> keys;
  for (const Value& item : items) {
    JINJA_ASSIGN_OR_RETURN(Value key, getter.Get(runtime, item, otherwise));
    keys.push_back(IsTrue(case_sensitive) ? key : IgnoreCase(key, budget));
    real_keys.push_back(std::move(key));
  }
  JINJA_ASSIGN_OR_RETURN(const std::vector<size_t> order, SortedOrder(keys, false, budget));
  ListBuilder groups(budget);
  for (size_t i = 0; i < order.size();) {
    ListBuilder members(budget);
    const size_t first = order[i];
    for (; i < order.size() && Equals(keys[order[i]], keys[first], budget); ++i) {
      members.Push(items[order[i]]);
    }
    if (!budget.ok()) return budget.status();
    ListBuilder group(budget);
    group.Push(real_keys[first]);
    group.Push(members.FinishList());
    groups.Push(group.FinishGroup());
  }
  return groups.FinishList();
}

constexpr FilterEntry kFilters[] = {
    {"count", LengthFilter},
    {"dictsort", DictSort},
    {"first", First},
    {"groupby", GroupBy},
    {"join", Join},
    {"last", Last},
    {"length", LengthFilter},
    {"list", ListFilter},
    {"max", MinMax<true>},
    {"min", MinMax<false>},
    {"reverse", Reverse},
    {"sort", Sort},
    {"sum", Sum},
};

}  // namespace

absl::Span<const FilterEntry> SequenceFilters() { return kFilters; }

}  // namespace fairlead::jinja

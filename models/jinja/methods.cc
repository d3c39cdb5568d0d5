// SPDX-License-Identifier: Apache-2.0
// Bound methods, and the methods of containers and numbers.
#include "models/jinja/methods.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "kernels/strings.h"
#include "models/jinja/status_macros.h"

namespace fairlead::jinja {
namespace {

using Result = absl::StatusOr<Value>;

class BoundMethod final : public Callable {
 public:
  BoundMethod(Value self, const Method& method) : self_(std::move(self)), method_(method) {}
  std::string_view type_name() const override { return "builtin_function_or_method"; }
  int depth() const override { return DepthOf(self_) + 1; }
  std::string Describe() const override {
    return StrCat("<built-in method ", method_.name, " of ", TypeName(self_), " object>");
  }
  absl::StatusOr<Value> Call(Runtime& runtime, Arguments& arguments) override {
    return method_.function(runtime, self_, arguments);
  }

 private:
  Value self_;
  const Method& method_;
};

template <ViewKind kView>
Result View(Runtime&, const Value& self, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("dict method"));
  return Value(std::shared_ptr<Object>(std::make_shared<DictView>(self.dict_ref(), kView)));
}

Result Get(Runtime& runtime, const Value& self, Arguments& arguments) {
  Value key, otherwise;
  JINJA_RETURN_IF_ERROR(
      arguments.Bind("get", {RequiredPositional(key), OptionalPositional(otherwise)}));
  JINJA_RETURN_IF_ERROR(CheckHashable(key));
  const Value* found = self.dict().Find(key, runtime.budget);
  return found == nullptr ? otherwise : *found;
}

// Values are immutable: the copy is the value.
Result Copy(Runtime&, const Value& self, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("copy"));
  return self;
}

Result Count(Runtime& runtime, const Value& self, Arguments& arguments) {
  Value wanted;
  JINJA_RETURN_IF_ERROR(arguments.Bind("count", {RequiredPositional(wanted)}));
  const auto count = std::count_if(self.items().begin(), self.items().end(), [&](const Value& v) {
    return Equals(v, wanted, runtime.budget);
  });
  return Value(Int{count});
}

Result Index(Runtime& runtime, const Value& self, Arguments& arguments) {
  Value wanted;
  Value start(Int{0});
  Value stop(Int{INT64_MAX});
  JINJA_RETURN_IF_ERROR(arguments.Bind(
      "index", {RequiredPositional(wanted), OptionalPositional(start), OptionalPositional(stop)}));
  JINJA_ASSIGN_OR_RETURN(Int first, IntArgument("index", start));
  JINJA_ASSIGN_OR_RETURN(Int last, IntArgument("index", stop));
  const Int size = static_cast<Int>(self.items().size());
  if (first < 0) first = std::max<Int>(0, first + size);
  if (last < 0) last += size;
  for (Int i = first; i < std::min(last, size); ++i) {
    if (Equals(self.items()[static_cast<size_t>(i)], wanted, runtime.budget)) return Value(i);
  }
  return absl::InvalidArgumentError(StrCat("value is not in ", self.is_tuple() ? "tuple" : "list"));
}

Result IsInteger(Runtime&, const Value& self, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("is_integer"));
  const double value = self.as_double();
  return Value(std::isfinite(value) && std::floor(value) == value);
}

Result BitLength(Runtime&, const Value& self, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("bit_length"));
  Int value = self.as_int() < 0 ? -self.as_int() : self.as_int();
  Int bits = 0;
  for (; value > 0; value >>= 1) ++bits;
  return Value(bits);
}

// Where an integer, or a float that is equal to one, stands in a range.
std::optional<Int> PlaceIn(const Range& range, const Value& wanted) {
  if (!wanted.is_number()) return std::nullopt;
  constexpr double kExact = 9007199254740992;  // 2^53: no range reaches beyond
  const double number = wanted.as_double();
  if (wanted.is_float() && (std::abs(number) > kExact || number != std::floor(number)))
    return std::nullopt;
  const Int value = wanted.is_float() ? static_cast<Int>(number) : wanted.as_int();
  if (!range.Contains(value)) return std::nullopt;
  return (value - range.start()) / range.step();
}

Result RangeCount(Runtime&, const Value& self, Arguments& arguments) {
  Value wanted;
  JINJA_RETURN_IF_ERROR(arguments.Bind("count", {RequiredPositional(wanted)}));
  return Value(Int{PlaceIn(*self.As<Range>(), wanted) ? 1 : 0});
}

Result RangeIndex(Runtime&, const Value& self, Arguments& arguments) {
  Value wanted;
  JINJA_RETURN_IF_ERROR(arguments.Bind("index", {RequiredPositional(wanted)}));
  const std::optional<Int> place = PlaceIn(*self.As<Range>(), wanted);
  if (!place) return absl::InvalidArgumentError("value is not in range");
  return Value(*place);
}

constexpr Method kDictMethods[] = {{"copy", Copy},
                                   {"get", Get},
                                   {"items", View<ViewKind::kItems>},
                                   {"keys", View<ViewKind::kKeys>},
                                   {"values", View<ViewKind::kValues>}};
constexpr Method kListMethods[] = {{"copy", Copy}, {"count", Count}, {"index", Index}};
constexpr Method kTupleMethods[] = {{"count", Count}, {"index", Index}};
constexpr Method kRangeMethods[] = {{"count", RangeCount}, {"index", RangeIndex}};
constexpr Method kFloatMethods[] = {{"is_integer", IsInteger}};
constexpr Method kIntMethods[] = {{"bit_length", BitLength}};

template <size_t kSize>
const Method* FindIn(const Method (&methods)[kSize], std::string_view name) {
  const auto* found = std::find_if(std::begin(methods), std::end(methods),
                                   [name](const Method& method) { return method.name == name; });
  return found == std::end(methods) ? nullptr : found;
}

}  // namespace

const Method* FindContainerMethod(const Value& object, std::string_view name) {
  switch (object.kind()) {
    case Kind::kDict:
      return FindIn(kDictMethods, name);
    case Kind::kList:
      return FindIn(kListMethods, name);
    case Kind::kTuple:
      return FindIn(kTupleMethods, name);
    case Kind::kFloat:
      return FindIn(kFloatMethods, name);
    case Kind::kInt:
    case Kind::kBool:
      return FindIn(kIntMethods, name);
    default:
      return object.As<Range>() != nullptr ? FindIn(kRangeMethods, name) : nullptr;
  }
}

std::optional<Value> FindMethod(Runtime& runtime, const Value& object, std::string_view name) {
  const Method* method =
      object.is_string() ? FindStringMethod(name) : FindContainerMethod(object, name);
  if (method == nullptr) return std::nullopt;
  if (DepthOf(object) >= runtime.budget.max_value_depth()) {
    runtime.budget.Fail("a value is nested too deeply");
    return std::nullopt;
  }
  return Value(std::shared_ptr<Object>(std::make_shared<BoundMethod>(object, *method)));
}

bool IsMutatingMethod(const Value& object, std::string_view name) {
  const auto is_one_of = [name](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (object.is_dict()) return is_one_of({"clear", "pop", "popitem", "setdefault", "update"});
  return object.is_list() &&
         is_one_of({"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"});
}

}  // namespace fairlead::jinja

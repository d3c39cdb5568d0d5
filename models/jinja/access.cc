// SPDX-License-Identifier: Apache-2.0
// Attributes, subscripts and slices.
#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "kernels/strings.h"
#include "models/jinja/methods.h"
#include "models/jinja/operators.h"
#include "models/jinja/status_macros.h"
#include "models/jinja/unicode.h"

namespace fairlead::jinja {
namespace {

// Attributes that every Python object, or one of the builtin types, has besides methods: the
// sandbox answers Undefined for them before it looks for a key of that name.
bool IsHiddenAttribute(std::string_view name) {
  static constexpr std::array<std::string_view, 52> kNames = {"__add__",
                                                              "__class__",
                                                              "__class_getitem__",
                                                              "__contains__",
                                                              "__delattr__",
                                                              "__delitem__",
                                                              "__dict__",
                                                              "__dir__",
                                                              "__doc__",
                                                              "__eq__",
                                                              "__format__",
                                                              "__ge__",
                                                              "__getattribute__",
                                                              "__getitem__",
                                                              "__getnewargs__",
                                                              "__getstate__",
                                                              "__gt__",
                                                              "__hash__",
                                                              "__iadd__",
                                                              "__imul__",
                                                              "__init__",
                                                              "__init_subclass__",
                                                              "__ior__",
                                                              "__iter__",
                                                              "__le__",
                                                              "__len__",
                                                              "__lt__",
                                                              "__mod__",
                                                              "__module__",
                                                              "__mul__",
                                                              "__ne__",
                                                              "__new__",
                                                              "__or__",
                                                              "__reduce__",
                                                              "__reduce_ex__",
                                                              "__repr__",
                                                              "__reversed__",
                                                              "__rmod__",
                                                              "__rmul__",
                                                              "__ror__",
                                                              "__setattr__",
                                                              "__setitem__",
                                                              "__sizeof__",
                                                              "__str__",
                                                              "__subclasshook__",
                                                              "__abs__",
                                                              "__bool__",
                                                              "__int__",
                                                              "__float__",
                                                              "__call__",
                                                              "__self__",
                                                              "__func__"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

// What Python's getattr finds, or nothing. Undefined for what the sandbox hides.
absl::StatusOr<std::optional<Value>> FindAttribute(Runtime& runtime, const Value& object,
                                                   std::string_view name) {
  if (const auto* space = object.As<Namespace>()) {
    constexpr size_t kWorkPerAttribute = 16;
    runtime.budget.Work(kWorkPerAttribute * space->attributes().size());
    const Value* found = space->Find(name);
    if (found == nullptr) return std::nullopt;
    if (!name.empty() && name.front() == '_') return Undefined::Unsafe(object, name);
    return *found;
  }
  if (!name.empty() && name.front() == '_') {
    if (!IsHiddenAttribute(name)) return std::nullopt;
    return Undefined::Unsafe(object, name);
  }
  if (object.is_object()) {
    if (auto* with = dynamic_cast<WithAttributes*>(&object.object())) {
      return with->Attribute(runtime, name);
    }
  }
  if (object.is_tuple() && object.list().group) {
    if (name == "grouper") return object.items()[0];
    if (name == "list") return object.items()[1];
  }
  if (object.is_number()) {
    if (name == "real") return object.is_bool() ? Value(object.as_int()) : object;
    if (name == "imag") return object.is_float() ? Value(0.0) : Value(Int{0});
  }
  if (IsMutatingMethod(object, name)) return Undefined::Unsafe(object, name);
  return FindMethod(runtime, object, name);
}

// A Python index into `size` elements, or nothing if it is out of range.
std::optional<int64_t> ElementIndex(Int index, int64_t size) {
  if (index < 0) index += size;
  if (index < 0 || index >= size) return std::nullopt;
  return static_cast<int64_t>(index);
}

// The byte at which code point `index` (<= length) begins.
size_t ByteOf(const String& string, size_t index, Budget& budget) {
  if (string.ascii()) return index;
  budget.Work(string.text.size());
  size_t byte = 0;
  for (; index > 0; --index) byte += DecodeAt(string.text.bytes(), byte).size;
  return byte;
}

Value CharacterAt(const Value& value, int64_t index, Budget& budget) {
  const String& string = value.string();
  const size_t begin = ByteOf(string, static_cast<size_t>(index), budget);
  TextBuilder builder(budget);
  builder.Append(string.text, begin, begin + DecodeAt(string.text.bytes(), begin).size);
  return NewString(std::move(builder), string.markup);
}

// What Python's object[index] gives, or nothing where it raises a TypeError or LookupError.
absl::StatusOr<std::optional<Value>> FindItem(Runtime& runtime, const Value& object,
                                              const Value& index) {
  if (const auto* undefined = object.As<Undefined>()) return undefined->Error();
  if (object.is_dict()) {
    if (!CheckHashable(index).ok()) return std::nullopt;
    const Value* found = object.dict().Find(index, runtime.budget);
    if (found == nullptr) return std::nullopt;
    return *found;
  }
  if (!index.is_integral()) return std::nullopt;
  const std::optional<int64_t> size = Length(object);
  if (!size || object.As<DictView>() != nullptr) return std::nullopt;
  const std::optional<int64_t> at = ElementIndex(index.as_int(), *size);
  if (!at) return std::nullopt;
  if (object.is_string()) return CharacterAt(object, *at, runtime.budget);
  if (object.is_sequence()) return object.items()[static_cast<size_t>(*at)];
  return Value(object.As<Range>()->At(*at));
}

// Python's slice.indices().
struct SliceBounds {
  Int start, stop, step;
  int64_t count;
};

absl::StatusOr<std::optional<Int>> SliceNumber(const Value& value) {
  if (value.is_none()) return std::nullopt;
  if (value.is_integral()) return value.as_int();
  if (const auto* undefined = value.As<Undefined>()) return undefined->Error();
  return TypeError("slice indices must be integers or None or have an __index__ method");
}

absl::StatusOr<SliceBounds> BoundsOf(const Value& start, const Value& stop, const Value& step,
                                     int64_t size) {
  JINJA_ASSIGN_OR_RETURN(const std::optional<Int> given_step, SliceNumber(step));
  JINJA_ASSIGN_OR_RETURN(const std::optional<Int> given_start, SliceNumber(start));
  JINJA_ASSIGN_OR_RETURN(const std::optional<Int> given_stop, SliceNumber(stop));
  const Int stride = given_step.value_or(1);
  if (stride == 0) return TypeError("slice step cannot be zero");
  const Int lowest = stride > 0 ? 0 : -1;
  const Int highest = stride > 0 ? size : size - 1;
  const auto clamp = [&](const std::optional<Int>& given, Int otherwise) {
    if (!given) return otherwise;
    return std::clamp<Int>(*given < 0 ? *given + size : *given, lowest, highest);
  };
  SliceBounds bounds;
  bounds.step = stride;
  bounds.start = clamp(given_start, stride > 0 ? lowest : highest);
  bounds.stop = clamp(given_stop, stride > 0 ? highest : lowest);
  bounds.count = Range(bounds.start, bounds.stop, stride).size();
  return bounds;
}

Value SliceString(const Value& value, const SliceBounds& bounds, Budget& budget) {
  const String& string = value.string();
  TextBuilder builder(budget);
  if (bounds.count > 0 && bounds.step == 1) {
    const size_t begin = ByteOf(string, static_cast<size_t>(bounds.start), budget);
    const size_t end = ByteOf(string, static_cast<size_t>(bounds.stop), budget);
    builder.Append(string.text, begin, end);
    return NewString(std::move(builder), string.markup);
  }
  // Where each code point begins, so that steps need no second look.
  std::vector<size_t> begins;
  budget.Step(static_cast<int64_t>(string.length));
  if (!budget.ok()) return Value();
  for (size_t at = 0; at < string.text.size(); at += DecodeAt(string.text.bytes(), at).size) {
    begins.push_back(at);
  }
  begins.push_back(string.text.size());
  for (int64_t i = 0; i < bounds.count && budget.ok(); ++i) {
    const size_t at = static_cast<size_t>(bounds.start + bounds.step * i);
    builder.Append(string.text, begins[at], begins[at + 1]);
  }
  return NewString(std::move(builder), string.markup);
}

}  // namespace

absl::StatusOr<Value> GetAttribute(Runtime& runtime, const Value& object, std::string_view name,
                                   const Value& name_value) {
  if (const auto* undefined = object.As<Undefined>()) {
    if (IsHiddenAttribute(name)) return Undefined::Unsafe(object, name);
    return undefined->Error();
  }
  JINJA_ASSIGN_OR_RETURN(const std::optional<Value> attribute,
                         FindAttribute(runtime, object, name));
  if (attribute) return *attribute;
  if (object.is_dict()) {
    if (const Value* found = object.dict().Find(name)) return *found;
  }
  return Undefined::Of(object, name_value, runtime.budget);
}

absl::StatusOr<Value> GetItem(Runtime& runtime, const Value& object, const Value& index) {
  JINJA_ASSIGN_OR_RETURN(const std::optional<Value> item, FindItem(runtime, object, index));
  if (item) return *item;
  if (index.is_string()) {
    JINJA_ASSIGN_OR_RETURN(const std::optional<Value> attribute,
                           FindAttribute(runtime, object, index.text().bytes()));
    if (attribute) return *attribute;
  }
  return Undefined::Of(object, index, runtime.budget);
}

absl::StatusOr<Value> GetSlice(Runtime& runtime, const Value& object, const Value& start,
                               const Value& stop, const Value& step) {
  if (const auto* undefined = object.As<Undefined>()) return undefined->Error();
  const auto* range = object.As<Range>();
  if (!object.is_string() && !object.is_sequence() && range == nullptr) {
    return TypeError(StrCat("'", TypeName(object), "' object is not subscriptable"));
  }
  JINJA_ASSIGN_OR_RETURN(const SliceBounds bounds,
                         BoundsOf(start, stop, step, Length(object).value_or(0)));
  if (object.is_string()) return SliceString(object, bounds, runtime.budget);
  if (range != nullptr) {
    const Int first = range->start() + range->step() * bounds.start;
    const Int last = range->start() + range->step() * bounds.stop;
    return Value(
        std::shared_ptr<Object>(std::make_shared<Range>(first, last, range->step() * bounds.step)));
  }
  ListBuilder builder(runtime.budget);
  for (int64_t i = 0; i < bounds.count && runtime.budget.ok(); ++i) {
    builder.Push(object.items()[static_cast<size_t>(bounds.start + bounds.step * i)]);
  }
  return object.is_tuple() ? builder.FinishTuple() : builder.FinishList();
}

}  // namespace fairlead::jinja

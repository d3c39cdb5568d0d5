// SPDX-License-Identifier: Apache-2.0
#include "models/jinja/value.h"

#include <algorithm>
#include <cmath>

#include "absl/hash/hash.h"
#include "kernels/check.h"
#include "kernels/strings.h"
#include "models/jinja/objects.h"
#include "models/jinja/status_macros.h"
#include "models/jinja/unicode.h"

namespace fairlead::jinja {

Kind Value::kind() const {
  switch (data_.index()) {
    case 0:
      return Kind::kNone;
    case 1:
      return Kind::kMissing;
    case 2:
      return Kind::kBool;
    case 3:
      return Kind::kInt;
    case 4:
      return Kind::kFloat;
    case 5:
      return Kind::kString;
    case 6:
      return list().tuple ? Kind::kTuple : Kind::kList;
    case 7:
      return Kind::kDict;
    default:
      return Kind::kObject;
  }
}

bool Value::is_undefined() const { return As<Undefined>() != nullptr; }

double Value::as_double() const {
  return is_float() ? std::get<double>(data_) : static_cast<double>(as_int());
}

const Text& Value::text() const { return string().text; }
const std::vector<Value>& Value::items() const { return list().items; }

bool Value::SameAs(const Value& other) const {
  if (data_.index() != other.data_.index()) return false;
  switch (data_.index()) {
    case 0:
    case 1:
      return true;
    case 4:
      return as_double() == other.as_double();
    default:
      // Shared pointers compare by address; equal integers and booleans count as one object.
      return std::visit(
          [&other](const auto& mine) {
            using T = std::decay_t<decltype(mine)>;
            if constexpr (std::is_same_v<T, None> || std::is_same_v<T, Missing>) {
              return true;
            } else {
              return mine == std::get<T>(other.data_);
            }
          },
          data_);
  }
}

Value NewString(Text text, MemoryCharge charge, bool markup) {
  auto string = std::make_shared<String>();
  string->length = CountCodePoints(text.bytes());
  string->text = std::move(text);
  string->markup = markup;
  string->charge = std::move(charge);
  return Value(std::shared_ptr<const String>(std::move(string)));
}

Value NewString(TextBuilder builder, bool markup) {
  MemoryCharge charge = builder.TakeCharge();
  charge.Grow(sizeof(String));
  return NewString(builder.TakeText(), std::move(charge), markup);
}

Value NewTrusted(std::string_view text, Budget& budget) {
  TextBuilder builder(budget);
  builder.Append(text, true);
  return NewString(std::move(builder));
}

int DepthOf(const Value& value) {
  if (value.is_sequence()) return value.list().depth;
  if (value.is_dict()) return value.dict().depth();
  return value.is_object() ? value.object().depth() : 0;
}

namespace {
// Fails the budget when `depth` is more than a value may have.
int CheckedDepth(int depth, Budget& budget) {
  if (depth > budget.max_value_depth()) {
    budget.Fail(StrCat("a value is nested deeper than ", budget.max_value_depth(), " levels"));
  }
  return depth;
}
}  // namespace

void ListBuilder::Push(Value value) {
  if (budget_->Step() && charge_.Grow(sizeof(Value))) items_.push_back(std::move(value));
}

std::shared_ptr<List> ListBuilder::Build() {
  charge_.Grow(sizeof(List));
  auto list = std::make_shared<List>();
  int depth = 0;
  list->hashable = true;
  for (const Value& item : items_) {
    depth = std::max(depth, DepthOf(item));
    list->hashable = list->hashable && CheckHashable(item).ok();
  }
  list->depth = CheckedDepth(depth + 1, *budget_);
  // Too deep a value would not die safely; the rendering fails at its next node anyway.
  if (budget_->ok()) list->items = std::move(items_);
  list->charge = std::move(charge_);
  return list;
}

Value ListBuilder::Finish(bool tuple) {
  std::shared_ptr<List> list = Build();
  list->tuple = tuple;
  return Value(std::shared_ptr<const List>(std::move(list)));
}

Value ListBuilder::FinishGroup() {
  std::shared_ptr<List> list = Build();
  list->tuple = true;
  list->group = true;
  return Value(std::shared_ptr<const List>(std::move(list)));
}

Value NewTuple(std::initializer_list<Value> items, Budget& budget) {
  ListBuilder builder(budget);
  for (const Value& item : items) builder.Push(item);
  return builder.FinishTuple();
}

template <typename Same>
uint32_t Dict::FindEntry(size_t hash, Same same) const {
  if (heads_.empty()) {
    for (uint32_t i = 0; i < entries_.size(); ++i) {
      if (same(entries_[i].first)) return i;
    }
    return kNone;
  }
  const auto head = heads_.find(hash);
  uint32_t i = head == heads_.end() ? kNone : head->second;
  while (i != kNone && !same(entries_[i].first)) i = next_[i];
  return i;
}

const Value* Dict::Find(const Value& key, Budget& budget) const {
  if (key.is_string()) {
    budget.Work(key.text().size() * (heads_.empty() ? entries_.size() : 1));
    return Find(key.text().bytes());
  }
  const size_t hash = heads_.empty() ? 0 : HashOf(key, budget);
  const uint32_t found =
      FindEntry(hash, [&](const Value& other) { return Equals(key, other, budget); });
  return found == kNone ? nullptr : &entries_[found].second;
}

const Value* Dict::Find(std::string_view key) const {
  const size_t hash = heads_.empty() ? 0 : absl::HashOf(key);
  const uint32_t found = FindEntry(
      hash, [key](const Value& other) { return other.is_string() && other.text().bytes() == key; });
  return found == kNone ? nullptr : &entries_[found].second;
}

void Dict::IndexLast(Budget& budget) {
  const auto index_one = [&](uint32_t i) {
    auto [head, inserted] = heads_.try_emplace(HashOf(entries_[i].first, budget), i);
    next_.push_back(inserted ? kNone : std::exchange(head->second, i));
  };
  if (entries_.size() < kIndexFrom) return;
  if (entries_.size() == kIndexFrom) {
    for (uint32_t i = 0; i + 1 < kIndexFrom; ++i) index_one(i);
  }
  index_one(static_cast<uint32_t>(entries_.size() - 1));
}

DictBuilder::DictBuilder(Budget& budget) : budget_(&budget), dict_(std::make_shared<Dict>()) {
  dict_->charge_ = MemoryCharge(&budget);
  dict_->charge_.Grow(sizeof(Dict));
}

void DictBuilder::Set(Value key, Value value) {
  // An indexed entry costs about twice its size.
  if (!budget_->Step() || !dict_->charge_.Grow(2 * sizeof(Dict::Entry))) return;
  const int depth = 1 + std::max(DepthOf(key), DepthOf(value));
  if (CheckedDepth(depth, *budget_) > budget_->max_value_depth()) return;
  dict_->depth_ = std::max(dict_->depth_, depth);
  if (const Value* existing = dict_->Find(key, *budget_)) {
    *const_cast<Value*>(existing) = std::move(value);
    return;
  }
  dict_->entries_.emplace_back(std::move(key), std::move(value));
  dict_->IndexLast(*budget_);
}

Value DictBuilder::Finish() { return Value(std::shared_ptr<const Dict>(std::move(dict_))); }

std::string_view TypeName(const Value& value) {
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return value.string().markup ? "Markup" : "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kObject:
      return value.object().type_name();
  }
  return "object";
}

bool IsTrue(const Value& value) {
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return value.as_bool();
    case Kind::kInt:
      return value.as_int() != 0;
    case Kind::kFloat:
      return value.as_double() != 0;
    case Kind::kString:
      return !value.text().empty();
    case Kind::kList:
    case Kind::kTuple:
      return !value.items().empty();
    case Kind::kDict:
      return !value.dict().entries().empty();
    case Kind::kObject:
      return Length(value).value_or(1) != 0;
  }
  return false;
}

namespace {

bool NumbersEqual(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.as_int() == b.as_int();
  if (a.is_float() && b.is_float()) return a.as_double() == b.as_double();
  // Every value of Int and of double is exact in the 64-bit significand of long double.
  const Value& integer = a.is_integral() ? a : b;
  const Value& real = a.is_integral() ? b : a;
  return static_cast<long double>(integer.as_int()) == static_cast<long double>(real.as_double());
}

bool ListsEqual(const std::vector<Value>& a, const std::vector<Value>& b, Budget& budget) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!Equals(a[i], b[i], budget)) return false;
  }
  return true;
}

bool DictsEqual(const Dict& a, const Dict& b, Budget& budget) {
  if (a.entries().size() != b.entries().size()) return false;
  return std::all_of(a.entries().begin(), a.entries().end(), [&](const Dict::Entry& entry) {
    const Value* other = b.Find(entry.first, budget);
    return other != nullptr && Equals(entry.second, *other, budget);
  });
}

bool ObjectsEqual(const Value& a, const Value& b) {
  if (&a.object() == &b.object()) return true;
  if (a.is_undefined()) return b.is_undefined();
  const auto* left = a.As<Range>();
  const auto* right = b.As<Range>();
  if (left == nullptr || right == nullptr || left->size() != right->size()) return false;
  if (left->size() == 0) return true;
  return left->At(0) == right->At(0) && (left->size() == 1 || left->step() == right->step());
}

}  // namespace

bool Equals(const Value& a, const Value& b, Budget& budget) {
  if (!budget.Step()) return false;
  if (a.is_number() && b.is_number()) return NumbersEqual(a, b);
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kString:
      if (&a.string() == &b.string()) return true;
      if (a.text().size() != b.text().size()) return false;
      budget.Work(a.text().size());
      return a.text().bytes() == b.text().bytes();
    case Kind::kList:
    case Kind::kTuple:
      return &a.list() == &b.list() || ListsEqual(a.items(), b.items(), budget);
    case Kind::kDict:
      return &a.dict() == &b.dict() || DictsEqual(a.dict(), b.dict(), budget);
    case Kind::kObject:
      return ObjectsEqual(a, b);
    default:
      return true;  // None
  }
}

namespace {

absl::StatusOr<std::partial_ordering> OrderLists(const std::vector<Value>& a,
                                                 const std::vector<Value>& b,
                                                 std::string_view operation, Budget& budget) {
  const size_t common = std::min(a.size(), b.size());
  for (size_t i = 0; i < common; ++i) {
    if (!Equals(a[i], b[i], budget)) return Order(a[i], b[i], operation, budget);
  }
  return std::partial_ordering(a.size() <=> b.size());
}

}  // namespace

absl::StatusOr<std::partial_ordering> Order(const Value& a, const Value& b,
                                            std::string_view operation, Budget& budget) {
  budget.Step();
  if (a.is_integral() && b.is_integral()) return std::partial_ordering(a.as_int() <=> b.as_int());
  if (a.is_number() && b.is_number()) {
    const auto wide = [](const Value& value) {
      return value.is_float() ? static_cast<long double>(value.as_double())
                              : static_cast<long double>(value.as_int());
    };
    return wide(a) <=> wide(b);
  }
  if (a.is_string() && b.is_string()) {
    budget.Work(std::min(a.text().size(), b.text().size()));
    // The order of UTF-8 bytes is the order of code points.
    return std::partial_ordering(a.text().bytes().compare(b.text().bytes()) <=> 0);
  }
  if (a.is_sequence() && a.kind() == b.kind()) {
    return OrderLists(a.items(), b.items(), operation, budget);
  }
  if (const auto* undefined = a.As<Undefined>()) return undefined->Error();
  if (const auto* undefined = b.As<Undefined>()) return undefined->Error();
  return TypeError(StrCat("'", operation, "' not supported between instances of '", TypeName(a),
                          "' and '", TypeName(b), "'"));
}

absl::Status CheckHashable(const Value& value) {
  if (value.is_list() || value.is_dict()) {
    return TypeError(StrCat("unhashable type: '", TypeName(value), "'"));
  }
  if (value.is_tuple() && !value.list().hashable) {
    return TypeError("unhashable type: a tuple that holds a list or dict");
  }
  return absl::OkStatus();
}

size_t HashOf(const Value& value, Budget& budget) {
  if (!budget.Step()) return 0;
  switch (value.kind()) {
    case Kind::kBool:
    case Kind::kInt:
      return absl::HashOf(static_cast<uint64_t>(value.as_int()));
    case Kind::kFloat: {
      const double real = value.as_double();
      const bool integral = std::floor(real) == real && std::abs(real) < 1e18;
      if (integral) return absl::HashOf(static_cast<uint64_t>(static_cast<int64_t>(real)));
      return absl::HashOf(real);
    }
    case Kind::kString:
      budget.Work(value.text().size());
      return absl::HashOf(std::string_view(value.text().bytes()));
    case Kind::kTuple: {
      size_t hash = value.items().size();
      for (const Value& item : value.items()) hash = absl::HashOf(hash, HashOf(item, budget));
      return hash;
    }
    case Kind::kObject:
      return value.is_undefined() ? 1 : absl::HashOf(&value.object());
    default:
      return 0;
  }
}

absl::Status TypeError(std::string message) { return absl::InvalidArgumentError(message); }

}  // namespace fairlead::jinja

// SPDX-License-Identifier: Apache-2.0
// The values a template computes with, with Python's meaning. Values are immutable and shared,
// except the few objects that Jinja lets change (namespaces, iterators, cyclers, loops), which are
// retained by the Runtime until the rendering ends, so that no chain of them can recurse in a
// destructor.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "models/jinja/budget.h"
#include "models/jinja/text.h"

namespace fairlead::jinja {

class Dict;
class Object;
struct List;
struct String;

// Values lie in [-2^63, 2^64): what JSON integers hold. The wider type makes the overflow checks
// plain.
using Int = __int128;
inline constexpr Int kMinInt = INT64_MIN;
inline constexpr Int kMaxInt = UINT64_MAX;

enum class Kind { kMissing, kNone, kBool, kInt, kFloat, kString, kList, kTuple, kDict, kObject };

class Value {
 public:
  struct None {};
  // A name that is not bound: never visible to a template, which sees an Undefined object instead.
  struct Missing {};

  Value() : data_(None{}) {}
  explicit Value(Missing missing) : data_(missing) {}
  explicit Value(bool value) : data_(value) {}
  explicit Value(Int value) : data_(value) {}
  explicit Value(double value) : data_(value) {}
  explicit Value(std::shared_ptr<const String> value) : data_(std::move(value)) {}
  explicit Value(std::shared_ptr<const List> value) : data_(std::move(value)) {}
  explicit Value(std::shared_ptr<const Dict> value) : data_(std::move(value)) {}
  explicit Value(std::shared_ptr<Object> value) : data_(std::move(value)) {}

  Kind kind() const;
  bool is_missing() const { return std::holds_alternative<Missing>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_int() const { return std::holds_alternative<Int>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_string() const { return std::holds_alternative<std::shared_ptr<const String>>(data_); }
  bool is_sequence() const { return std::holds_alternative<std::shared_ptr<const List>>(data_); }
  bool is_list() const { return kind() == Kind::kList; }
  bool is_tuple() const { return kind() == Kind::kTuple; }
  bool is_dict() const { return std::holds_alternative<std::shared_ptr<const Dict>>(data_); }
  bool is_object() const { return std::holds_alternative<std::shared_ptr<Object>>(data_); }
  bool is_undefined() const;
  // Python's isinstance(x, int): bool is an int.
  bool is_integral() const { return is_int() || is_bool(); }
  bool is_number() const { return is_integral() || is_float(); }

  bool as_bool() const { return std::get<bool>(data_); }
  // Requires is_integral().
  Int as_int() const { return is_bool() ? Int{as_bool()} : std::get<Int>(data_); }
  // Requires is_number().
  double as_double() const;
  const String& string() const { return *std::get<std::shared_ptr<const String>>(data_); }
  const Text& text() const;
  const List& list() const { return *std::get<std::shared_ptr<const List>>(data_); }
  const std::vector<Value>& items() const;
  const Dict& dict() const { return *std::get<std::shared_ptr<const Dict>>(data_); }
  const std::shared_ptr<const Dict>& dict_ref() const {
    return std::get<std::shared_ptr<const Dict>>(data_);
  }
  Object& object() const { return *std::get<std::shared_ptr<Object>>(data_); }
  const std::shared_ptr<Object>& object_ref() const {
    return std::get<std::shared_ptr<Object>>(data_);
  }
  // The object if it is a T, else null.
  template <typename T>
  T* As() const {
    return is_object() ? dynamic_cast<T*>(&object()) : nullptr;
  }
  // Python's `is`.
  bool SameAs(const Value& other) const;

 private:
  std::variant<None, Missing, bool, Int, double, std::shared_ptr<const String>,
               std::shared_ptr<const List>, std::shared_ptr<const Dict>, std::shared_ptr<Object>>
      data_;
};

struct String {
  Text text;
  size_t length = 0;    // code points
  bool markup = false;  // made by `safe` or `escape`: what is added to it is escaped
  MemoryCharge charge;

  bool ascii() const { return length == text.size(); }
};

struct List {
  std::vector<Value> items;
  bool tuple = false;
  bool group = false;     // groupby's named tuple (grouper, list)
  bool hashable = false;  // a tuple of hashable items
  int depth = 1;          // levels of containers, this one included
  MemoryCharge charge;
};

// Insertion-ordered. Frozen once built.
class Dict {
 public:
  using Entry = std::pair<Value, Value>;

  const std::vector<Entry>& entries() const { return entries_; }
  const Value* Find(const Value& key, Budget& budget) const;
  const Value* Find(std::string_view key) const;
  int depth() const { return depth_; }

 private:
  friend class DictBuilder;
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr size_t kIndexFrom = 9;  // smaller dicts are searched through

  template <typename Same>
  uint32_t FindEntry(size_t hash, Same same) const;
  void IndexLast(Budget& budget);

  std::vector<Entry> entries_;
  absl::flat_hash_map<size_t, uint32_t> heads_;  // hash -> the latest entry with it
  std::vector<uint32_t> next_;                   // entry -> an earlier one with the same hash
  int depth_ = 1;
  MemoryCharge charge_;
};

// What has identity or behaviour rather than contents. Subclasses are in objects.h.
class Object {
 public:
  virtual ~Object() = default;
  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  // Python's name for its type: what error messages print.
  virtual std::string_view type_name() const = 0;
  virtual bool callable() const { return false; }
  // Containers this object keeps alive; 0 for those the Runtime retains.
  virtual int depth() const { return 0; }
  // Drops every reference to other values: how cycles of retained objects end.
  virtual void Clear() {}
};

Value NewString(Text text, MemoryCharge charge = {}, bool markup = false);
Value NewString(TextBuilder builder, bool markup = false);
// Text of this program or of the template.
Value NewTrusted(std::string_view text, Budget& budget);

// Collects items within the budget, a step each.
class ListBuilder {
 public:
  explicit ListBuilder(Budget& budget) : budget_(&budget), charge_(&budget) {}
  void Push(Value value);
  size_t size() const { return items_.size(); }
  Value FinishList() { return Finish(false); }
  Value FinishTuple() { return Finish(true); }
  Value FinishGroup();

 private:
  std::shared_ptr<List> Build();
  Value Finish(bool tuple);

  Budget* budget_;
  MemoryCharge charge_;
  std::vector<Value> items_;
};

Value NewTuple(std::initializer_list<Value> items, Budget& budget);

class DictBuilder {
 public:
  explicit DictBuilder(Budget& budget);
  // Adds or replaces, keeping the place of the first. `key` must be hashable.
  void Set(Value key, Value value);
  Value Finish();

 private:
  Budget* budget_;
  std::shared_ptr<Dict> dict_;
};

// Levels of containers in `value`; 0 for scalars.
int DepthOf(const Value& value);
// Python's type(value).__name__.
std::string_view TypeName(const Value& value);

bool IsTrue(const Value& value);
// ==. Never fails; work is charged to the budget.
bool Equals(const Value& a, const Value& b, Budget& budget);
// How a stands to b; an error, naming `operation`, where Python raises TypeError.
absl::StatusOr<std::partial_ordering> Order(const Value& a, const Value& b,
                                            std::string_view operation, Budget& budget);
// An error for lists and dicts, and tuples of them.
absl::Status CheckHashable(const Value& value);
size_t HashOf(const Value& value, Budget& budget);

absl::Status TypeError(std::string message);

}  // namespace fairlead::jinja

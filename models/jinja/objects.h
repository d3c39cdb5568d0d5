// SPDX-License-Identifier: Apache-2.0
// The values with behaviour: undefined, callables, namespaces, iterators, ranges, dict views.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "models/chat_template.h"
#include "models/jinja/value.h"

namespace fairlead::jinja {

struct Arguments;

// One rendering's state that filters, methods and functions need.
struct Runtime {
  Runtime(const ChatTemplateLimits& limits, absl::Time time)
      : budget(limits), now(time), retained_charge(&budget) {}
  ~Runtime();

  // Keeps a mutable object until the rendering ends.
  void Retain(std::shared_ptr<Object> object);

  Budget budget;  // first: everything else is charged to it
  absl::Time now;
  std::vector<std::shared_ptr<Object>> retained;
  MemoryCharge retained_charge;
};

// jinja2's default Undefined: prints as "", is false, iterates as empty; anything else is an error.
class Undefined final : public Object {
 public:
  // A name that is not there.
  explicit Undefined(std::string name) : name_(std::move(name)) {}
  // `hint` is the whole message.
  static Value WithHint(std::string hint);
  static Value Named(std::string name);
  // An attribute or element that `owner` does not have.
  static Value Of(const Value& owner, const Value& name, Budget& budget);
  // An attribute the sandbox hides.
  static Value Unsafe(const Value& owner, std::string_view name);

  std::string_view type_name() const override { return "Undefined"; }
  absl::Status Error() const;

 private:
  std::string name_;
  std::string hint_;
};

// Something with elements one after the other.
class Iterator : public Object {
 public:
  // False: no more. The iterator may be asked again.
  virtual absl::StatusOr<bool> Next(Value& out) = 0;
  // Number of elements if Python's len() of the iterated value works; counts from the start.
  virtual std::optional<int64_t> SourceLength() const { return std::nullopt; }
};

// A Python generator or iterator as a value: a template may pass it on and use it up.
class Generator final : public Iterator {
 public:
  // `depth` of what `source` keeps alive.
  static Value New(std::shared_ptr<Iterator> source, std::string_view type_name, Runtime& runtime);
  std::string_view type_name() const override { return type_name_; }
  int depth() const override { return source_->depth() + 1; }
  absl::StatusOr<bool> Next(Value& out) override { return source_->Next(out); }

 private:
  Generator(std::shared_ptr<Iterator> source, std::string_view type_name)
      : source_(std::move(source)), type_name_(type_name) {}
  std::shared_ptr<Iterator> source_;
  std::string_view type_name_;
};

class Namespace final : public Object {
 public:
  static Value New(std::vector<std::pair<std::string, Value>> attributes, Runtime& runtime);
  std::string_view type_name() const override { return "TemplateNamespace"; }
  void Clear() override { attributes_.clear(); }
  const Value* Find(std::string_view name) const;
  void Set(std::string_view name, Value value, Budget& budget);
  const std::vector<std::pair<std::string, Value>>& attributes() const { return attributes_; }

 private:
  explicit Namespace(Budget* budget) : charge_(budget) {}
  std::vector<std::pair<std::string, Value>> attributes_;
  MemoryCharge charge_;
};

class Range final : public Object {
 public:
  Range(Int start, Int stop, Int step);
  std::string_view type_name() const override { return "range"; }
  int64_t size() const { return size_; }
  Int At(int64_t index) const { return start_ + step_ * index; }
  Int start() const { return start_; }
  Int stop() const { return stop_; }
  Int step() const { return step_; }
  bool Contains(Int value) const;

 private:
  Int start_, stop_, step_;
  int64_t size_;
};

enum class ViewKind { kKeys, kValues, kItems };

class DictView final : public Object {
 public:
  DictView(std::shared_ptr<const Dict> dict, ViewKind kind) : dict_(std::move(dict)), kind_(kind) {}
  std::string_view type_name() const override;
  int depth() const override { return dict_->depth() + 1; }
  const Dict& dict() const { return *dict_; }
  ViewKind kind() const { return kind_; }
  size_t size() const { return dict_->entries().size(); }
  Value At(size_t index, Budget& budget) const;

 private:
  std::shared_ptr<const Dict> dict_;
  ViewKind kind_;
};

class Callable : public Object {
 public:
  bool callable() const override { return true; }
  virtual absl::StatusOr<Value> Call(Runtime& runtime, Arguments& arguments) = 0;
  // Python's repr, addresses left out.
  virtual std::string Describe() const = 0;
};

// Objects with attributes of their own (loops, cyclers, namespaces are not among them).
class WithAttributes {
 public:
  virtual ~WithAttributes() = default;
  // Nothing if there is no such attribute.
  virtual absl::StatusOr<std::optional<Value>> Attribute(Runtime& runtime,
                                                         std::string_view name) = 0;
};

// Iterates any iterable; an error as Python words it for the rest.
absl::StatusOr<std::shared_ptr<Iterator>> Iterate(const Value& value, Runtime& runtime);
// list(value), reading iterators to their end.
absl::StatusOr<std::vector<Value>> Collect(const Value& value, Runtime& runtime);
bool IsIterable(const Value& value);
// len(value), or nothing where Python has none.
std::optional<int64_t> Length(const Value& value);
// An iterator from the last element to the first, as reversed() gives; null where Python has none.
std::shared_ptr<Iterator> ReverseIterate(const Value& value, Runtime& runtime);

}  // namespace fairlead::jinja

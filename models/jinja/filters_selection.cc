// SPDX-License-Identifier: Apache-2.0
// Filters that give Python generators: nothing happens before the first element is asked for.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "kernels/strings.h"
#include "models/jinja/filters_internal.h"
#include "models/jinja/operators.h"
#include "models/jinja/status_macros.h"

namespace fairlead::jinja {
namespace {

using Result = absl::StatusOr<Value>;

// A generator over the elements of `source`; an empty source gives none without any look at the
// arguments.
class Transform : public Iterator {
 public:
  Transform(const Value& source, Arguments arguments, Runtime& runtime)
      : source_(source), arguments_(std::move(arguments)), runtime_(runtime) {
    depth_ = DepthOf(source);
    for (const Value& argument : arguments_.positional) {
      depth_ = std::max(depth_, DepthOf(argument));
    }
    for (const auto& [name, argument] : arguments_.named) {
      depth_ = std::max(depth_, DepthOf(argument));
    }
  }
  std::string_view type_name() const override { return "generator"; }
  int depth() const override { return depth_ + 1; }

  absl::StatusOr<bool> Next(Value& out) final {
    const DepthScope scope(runtime_.budget);
    if (!scope.ok()) return runtime_.budget.status();
    if (!started_) {
      started_ = true;
      if (!starts_empty_ || IsTrue(source_)) {
        JINJA_RETURN_IF_ERROR(Prepare());
        JINJA_ASSIGN_OR_RETURN(items_, Iterate(source_, runtime_));
      }
    }
    if (items_ == nullptr) return false;
    return Produce(out);
  }

 protected:
  virtual absl::Status Prepare() = 0;
  virtual absl::StatusOr<bool> Produce(Value& out) = 0;

  absl::StatusOr<bool> NextItem(Value& item) {
    if (!runtime_.budget.Step()) return runtime_.budget.status();
    return items_->Next(item);
  }

  Value source_;
  Arguments arguments_;
  Runtime& runtime_;
  bool starts_empty_ = true;  // `if value:` comes first

 private:
  std::shared_ptr<Iterator> items_;
  int depth_ = 0;
  bool started_ = false;
};

template <typename T>
Result Make(Runtime& runtime, const Value& input, Arguments& arguments) {
  return Generator::New(std::make_shared<T>(input, std::move(arguments), runtime), "generator",
                        runtime);
}

// Takes the name in front of the other positional arguments.
absl::StatusOr<std::string> TakeName(Arguments& arguments) {
  const Value name = arguments.positional.front();
  arguments.positional.erase(arguments.positional.begin());
  JINJA_ASSIGN_OR_RETURN(const Text* text, TextArgument("name", name));
  return text->bytes();
}

class Map final : public Transform {
 public:
  using Transform::Transform;

 private:
  absl::Status Prepare() override {
    if (arguments_.positional.empty()) return PrepareAttribute();
    JINJA_ASSIGN_OR_RETURN(const std::string name, TakeName(arguments_));
    filter_ = FindFilter(name);
    if (filter_ == nullptr) return TypeError(StrCat("No filter named '", name, "'."));
    return absl::OkStatus();
  }

  absl::Status PrepareAttribute() {
    Value attribute;
    bool given = false;
    for (const auto& [name, value] : arguments_.named) {
      if (name == "attribute") {
        attribute = value;
        given = true;
      } else if (name == "default") {
        otherwise_ = value;
      }
    }
    if (!given) return TypeError("map requires a filter argument");
    for (const auto& [name, value] : arguments_.named) {
      if (name != "attribute" && name != "default") {
        return TypeError(StrCat("Unexpected keyword argument '", name, "'"));
      }
    }
    JINJA_ASSIGN_OR_RETURN(getter_, AttributeGetter::Make(attribute, runtime_));
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Produce(Value& out) override {
    Value item;
    JINJA_ASSIGN_OR_RETURN(const bool more, NextItem(item));
    if (!more) return false;
    if (filter_ == nullptr) {
      JINJA_ASSIGN_OR_RETURN(out, getter_.Get(runtime_, item, otherwise_));
    } else {
      Arguments arguments = arguments_;
      JINJA_ASSIGN_OR_RETURN(out, filter_(runtime_, item, arguments));
    }
    return true;
  }

  FilterFunction filter_ = nullptr;
  AttributeGetter getter_;
  Value otherwise_;
};

template <bool kByAttribute, bool kWanted>
class Select final : public Transform {
 public:
  using Transform::Transform;

 private:
  absl::Status Prepare() override {
    if (kByAttribute) {
      if (arguments_.positional.empty()) return TypeError("Missing parameter for attribute name");
      JINJA_ASSIGN_OR_RETURN(getter_,
                             AttributeGetter::Make(arguments_.positional.front(), runtime_));
      arguments_.positional.erase(arguments_.positional.begin());
    }
    if (arguments_.positional.empty()) return absl::OkStatus();
    JINJA_ASSIGN_OR_RETURN(const std::string name, TakeName(arguments_));
    test_ = FindTest(name);
    if (test_ == nullptr) return TypeError(StrCat("No test named '", name, "'."));
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Produce(Value& out) override {
    while (true) {
      JINJA_ASSIGN_OR_RETURN(const bool more, NextItem(out));
      if (!more) return false;
      JINJA_ASSIGN_OR_RETURN(const Value tested, getter_.Get(runtime_, out));
      bool holds = IsTrue(tested);
      if (test_ != nullptr) {
        Arguments arguments = arguments_;
        JINJA_ASSIGN_OR_RETURN(holds, test_(runtime_, tested, arguments));
      }
      if (holds == kWanted) return true;
    }
  }

  TestFunction test_ = nullptr;
  AttributeGetter getter_;
};

class Unique final : public Transform {
 public:
  Unique(const Value& source, Arguments arguments, Runtime& runtime)
      : Transform(source, std::move(arguments), runtime), charge_(&runtime.budget) {
    starts_empty_ = false;
  }

 private:
  absl::Status Prepare() override {
    Value attribute;
    JINJA_RETURN_IF_ERROR(arguments_.Bind(
        "unique", {Optional("case_sensitive", case_sensitive_), Optional("attribute", attribute)}));
    JINJA_ASSIGN_OR_RETURN(getter_, AttributeGetter::Make(attribute, runtime_));
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Produce(Value& out) override {
    Budget& budget = runtime_.budget;
    while (true) {
      JINJA_ASSIGN_OR_RETURN(const bool more, NextItem(out));
      if (!more) return false;
      JINJA_ASSIGN_OR_RETURN(Value key, getter_.Get(runtime_, out));
      if (!IsTrue(case_sensitive_)) key = IgnoreCase(key, budget);
      JINJA_RETURN_IF_ERROR(CheckHashable(key));
      if (!budget.Step(2)) return budget.status();  // the table
      std::vector<Value>& same_hash = seen_[HashOf(key, budget)];
      const bool known = std::any_of(same_hash.begin(), same_hash.end(), [&](const Value& other) {
        return Equals(key, other, budget);
      });
      if (known) continue;
      if (!charge_.Grow(4 * sizeof(Value))) return budget.status();
      same_hash.push_back(std::move(key));
      return true;
    }
  }

  Value case_sensitive_{false};
  AttributeGetter getter_;
  absl::flat_hash_map<size_t, std::vector<Value>> seen_;
  MemoryCharge charge_;
};

class Batch final : public Transform {
 public:
  Batch(const Value& source, Arguments arguments, Runtime& runtime)
      : Transform(source, std::move(arguments), runtime) {
    starts_empty_ = false;
  }

 private:
  absl::Status Prepare() override {
    Value count;
    JINJA_RETURN_IF_ERROR(
        arguments_.Bind("batch", {Required("linecount", count), Optional("fill_with", fill_)}));
    JINJA_ASSIGN_OR_RETURN(size_, IntArgument("batch", count));
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Produce(Value& out) override {
    ListBuilder batch(runtime_.budget);
    if (held_) {
      batch.Push(std::move(next_));
      held_ = false;
    }
    while (true) {
      JINJA_ASSIGN_OR_RETURN(const bool more, NextItem(next_));
      if (!more) break;
      // As in jinja2, a batch is given out when the element after it comes, even an empty one of 0.
      if (static_cast<Int>(batch.size()) == size_) {
        held_ = true;
        out = batch.FinishList();
        return true;
      }
      batch.Push(std::move(next_));
    }
    if (batch.size() == 0) return false;
    for (Int i = static_cast<Int>(batch.size()); !fill_.is_none() && i < size_; ++i) {
      if (!runtime_.budget.ok()) return runtime_.budget.status();
      batch.Push(fill_);
    }
    out = batch.FinishList();
    return true;
  }

  Int size_ = 0;
  Value fill_;
  Value next_;
  bool held_ = false;
};

class Slices final : public Transform {
 public:
  Slices(const Value& source, Arguments arguments, Runtime& runtime)
      : Transform(source, std::move(arguments), runtime) {
    starts_empty_ = false;
  }

 private:
  absl::Status Prepare() override {
    Value count;
    JINJA_RETURN_IF_ERROR(
        arguments_.Bind("slice", {Required("slices", count), Optional("fill_with", fill_)}));
    JINJA_ASSIGN_OR_RETURN(slices_, IntArgument("slice", count));
    JINJA_ASSIGN_OR_RETURN(all_, Collect(source_, runtime_));
    if (slices_ == 0) return absl::InvalidArgumentError("integer division or modulo by zero");
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Produce(Value& out) override {
    if (done_ >= slices_) return false;
    const Int size = static_cast<Int>(all_.size());
    const Int each = size / slices_;
    const Int longer = size % slices_;
    const Int begin = done_ * each + std::min(done_, longer);
    const Int end = begin + each + (done_ < longer ? 1 : 0);
    ListBuilder slice(runtime_.budget);
    for (Int i = begin; i < end; ++i) slice.Push(all_[static_cast<size_t>(i)]);
    if (!fill_.is_none() && done_ >= longer) slice.Push(fill_);
    ++done_;
    if (!runtime_.budget.Step()) return runtime_.budget.status();
    out = slice.FinishList();
    return true;
  }

  Int slices_ = 0;
  Int done_ = 0;
  Value fill_;
  std::vector<Value> all_;
};

class Items final : public Transform {
 public:
  Items(const Value& source, Arguments arguments, Runtime& runtime)
      : Transform(source, std::move(arguments), runtime) {
    starts_empty_ = false;
  }

 private:
  absl::Status Prepare() override {
    JINJA_RETURN_IF_ERROR(arguments_.BindNone("items"));
    if (source_.is_undefined()) return absl::OkStatus();
    if (!source_.is_dict()) return TypeError("Can only get item pairs from a mapping.");
    const Dict& dict = source_.dict();
    size_ = dict.entries().size();
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Produce(Value& out) override {
    if (at_ >= size_) return false;
    if (!runtime_.budget.Step()) return runtime_.budget.status();
    const auto& [key, value] = source_.dict().entries()[at_++];
    out = NewTuple({key, value}, runtime_.budget);
    return true;
  }

  size_t size_ = 0;
  size_t at_ = 0;
};

constexpr FilterEntry kFilters[] = {
    {"batch", Make<Batch>},
    {"items", Make<Items>},
    {"map", Make<Map>},
    {"reject", Make<Select<false, false>>},
    {"rejectattr", Make<Select<true, false>>},
    {"select", Make<Select<false, true>>},
    {"selectattr", Make<Select<true, true>>},
    {"slice", Make<Slices>},
    {"unique", Make<Unique>},
};

}  // namespace

absl::Span<const FilterEntry> SelectionFilters() { return kFilters; }

}  // namespace fairlead::jinja

// SPDX-License-Identifier: Apache-2.0
#include "models/jinja/loop_state.h"

#include <utility>
#include <vector>

#include "kernels/strings.h"
#include "models/jinja/arguments.h"
#include "models/jinja/status_macros.h"

namespace fairlead::jinja {
namespace {

class Cycle final : public Callable {
 public:
  explicit Cycle(std::shared_ptr<LoopState> loop) : loop_(std::move(loop)) {}
  std::string_view type_name() const override { return "method"; }
  std::string Describe() const override { return "<bound method LoopContext.cycle>"; }
  absl::StatusOr<Value> Call(Runtime& runtime, Arguments& arguments) override {
    if (!arguments.named.empty()) return TypeError("cycle() takes no keyword arguments");
    if (arguments.positional.empty()) return TypeError("no items for cycling given");
    const size_t count = arguments.positional.size();
    return arguments.positional[static_cast<size_t>(loop_->index0()) % count];
  }

 private:
  std::shared_ptr<LoopState> loop_;
};

class ChangedMethod final : public Callable {
 public:
  explicit ChangedMethod(std::shared_ptr<LoopState> loop) : loop_(std::move(loop)) {}
  std::string_view type_name() const override { return "method"; }
  std::string Describe() const override { return "<bound method LoopContext.changed>"; }
  absl::StatusOr<Value> Call(Runtime& runtime, Arguments& arguments) override {
    if (!arguments.named.empty()) return TypeError("changed() takes no keyword arguments");
    return Value(loop_->Changed(arguments.positional, runtime.budget));
  }

 private:
  std::shared_ptr<LoopState> loop_;
};

class RestIterator final : public Iterator {
 public:
  explicit RestIterator(std::vector<Value> items) : items_(std::move(items)) {}
  std::string_view type_name() const override { return "list_iterator"; }
  absl::StatusOr<bool> Next(Value& out) override {
    if (at_ >= items_.size()) return false;
    out = std::move(items_[at_++]);
    return true;
  }

 private:
  std::vector<Value> items_;
  size_t at_ = 0;
};

}  // namespace

LoopState::LoopState(std::shared_ptr<Iterator> iterator, int depth0, Recurse recurse,
                     Budget* budget)
    : iterator_(std::move(iterator)),
      depth0_(depth0),
      recurse_(std::move(recurse)),
      length_(iterator_->SourceLength()),
      charge_(budget) {
  charge_.Grow(sizeof(LoopState));
}

void LoopState::Clear() {
  iterator_ = std::make_shared<RestIterator>(std::vector<Value>());
  recurse_ = nullptr;
  before_ = current_ = Value();
  after_.reset();
  last_changed_.reset();
}

std::string LoopState::Describe() const {
  return StrCat("<LoopContext ", index0_ + 1, "/", length_ ? StrCat(*length_) : "?", ">");
}

absl::StatusOr<Value> LoopState::Call(Runtime&, Arguments& arguments) {
  Value items;
  JINJA_RETURN_IF_ERROR(arguments.Bind("loop", {Required("iterable", items)}));
  if (recurse_ == nullptr)
    return TypeError("The loop must have the 'recursive' marker to be called recursively.");
  return recurse_(items, depth0_ + 1);
}

absl::StatusOr<bool> LoopState::Advance(Value& item) {
  Value next;
  if (after_) {
    next = *std::move(after_);
    after_.reset();
  } else {
    JINJA_ASSIGN_OR_RETURN(const bool more, iterator_->Next(next));
    if (!more) return false;
  }
  ++index0_;
  before_ = std::move(current_);
  current_ = next;
  item = std::move(next);
  return true;
}

absl::StatusOr<bool> LoopState::Peek() {
  if (after_) return true;
  Value next;
  JINJA_ASSIGN_OR_RETURN(const bool more, iterator_->Next(next));
  if (more) after_ = std::move(next);
  return more;
}

absl::StatusOr<int64_t> LoopState::Length(Runtime& runtime) {
  if (!length_) {
    std::vector<Value> rest;
    Value item;
    while (true) {
      JINJA_ASSIGN_OR_RETURN(const bool more, iterator_->Next(item));
      if (!more) break;
      if (!runtime.budget.Step() || !charge_.Grow(sizeof(Value))) return runtime.budget.status();
      rest.push_back(std::move(item));
    }
    length_ = static_cast<int64_t>(rest.size()) + index0_ + 1 + (after_ ? 1 : 0);
    iterator_ = std::make_shared<RestIterator>(std::move(rest));
  }
  return *length_;
}

bool LoopState::Changed(const std::vector<Value>& values, Budget& budget) {
  bool same = last_changed_ && last_changed_->size() == values.size();
  for (size_t i = 0; same && i < values.size(); ++i) {
    same = Equals((*last_changed_)[i], values[i], budget);
  }
  if (!same) last_changed_ = values;
  return !same;
}

absl::StatusOr<std::optional<Value>> LoopState::LengthAttribute(Runtime& runtime,
                                                                std::string_view name) {
  const bool from_end = name == "revindex" || name == "revindex0";
  if (name != "length" && !from_end) return std::nullopt;
  JINJA_ASSIGN_OR_RETURN(int64_t value, Length(runtime));
  if (from_end) value -= name == "revindex" ? index0_ : index0_ + 1;
  return Value(Int{value});
}

absl::StatusOr<std::optional<Value>> LoopState::Attribute(Runtime& runtime, std::string_view name) {
  if (name == "index") return Value(Int{index0_ + 1});
  if (name == "index0") return Value(Int{index0_});
  if (name == "first") return Value(index0_ == 0);
  if (name == "depth") return Value(Int{depth0_ + 1});
  if (name == "depth0") return Value(Int{depth0_});
  if (name == "last" || name == "nextitem") {
    JINJA_ASSIGN_OR_RETURN(const bool more, Peek());
    if (name == "last") return Value(!more);
    return more ? *after_ : Undefined::WithHint("there is no next item");
  }
  if (name == "previtem") {
    return index0_ == 0 ? Undefined::WithHint("there is no previous item") : before_;
  }
  if (name == "cycle") {
    return Value(std::shared_ptr<Object>(std::make_shared<Cycle>(shared_from_this())));
  }
  if (name == "changed") {
    return Value(std::shared_ptr<Object>(std::make_shared<ChangedMethod>(shared_from_this())));
  }
  return LengthAttribute(runtime, name);
}

}  // namespace fairlead::jinja

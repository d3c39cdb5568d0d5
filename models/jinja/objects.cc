// SPDX-License-Identifier: Apache-2.0
#include "models/jinja/objects.h"

#include <algorithm>

#include "kernels/strings.h"
#include "models/jinja/printer.h"
#include "models/jinja/status_macros.h"
#include "models/jinja/unicode.h"

namespace fairlead::jinja {

Runtime::~Runtime() {
  for (const auto& object : retained) object->Clear();
}

void Runtime::Retain(std::shared_ptr<Object> object) {
  constexpr size_t kUsualObjectBytes = 128;
  retained_charge.Grow(kUsualObjectBytes);
  retained.push_back(std::move(object));
}

Value Undefined::WithHint(std::string hint) {
  auto undefined = std::make_shared<Undefined>("");
  undefined->hint_ = std::move(hint);
  return Value(std::shared_ptr<Object>(std::move(undefined)));
}

Value Undefined::Named(std::string name) {
  return Value(std::shared_ptr<Object>(std::make_shared<Undefined>(std::move(name))));
}

Value Undefined::Of(const Value& owner, const Value& name, Budget& budget) {
  const std::string type = owner.is_none() ? "None" : StrCat(TypeName(owner), " object");
  // A long key is cut: messages are for people.
  constexpr size_t kLongestName = 100;
  TextBuilder printed(budget);
  if (!name.is_string() || name.text().size() <= kLongestName) AppendRepr(name, printed);
  std::string name_text = printed.TakeText().bytes();
  if (name_text.size() > kLongestName) name_text.clear();
  return WithHint(name.is_string() ? StrCat("'", type, "' has no attribute ", name_text)
                                   : StrCat(type, " has no element ", name_text));
}

Value Undefined::Unsafe(const Value& owner, std::string_view name) {
  return WithHint(
      StrCat("access to attribute '", name, "' of '", TypeName(owner), "' object is unsafe."));
}

absl::Status Undefined::Error() const {
  return absl::InvalidArgumentError(hint_.empty() ? StrCat("'", name_, "' is undefined") : hint_);
}

Value Generator::New(std::shared_ptr<Iterator> source, std::string_view type_name,
                     Runtime& runtime) {
  if (source->depth() >= runtime.budget.max_value_depth()) {
    runtime.budget.Fail(
        StrCat("a value is nested deeper than ", runtime.budget.max_value_depth(), " levels"));
    return Value();
  }
  return Value(std::shared_ptr<Object>(new Generator(std::move(source), type_name)));
}

Value Namespace::New(std::vector<std::pair<std::string, Value>> attributes, Runtime& runtime) {
  std::shared_ptr<Namespace> made(new Namespace(&runtime.budget));
  made->charge_.Grow(sizeof(Namespace) + attributes.size() * sizeof(Value));
  made->attributes_ = std::move(attributes);
  runtime.Retain(made);
  return Value(std::shared_ptr<Object>(std::move(made)));
}

const Value* Namespace::Find(std::string_view name) const {
  for (const auto& [key, value] : attributes_) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Namespace::Set(std::string_view name, Value value, Budget& budget) {
  if (const Value* existing = Find(name)) {
    *const_cast<Value*>(existing) = std::move(value);
    return;
  }
  if (charge_.Grow(name.size() + sizeof(Value))) {
    attributes_.emplace_back(name, std::move(value));
  }
}

Range::Range(Int start, Int stop, Int step) : start_(start), stop_(stop), step_(step), size_(0) {
  const Int distance = step > 0 ? stop - start : start - stop;
  const Int stride = step > 0 ? step : -step;
  // Saturates: the caller refuses ranges far shorter than that.
  if (distance > 0) {
    size_ = static_cast<int64_t>(std::min<Int>((distance + stride - 1) / stride, INT64_MAX));
  }
}

bool Range::Contains(Int value) const {
  const Int offset = value - start_;
  return offset % step_ == 0 && offset / step_ >= 0 && offset / step_ < size_;
}

std::string_view DictView::type_name() const {
  switch (kind_) {
    case ViewKind::kKeys:
      return "dict_keys";
    case ViewKind::kValues:
      return "dict_values";
    case ViewKind::kItems:
      return "dict_items";
  }
  return "";
}

Value DictView::At(size_t index, Budget& budget) const {
  const auto& [key, value] = dict_->entries()[index];
  if (kind_ == ViewKind::kKeys) return key;
  if (kind_ == ViewKind::kValues) return value;
  return NewTuple({key, value}, budget);
}

namespace {

// Over anything with a length and elements by index; strings step by code point.
class IndexIterator final : public Iterator {
 public:
  IndexIterator(const Value& source, int64_t size, bool reverse, Runtime& runtime)
      : source_(source), size_(size), reverse_(reverse), runtime_(runtime) {
    if (reverse && source.is_string()) byte_ = source.text().size();
  }
  std::string_view type_name() const override { return "iterator"; }
  int depth() const override { return DepthOf(source_) + 1; }
  std::optional<int64_t> SourceLength() const override {
    return reverse_ ? std::nullopt : std::optional<int64_t>(size_);
  }

  absl::StatusOr<bool> Next(Value& out) override {
    if (index_ >= size_) return false;
    const int64_t at = reverse_ ? size_ - 1 - index_ : index_;
    ++index_;
    out = At(at);
    return true;
  }

 private:
  Value At(int64_t index) {
    if (source_.is_sequence()) return source_.items()[index];
    if (source_.is_dict()) return source_.dict().entries()[index].first;
    if (source_.is_string()) return NextCharacter();
    if (const auto* range = source_.As<Range>()) return Value(range->At(index));
    return static_cast<DictView&>(source_.object()).At(index, runtime_.budget);
  }

  Value NextCharacter() {
    const Text& text = source_.text();
    if (reverse_) byte_ = PreviousBoundary(text.bytes(), byte_);
    const size_t size = DecodeAt(text.bytes(), byte_).size;
    TextBuilder builder(runtime_.budget);
    builder.Append(text, byte_, byte_ + size);
    if (!reverse_) byte_ += size;
    return NewString(std::move(builder));  // plain, as iterating over Markup gives
  }

  Value source_;
  int64_t size_;
  bool reverse_;
  Runtime& runtime_;
  int64_t index_ = 0;
  size_t byte_ = 0;
};

}  // namespace

std::optional<int64_t> Length(const Value& value) {
  if (value.is_string()) return static_cast<int64_t>(value.string().length);
  if (value.is_sequence()) return static_cast<int64_t>(value.items().size());
  if (value.is_dict()) return static_cast<int64_t>(value.dict().entries().size());
  if (value.is_undefined()) return 0;
  if (const auto* range = value.As<Range>()) return range->size();
  if (const auto* view = value.As<DictView>()) return static_cast<int64_t>(view->size());
  return std::nullopt;
}

bool IsIterable(const Value& value) {
  return Length(value).has_value() || value.As<Iterator>() != nullptr;
}

absl::StatusOr<std::shared_ptr<Iterator>> Iterate(const Value& value, Runtime& runtime) {
  if (value.As<Iterator>() != nullptr) {
    return std::static_pointer_cast<Iterator>(value.object_ref());
  }
  const std::optional<int64_t> length = Length(value);
  if (!length) {
    return TypeError(StrCat("'", TypeName(value), "' object is not iterable"));
  }
  return std::shared_ptr<Iterator>(
      std::make_shared<IndexIterator>(value, *length, /*reverse=*/false, runtime));
}

std::shared_ptr<Iterator> ReverseIterate(const Value& value, Runtime& runtime) {
  const std::optional<int64_t> length = Length(value);
  if (!length) return nullptr;
  return std::make_shared<IndexIterator>(value, *length, /*reverse=*/true, runtime);
}

absl::StatusOr<std::vector<Value>> Collect(const Value& value, Runtime& runtime) {
  JINJA_ASSIGN_OR_RETURN(const std::shared_ptr<Iterator> iterator, Iterate(value, runtime));
  std::vector<Value> items;
  MemoryCharge charge(&runtime.budget);
  Value item;
  while (true) {
    JINJA_ASSIGN_OR_RETURN(const bool more, iterator->Next(item));
    if (!more) return items;
    if (!runtime.budget.Step() || !charge.Grow(sizeof(Value))) return runtime.budget.status();
    items.push_back(std::move(item));
  }
}

}  // namespace fairlead::jinja

// SPDX-License-Identifier: Apache-2.0
// The functions that every template can call by name.
#include <ctime>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "kernels/strings.h"
#include "models/jinja/builtins.h"
#include "models/jinja/printer.h"
#include "models/jinja/status_macros.h"

namespace fairlead::jinja {
namespace {

using Result = absl::StatusOr<Value>;
using Function = Result (*)(Runtime& runtime, Arguments& arguments);

class GlobalFunction final : public Callable {
 public:
  GlobalFunction(std::string_view name, Function function) : name_(name), function_(function) {}
  std::string_view type_name() const override { return "function"; }
  std::string Describe() const override { return StrCat("<function ", name_, ">"); }
  Result Call(Runtime& runtime, Arguments& arguments) override {
    return function_(runtime, arguments);
  }

 private:
  std::string_view name_;
  Function function_;
};

// The sandbox's bound on range().
constexpr int64_t kLongestRange = 100'000;
// Of raise_exception's text: gRPC's clients take little more in an error.
constexpr size_t kMaxRaisedBytes = 2 << 10;

Result MakeRange(Runtime&, Arguments& arguments) {
  Value first, second, third;
  JINJA_RETURN_IF_ERROR(arguments.Bind(
      "range", {RequiredPositional(first), OptionalPositional(second), OptionalPositional(third)}));
  const size_t count = arguments.positional.size();
  Int start = 0;
  Int step = 1;
  JINJA_ASSIGN_OR_RETURN(Int stop, IntArgument("range", count == 1 ? first : second));
  if (count > 1) {
    JINJA_ASSIGN_OR_RETURN(start, IntArgument("range", first));
  }
  if (count > 2) {
    JINJA_ASSIGN_OR_RETURN(step, IntArgument("range", third));
  }
  if (step == 0) return absl::InvalidArgumentError("range() arg 3 must not be zero");
  auto range = std::make_shared<Range>(start, stop, step);
  if (range->size() > kLongestRange) {
    return absl::InvalidArgumentError(
        StrCat("Range too big. The sandbox blocks ranges larger than ", kLongestRange, "."));
  }
  return Value(std::static_pointer_cast<Object>(std::move(range)));
}

// The entries that dict(mapping or pairs, **named) has.
Result BuildDict(Runtime& runtime, Arguments& arguments) {
  if (arguments.positional.size() > 1) {
    return TypeError(StrCat("dict expected at most 1 argument, got ", arguments.positional.size()));
  }
  DictBuilder builder(runtime.budget);
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional.front();
    if (source.is_dict()) {
      for (const auto& [key, value] : source.dict().entries()) builder.Set(key, value);
    } else if (const auto* undefined = source.As<Undefined>()) {
      return undefined->Error();
    } else {
      JINJA_ASSIGN_OR_RETURN(const std::vector<Value> pairs, Collect(source, runtime));
      for (const Value& pair : pairs) {
        JINJA_ASSIGN_OR_RETURN(const std::vector<Value> parts, Collect(pair, runtime));
        if (parts.size() != 2) {
          return absl::InvalidArgumentError(StrCat("dictionary update sequence element has length ",
                                                   parts.size(), "; 2 is required"));
        }
        JINJA_RETURN_IF_ERROR(CheckHashable(parts[0]));
        builder.Set(parts[0], parts[1]);
      }
    }
  }
  for (auto& [name, value] : arguments.named) {
    builder.Set(NewTrusted(name, runtime.budget), value);
  }
  return builder.Finish();
}

Result MakeNamespace(Runtime& runtime, Arguments& arguments) {
  JINJA_ASSIGN_OR_RETURN(const Value dict, BuildDict(runtime, arguments));
  std::vector<std::pair<std::string, Value>> attributes;
  for (const auto& [key, value] : dict.dict().entries()) {
    // Python keeps keys that are not strings, but no template could read them.
    if (!key.is_string()) continue;
    const std::string& name = key.text().bytes();
    if (!name.empty() && name.front() == '_') {
      return absl::InvalidArgumentError(StrCat("a namespace cannot store the attribute '", name,
                                               "': it begins with an underscore"));
    }
    attributes.emplace_back(name, value);
  }
  return Namespace::New(std::move(attributes), runtime);
}

class Cycler final : public Object,
                     public WithAttributes,
                     public std::enable_shared_from_this<Cycler> {
 public:
  explicit Cycler(std::vector<Value> items) : items_(std::move(items)) {}
  std::string_view type_name() const override { return "jinja2.utils.Cycler"; }
  void Clear() override { items_.clear(); }
  absl::StatusOr<std::optional<Value>> Attribute(Runtime& runtime, std::string_view name) override;
  Value Current() const { return items_[at_]; }
  void Advance() { at_ = (at_ + 1) % items_.size(); }
  void Reset() { at_ = 0; }

 private:
  std::vector<Value> items_;
  size_t at_ = 0;
};

class CyclerMethod final : public Callable {
 public:
  CyclerMethod(std::shared_ptr<Cycler> cycler, bool next)
      : cycler_(std::move(cycler)), next_(next) {}
  std::string_view type_name() const override { return "method"; }
  std::string Describe() const override { return "<bound method Cycler>"; }
  Result Call(Runtime&, Arguments& arguments) override {
    JINJA_RETURN_IF_ERROR(arguments.BindNone("cycler"));
    if (!next_) {
      cycler_->Reset();
      return Value();
    }
    Value current = cycler_->Current();
    cycler_->Advance();
    return current;
  }

 private:
  std::shared_ptr<Cycler> cycler_;
  bool next_;
};

absl::StatusOr<std::optional<Value>> Cycler::Attribute(Runtime&, std::string_view name) {
  if (name == "current") return Current();
  if (name != "next" && name != "reset") return std::nullopt;
  return Value(
      std::shared_ptr<Object>(std::make_shared<CyclerMethod>(shared_from_this(), name == "next")));
}

Result MakeCycler(Runtime& runtime, Arguments& arguments) {
  if (!arguments.named.empty()) return TypeError("cycler() takes no keyword arguments");
  if (arguments.positional.empty()) {
    return absl::InvalidArgumentError("at least one item has to be provided");
  }
  auto cycler = std::make_shared<Cycler>(std::move(arguments.positional));
  runtime.Retain(cycler);
  return Value(std::static_pointer_cast<Object>(std::move(cycler)));
}

class Joiner final : public Callable {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  std::string_view type_name() const override { return "jinja2.utils.Joiner"; }
  std::string Describe() const override { return "<jinja2.utils.Joiner object>"; }
  void Clear() override { separator_ = Value(); }
  Result Call(Runtime& runtime, Arguments& arguments) override {
    JINJA_RETURN_IF_ERROR(arguments.BindNone("joiner"));
    if (std::exchange(used_, true)) return separator_;
    return NewTrusted("", runtime.budget);
  }

 private:
  Value separator_;
  bool used_ = false;
};

Result MakeJoiner(Runtime& runtime, Arguments& arguments) {
  Value separator = NewTrusted(", ", runtime.budget);
  JINJA_RETURN_IF_ERROR(arguments.Bind("joiner", {Optional("sep", separator)}));
  auto joiner = std::make_shared<Joiner>(std::move(separator));
  runtime.Retain(joiner);
  return Value(std::static_pointer_cast<Object>(std::move(joiner)));
}

Result RaiseException(Runtime& runtime, Arguments& arguments) {
  Value message;
  JINJA_RETURN_IF_ERROR(arguments.Bind("raise_exception", {Required("message", message)}));
  const Value text = ToString(message, runtime.budget);
  if (!runtime.budget.ok()) return runtime.budget.status();
  std::string_view said = text.text().bytes();
  if (said.size() > kMaxRaisedBytes) {
    // To the start of a character.
    size_t end = kMaxRaisedBytes;
    while ((said[end] & 0xc0) == 0x80) --end;
    said = said.substr(0, end);
  }
  return absl::Status(kRaisedByTemplate, absl::string_view(said.data(), said.size()));
}

// What C's strftime lacks or would read from a time zone: datetime.now() has microseconds and no
// zone.
std::string PrepareTimeFormat(const std::string& format, int microseconds) {
  std::string prepared;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      prepared.push_back(format[i]);
      continue;
    }
    const char directive = format[++i];
    if (directive == 'f') {
      absl::StrAppendFormat(&prepared, "%06d", microseconds);
    } else if (directive != 'z' && directive != 'Z') {
      prepared.append({'%', directive});
    }
  }
  return prepared;
}

Result StrftimeNow(Runtime& runtime, Arguments& arguments) {
  Value format;
  JINJA_RETURN_IF_ERROR(arguments.Bind("strftime_now", {Required("format", format)}));
  JINJA_ASSIGN_OR_RETURN(const Text* text, TextArgument("strftime_now", format));
  constexpr size_t kLongestFormat = 1000;
  if (text->size() > kLongestFormat || text->bytes().find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        "strftime_now: a format of at most 1000 characters is needed");
  }
  const std::tm fields = absl::ToTM(runtime.now, absl::LocalTimeZone());
  const int64_t microseconds = absl::ToUnixMicros(runtime.now) % 1'000'000;
  const std::string prepared =
      PrepareTimeFormat(text->bytes(), static_cast<int>((microseconds + 1'000'000) % 1'000'000));
  // strftime gives 0 for "did not fit" and for an empty result; the added byte tells them apart.
  std::string out(64 * (prepared.size() + 2), '\0');
  out.resize(std::strftime(out.data(), out.size(), StrCat(prepared, "|").c_str(), &fields));
  if (out.empty()) return absl::InvalidArgumentError("strftime_now: the result is too long");
  out.pop_back();
  TextBuilder builder(runtime.budget);
  builder.Append(out, text->AllTrusted());
  return NewString(std::move(builder));
}

}  // namespace

Value FindGlobal(std::string_view name) {
  static const auto* const kGlobals = new std::vector<std::pair<std::string_view, Value>>([] {
    std::vector<std::pair<std::string_view, Value>> globals;
    for (const auto& [function_name, function] :
         {std::pair<std::string_view, Function>{"range", MakeRange},
          {"dict", BuildDict},
          {"namespace", MakeNamespace},
          {"cycler", MakeCycler},
          {"joiner", MakeJoiner},
          {"raise_exception", RaiseException},
          {"strftime_now", StrftimeNow}}) {
      globals.emplace_back(function_name,
                           Value(std::shared_ptr<Object>(
                               std::make_shared<GlobalFunction>(function_name, function))));
    }
    return globals;
  }());
  for (const auto& [function_name, function] : *kGlobals) {
    if (function_name == name) return function;
  }
  return Value(Value::Missing{});
}

}  // namespace fairlead::jinja

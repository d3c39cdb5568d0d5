// SPDX-License-Identifier: Apache-2.0
// The table of filters, the string filters, and what filters share.
#include <algorithm>
#include <numeric>
#include <optional>
#include <string>
#include <utility>

#include "kernels/strings.h"
#include "models/jinja/filters_internal.h"
#include "models/jinja/format.h"
#include "models/jinja/operators.h"
#include "models/jinja/printer.h"
#include "models/jinja/status_macros.h"
#include "models/jinja/string_ops.h"
#include "models/jinja/unicode.h"

namespace fairlead::jinja {

FilterFunction FindFilter(std::string_view name) {
  for (const auto entries :
       {StringFilters(), SequenceFilters(), SelectionFilters(), NumberFilters()}) {
    for (const FilterEntry& entry : entries) {
      if (entry.name == name) return entry.function;
    }
  }
  return nullptr;
}

absl::StatusOr<AttributeGetter> AttributeGetter::Make(const Value& attribute, Runtime& runtime) {
  AttributeGetter getter;
  if (attribute.is_none()) return getter;
  if (!attribute.is_string()) {
    getter.path_.push_back(attribute);
    return getter;
  }
  const std::string& bytes = attribute.text().bytes();
  for (const ByteRange& part : Split(bytes, ".", -1, false, runtime.budget)) {
    const std::string_view name = std::string_view(bytes).substr(part.begin, part.end - part.begin);
    const bool number =
        !name.empty() && name.size() < 19 &&
        std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (number) {
      Int index = 0;
      for (const char c : name) index = index * 10 + (c - '0');
      getter.path_.push_back(Value(index));
    } else {
      getter.path_.push_back(Substring(attribute, part, runtime.budget));
    }
  }
  return getter;
}

absl::StatusOr<Value> AttributeGetter::Get(Runtime& runtime, const Value& item,
                                           const Value& otherwise) const {
  Value value = item;
  for (const Value& step : path_) {
    if (!runtime.budget.Step()) return runtime.budget.status();
    JINJA_ASSIGN_OR_RETURN(value, GetItem(runtime, value, step));
    if (!otherwise.is_none() && value.is_undefined()) value = otherwise;
  }
  return value;
}

Value IgnoreCase(const Value& value, Budget& budget) {
  if (!value.is_string()) return value;
  TextBuilder builder(budget);
  const ByteRange whole{0, value.text().size()};
  AppendLowerCase(value.text(), whole, whole, builder);
  return NewString(std::move(builder), value.string().markup);
}

absl::StatusOr<std::vector<size_t>> SortedOrder(const std::vector<Value>& keys, bool descending,
                                                Budget& budget) {
  std::vector<size_t> order(keys.size());
  std::iota(order.begin(), order.end(), size_t{0});
  absl::Status failure;
  // After a failure nothing is less than anything: the sort ends soon.
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (!failure.ok() || !budget.ok()) return false;
    if (descending) std::swap(a, b);
    const auto ordering = Order(keys[a], keys[b], "<", budget);
    if (!ordering.ok()) failure = ordering.status();
    return ordering.ok() && *ordering < 0;
  });
  if (!failure.ok()) return failure;
  if (!budget.ok()) return budget.status();
  return order;
}

namespace {

using Result = absl::StatusOr<Value>;

// keeps_markup: Jinja's title joins plain letters, which makes plain text of markup.
template <void (*Append)(const Text&, TextBuilder&), bool keeps_markup = true>
Result Mapped(Runtime& runtime, const Value& input, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("filter"));
  const Value text = ToString(input, runtime.budget);
  TextBuilder builder(runtime.budget);
  Append(text.text(), builder);
  return NewString(std::move(builder), keeps_markup && text.string().markup);
}

void WholeUpper(const Text& text, TextBuilder& out) {
  AppendUpperCase(text, {0, text.size()}, out);
}
void WholeLower(const Text& text, TextBuilder& out) {
  AppendLowerCase(text, {0, text.size()}, {0, text.size()}, out);
}

Result Trim(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value chars;
  JINJA_RETURN_IF_ERROR(arguments.Bind("trim", {Optional("chars", chars)}));
  std::optional<std::string_view> set;
  if (!chars.is_none()) {
    JINJA_ASSIGN_OR_RETURN(const Text* text, TextArgument("trim", chars));
    set = text->bytes();
  }
  const Value text = ToString(input, runtime.budget);
  runtime.budget.Work(text.text().size());
  return Substring(text, StripRange(text.text().bytes(), set, true, true), runtime.budget);
}

Result ReplaceFilter(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value from, to, count;
  JINJA_RETURN_IF_ERROR(arguments.Bind(
      "replace", {Required("old", from), Required("new", to), Optional("count", count)}));
  Int most = -1;
  if (!count.is_none()) {
    JINJA_ASSIGN_OR_RETURN(most, IntArgument("replace", count));
  }
  Budget& budget = runtime.budget;
  const Value text = ToString(input, budget);
  const Value old_text = ToString(from, budget);
  const Value new_text = ToString(to, budget);
  TextBuilder builder(budget);
  AppendReplaced(text.text(), old_text.text(), new_text.text(), most, builder);
  return NewString(std::move(builder));
}

Result StringFilter(Runtime& runtime, const Value& input, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("string"));
  return ToString(input, runtime.budget);
}

Result Safe(Runtime& runtime, const Value& input, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("safe"));
  TextBuilder builder(runtime.budget);
  AppendStr(input, builder);
  return NewString(std::move(builder), /*markup=*/true);
}

template <bool kForced>
Result Escape(Runtime& runtime, const Value& input, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("escape"));
  const Value text = ToString(input, runtime.budget);
  if (!kForced && text.string().markup) return text;
  TextBuilder builder(runtime.budget);
  AppendEscaped(text.text(), builder);
  return NewString(std::move(builder), /*markup=*/true);
}

Result Indent(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value width(Int{4});
  Value first(false);
  Value blank(false);
  JINJA_RETURN_IF_ERROR(arguments.Bind(
      "indent", {Optional("width", width), Optional("first", first), Optional("blank", blank)}));
  if (!input.is_string()) {
    if (const auto* undefined = input.As<Undefined>()) return undefined->Error();
    return TypeError(StrCat("indent: a str is needed, not '", TypeName(input), "'"));
  }
  Budget& budget = runtime.budget;
  Value indention = width;
  if (!width.is_string()) {
    JINJA_ASSIGN_OR_RETURN(
        indention, ApplyBinary(runtime, BinaryOperator::kMultiply, NewTrusted(" ", budget), width));
    if (!indention.is_string()) return TypeError("indent: width is an integer or a str");
  }
  // Splitting `text + "\n"` keeps an empty last line.
  Text text = input.text();
  text.Append("\n", true);
  const std::vector<Line> lines = SplitLines(text.bytes(), budget);
  TextBuilder builder(budget);
  if (IsTrue(first)) builder.Append(indention.text());
  for (size_t i = 0; i < lines.size() && budget.ok(); ++i) {
    const ByteRange& content = lines[i].content;
    if (i > 0) {
      builder.Append("\n", true);
      if (IsTrue(blank) || content.begin < content.end) builder.Append(indention.text());
    }
    builder.Append(text, content.begin, content.end);
  }
  return NewString(std::move(builder), input.string().markup);
}

Result Truncate(Runtime& runtime, const Value& input, Arguments& arguments) {
  Budget& budget = runtime.budget;
  Value length(Int{255});
  Value kill_words(false);
  Value end = NewTrusted("...", budget);
  Value leeway;
  JINJA_RETURN_IF_ERROR(
      arguments.Bind("truncate", {Optional("length", length), Optional("killwords", kill_words),
                                  Optional("end", end), Optional("leeway", leeway)}));
  JINJA_ASSIGN_OR_RETURN(const Int most, IntArgument("truncate", length));
  Int slack = 5;
  if (!leeway.is_none()) {
    JINJA_ASSIGN_OR_RETURN(slack, IntArgument("truncate", leeway));
  }
  JINJA_ASSIGN_OR_RETURN(const Text* tail, TextArgument("truncate", end));
  const Int tail_length = static_cast<Int>(end.string().length);
  if (most < tail_length || slack < 0) {
    return absl::InvalidArgumentError("truncate: length is below that of end, or leeway below 0");
  }
  const std::optional<int64_t> size = Length(input);
  if (size && *size <= most + slack) return input;
  if (!input.is_string()) {
    return TypeError(StrCat("truncate: a str is needed, not '", TypeName(input), "'"));
  }
  JINJA_ASSIGN_OR_RETURN(Value cut,
                         GetSlice(runtime, input, Value(), Value(most - tail_length), Value()));
  if (!IsTrue(kill_words)) {
    const size_t space = cut.text().bytes().rfind(' ');
    if (space != std::string::npos) cut = Substring(cut, {0, space}, budget);
  }
  TextBuilder builder(budget);
  builder.Append(cut.text());
  builder.Append(*tail);
  return NewString(std::move(builder), input.string().markup);
}

Result Center(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value width(Int{80});
  JINJA_RETURN_IF_ERROR(arguments.Bind("center", {Optional("width", width)}));
  const Value text = ToString(input, runtime.budget);
  const Value name = NewTrusted("center", runtime.budget);
  JINJA_ASSIGN_OR_RETURN(const Value method, GetAttribute(runtime, text, "center", name));
  Arguments call;
  call.positional.push_back(width);
  return method.As<Callable>()->Call(runtime, call);
}

Result Format(Runtime& runtime, const Value& input, Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty()) {
    return TypeError("can't handle positional and keyword arguments at the same time");
  }
  const Value text = ToString(input, runtime.budget);
  if (!arguments.named.empty()) {
    DictBuilder named(runtime.budget);
    for (const auto& [key, value] : arguments.named) {
      named.Set(NewTrusted(key, runtime.budget), value);
    }
    return FormatPercent(runtime, text, named.Finish());
  }
  ListBuilder values(runtime.budget);
  for (const Value& value : arguments.positional) values.Push(value);
  return FormatPercent(runtime, text, values.FinishTuple());
}

Result WordCount(Runtime& runtime, const Value& input, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("wordcount"));
  const Value text = ToString(input, runtime.budget);
  const std::string& bytes = text.text().bytes();
  runtime.budget.Work(bytes.size());
  Int words = 0;
  bool in_word = false;
  for (size_t at = 0; at < bytes.size();) {
    const DecodedCodePoint c = DecodeAt(bytes, at);
    const bool word = c.value == '_' || IsAlnum(c.value);
    words += word && !in_word ? 1 : 0;
    in_word = word;
    at += c.size;
  }
  return Value(words);
}

bool IsUrlSafe(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ||
         c == '.' || c == '-' || c == '~';
}

// urllib.parse.quote; in a query `/` is quoted, too, and a space is `+`.
void AppendUrlQuoted(const Value& value, bool in_query, TextBuilder& out) {
  const Value text = ToString(value, out.budget());
  text.text().ForEachRun([&](std::string_view run, bool trusted) {
    if (!out.budget().Work(3 * run.size())) return;
    std::string quoted;
    for (const char c : run) {
      if (IsUrlSafe(c) || (c == '/' && !in_query)) {
        quoted.push_back(c);
      } else if (c == ' ' && in_query) {
        quoted.push_back('+');
      } else {
        constexpr std::string_view kHex = "0123456789ABCDEF";
        const auto byte = static_cast<uint8_t>(c);
        quoted.append({'%', kHex[byte >> 4], kHex[byte & 15]});
      }
    }
    out.Append(quoted, trusted);
  });
}

Result UrlEncode(Runtime& runtime, const Value& input, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("urlencode"));
  TextBuilder builder(runtime.budget);
  if (input.is_string() || !IsIterable(input)) {
    AppendUrlQuoted(input, /*in_query=*/false, builder);
    return NewString(std::move(builder));
  }
  Value pairs = input;
  if (input.is_dict()) {
    pairs = Value(
        std::shared_ptr<Object>(std::make_shared<DictView>(input.dict_ref(), ViewKind::kItems)));
  }
  JINJA_ASSIGN_OR_RETURN(const std::vector<Value> entries, Collect(pairs, runtime));
  for (const Value& entry : entries) {
    JINJA_ASSIGN_OR_RETURN(const std::vector<Value> parts, Collect(entry, runtime));
    if (parts.size() != 2) return TypeError("urlencode: pairs of key and value are needed");
    if (builder.size() > 0) builder.Append("&", true);
    AppendUrlQuoted(parts[0], /*in_query=*/true, builder);
    builder.Append("=", true);
    AppendUrlQuoted(parts[1], /*in_query=*/true, builder);
  }
  return NewString(std::move(builder));
}

absl::Status ReadSeparators(const Value& separators, JsonStyle& style, Runtime& runtime) {
  if (separators.is_none()) return absl::OkStatus();
  JINJA_ASSIGN_OR_RETURN(const std::vector<Value> parts, Collect(separators, runtime));
  if (parts.size() != 2 || !parts[0].is_string() || !parts[1].is_string()) {
    return TypeError("tojson: separators are two strings");
  }
  style.item_separator = parts[0].text();
  style.key_separator = parts[1].text();
  return absl::OkStatus();
}

Result ToJson(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value ensure_ascii(false);
  Value indent, separators;
  Value sort_keys(false);
  JINJA_RETURN_IF_ERROR(arguments.Bind(
      "tojson", {Optional("ensure_ascii", ensure_ascii), Optional("indent", indent),
                 Optional("separators", separators), Optional("sort_keys", sort_keys)}));
  JsonStyle style;
  style.ensure_ascii = IsTrue(ensure_ascii);
  style.sort_keys = IsTrue(sort_keys);
  if (!indent.is_none()) {
    style.multiline = true;
    style.item_separator = Text(",", true);
    Value one_level = indent;
    if (!indent.is_string()) {
      JINJA_ASSIGN_OR_RETURN(one_level, ApplyBinary(runtime, BinaryOperator::kMultiply,
                                                    NewTrusted(" ", runtime.budget), indent));
    }
    style.indent = one_level.text();
  }
  JINJA_RETURN_IF_ERROR(ReadSeparators(separators, style, runtime));
  TextBuilder builder(runtime.budget);
  JINJA_RETURN_IF_ERROR(AppendJson(input, style, builder));
  return NewString(std::move(builder));
}

constexpr FilterEntry kFilters[] = {
    {"capitalize", Mapped<AppendCapitalized>},
    {"center", Center},
    {"e", Escape<false>},
    {"escape", Escape<false>},
    {"forceescape", Escape<true>},
    {"format", Format},
    {"indent", Indent},
    {"lower", Mapped<WholeLower>},
    {"replace", ReplaceFilter},
    {"safe", Safe},
    {"string", StringFilter},
    {"title", Mapped<AppendJinjaTitle, false>},
    {"tojson", ToJson},
    {"trim", Trim},
    {"truncate", Truncate},
    {"upper", Mapped<WholeUpper>},
    {"urlencode", UrlEncode},
    {"wordcount", WordCount},
};

}  // namespace

absl::Span<const FilterEntry> StringFilters() { return kFilters; }

}  // namespace fairlead::jinja

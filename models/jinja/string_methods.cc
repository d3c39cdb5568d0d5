// SPDX-License-Identifier: Apache-2.0
// Methods of str.
#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include "kernels/strings.h"
#include "models/jinja/format.h"
#include "models/jinja/methods.h"
#include "models/jinja/operators.h"
#include "models/jinja/printer.h"
#include "models/jinja/status_macros.h"
#include "models/jinja/string_ops.h"
#include "models/jinja/unicode.h"

namespace fairlead::jinja {
namespace {

using Result = absl::StatusOr<Value>;

Value Finish(TextBuilder builder, const Value& self) {
  return NewString(std::move(builder), self.string().markup);
}

template <void (*Append)(const Text&, TextBuilder&)>
Result Mapped(Runtime& runtime, const Value& self, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("str method"));
  TextBuilder builder(runtime.budget);
  Append(self.text(), builder);
  return Finish(std::move(builder), self);
}

void WholeUpper(const Text& text, TextBuilder& out) {
  AppendUpperCase(text, {0, text.size()}, out);
}
void WholeLower(const Text& text, TextBuilder& out) {
  AppendLowerCase(text, {0, text.size()}, {0, text.size()}, out);
}

template <bool kLeft, bool kRight>
Result Strip(Runtime& runtime, const Value& self, Arguments& arguments) {
  Value chars;
  JINJA_RETURN_IF_ERROR(arguments.Bind("strip", {OptionalPositional(chars)}));
  std::optional<std::string_view> set;
  if (!chars.is_none()) {
    JINJA_ASSIGN_OR_RETURN(const Text* text, TextArgument("strip", chars));
    set = text->bytes();
  }
  runtime.budget.Work(self.text().size());
  return Substring(self, StripRange(self.text().bytes(), set, kLeft, kRight), runtime.budget);
}

Result ExpandTabs(Runtime& runtime, const Value& self, Arguments& arguments) {
  Value size(Int{8});
  JINJA_RETURN_IF_ERROR(arguments.Bind("expandtabs", {Optional("tabsize", size)}));
  JINJA_ASSIGN_OR_RETURN(const Int stop, IntArgument("expandtabs", size));
  constexpr size_t kWork = 4;  // a byte is looked at several times
  Int column = 0;
  const Text& text = self.text();
  const std::string& bytes = text.bytes();
  TextBuilder builder(runtime.budget);
  for (size_t at = 0; at < bytes.size();) {
    const size_t tab = std::min(bytes.find('\t', at), bytes.size());
    builder.Append(text, at, tab);
    if (tab == bytes.size()) break;
    // A step for each tab: a column each.
    if (!runtime.budget.Step() || !runtime.budget.Work(kWork * (tab - at))) break;
    std::string_view piece = std::string_view(bytes).substr(at, tab - at);
    if (const size_t line = piece.find_last_of("\n\r"); line != std::string_view::npos) {
      column = 0;
      piece.remove_prefix(line + 1);
    }
    column += static_cast<Int>(CountCodePoints(piece));
    if (stop > 0) {
      const Int spaces = stop - column % stop;
      AppendRepeated(Text(" ", true), spaces, builder);
      column += spaces;
    }
    at = tab + 1;
  }
  return Finish(std::move(builder), self);
}

Value ListOf(const Value& self, const std::vector<ByteRange>& parts, Budget& budget) {
  ListBuilder builder(budget);
  for (const ByteRange& part : parts) {
    if (!budget.ok()) break;
    builder.Push(Substring(self, part, budget));
  }
  return builder.FinishList();
}

template <bool kFromRight>
Result SplitMethod(Runtime& runtime, const Value& self, Arguments& arguments) {
  Value separator;
  Value limit(Int{-1});
  JINJA_RETURN_IF_ERROR(
      arguments.Bind("split", {Optional("sep", separator), Optional("maxsplit", limit)}));
  JINJA_ASSIGN_OR_RETURN(const Int most, IntArgument("split", limit));
  std::string_view by;
  if (!separator.is_none()) {
    JINJA_ASSIGN_OR_RETURN(const Text* text, TextArgument("split", separator));
    by = text->bytes();
    if (by.empty()) return absl::InvalidArgumentError("empty separator");
  }
  return ListOf(self, Split(self.text().bytes(), by, most, kFromRight, runtime.budget),
                runtime.budget);
}

Result SplitLinesMethod(Runtime& runtime, const Value& self, Arguments& arguments) {
  Value keep(false);
  JINJA_RETURN_IF_ERROR(arguments.Bind("splitlines", {Optional("keepends", keep)}));
  std::vector<ByteRange> parts;
  JINJA_ASSIGN_OR_RETURN(const Int keeps, IntArgument("splitlines", keep));
  for (const Line& line : SplitLines(self.text().bytes(), runtime.budget)) {
    parts.push_back(keeps != 0 ? line.whole : line.content);
  }
  return ListOf(self, parts, runtime.budget);
}

template <bool kFromRight>
Result Partition(Runtime& runtime, const Value& self, Arguments& arguments) {
  Value separator;
  JINJA_RETURN_IF_ERROR(arguments.Bind("partition", {RequiredPositional(separator)}));
  JINJA_ASSIGN_OR_RETURN(const Text* by, TextArgument("partition", separator));
  if (by->empty()) return absl::InvalidArgumentError("empty separator");
  const std::string& bytes = self.text().bytes();
  runtime.budget.Work(bytes.size());
  const size_t found = kFromRight ? FindLast(bytes, by->bytes()) : FindFirst(bytes, by->bytes());
  Budget& budget = runtime.budget;
  const Value empty = NewString(Text(), {}, self.string().markup);
  if (found == std::string::npos) {
    return kFromRight ? NewTuple({empty, empty, self}, budget)
                      : NewTuple({self, empty, empty}, budget);
  }
  return NewTuple(
      {Substring(self, {0, found}, budget), Substring(self, {found, found + by->size()}, budget),
       Substring(self, {found + by->size(), bytes.size()}, budget)},
      budget);
}

// The bytes that arguments start and end (code points, as in slices) select. Nothing if start is
// beyond the end.
absl::StatusOr<std::optional<ByteRange>> Window(const Value& self, const Value& start,
                                                const Value& end, Budget& budget) {
  const String& string = self.string();
  const Int length = static_cast<Int>(string.length);
  Int bounds[2] = {0, length};
  const Value* const given[2] = {&start, &end};
  for (int i = 0; i < 2; ++i) {
    if (given[i]->is_none()) continue;
    JINJA_ASSIGN_OR_RETURN(bounds[i], IntArgument("start and end", *given[i]));
    if (bounds[i] < 0) bounds[i] = std::max<Int>(0, bounds[i] + length);
  }
  bounds[1] = std::min(bounds[1], length);
  if (bounds[0] > bounds[1]) return std::nullopt;
  budget.Work(string.text.size());
  const auto byte_of = [&](Int index) {
    if (string.ascii()) return static_cast<size_t>(index);
    size_t byte = 0;
    for (; index > 0; --index) byte += DecodeAt(string.text.bytes(), byte).size;
    return byte;
  };
  return ByteRange{byte_of(bounds[0]), byte_of(bounds[1])};
}

template <bool kStart>
Result StartsOrEnds(Runtime& runtime, const Value& self, Arguments& arguments) {
  const std::string_view name = kStart ? "startswith" : "endswith";
  Value affix, start, end;
  JINJA_RETURN_IF_ERROR(arguments.Bind(
      name, {RequiredPositional(affix), OptionalPositional(start), OptionalPositional(end)}));
  JINJA_ASSIGN_OR_RETURN(const std::optional<ByteRange> window,
                         Window(self, start, end, runtime.budget));
  const auto matches = [&](const Text& text) {
    if (!window) return false;
    const std::string_view part =
        std::string_view(self.text().bytes()).substr(window->begin, window->end - window->begin);
    return kStart ? part.starts_with(text.bytes()) : part.ends_with(text.bytes());
  };
  if (!affix.is_tuple()) {
    JINJA_ASSIGN_OR_RETURN(const Text* text, TextArgument(name, affix));
    return Value(matches(*text));
  }
  for (const Value& item : affix.items()) {
    JINJA_ASSIGN_OR_RETURN(const Text* text, TextArgument(name, item));
    if (!runtime.budget.Step()) return runtime.budget.status();
    if (matches(*text)) return Value(true);
  }
  return Value(false);
}

// The code point at which the argument is found, or -1.
absl::StatusOr<Int> FindIndex(Runtime& runtime, std::string_view name, const Value& self,
                              Arguments& arguments, bool from_right) {
  Value wanted, start, end;
  JINJA_RETURN_IF_ERROR(arguments.Bind(
      name, {RequiredPositional(wanted), OptionalPositional(start), OptionalPositional(end)}));
  JINJA_ASSIGN_OR_RETURN(const Text* text, TextArgument(name, wanted));
  JINJA_ASSIGN_OR_RETURN(const std::optional<ByteRange> window,
                         Window(self, start, end, runtime.budget));
  if (!window) return Int{-1};
  const std::string_view bytes = self.text().bytes();
  const std::string_view part = bytes.substr(window->begin, window->end - window->begin);
  const size_t found = from_right ? FindLast(part, text->bytes()) : FindFirst(part, text->bytes());
  if (found == std::string_view::npos) return Int{-1};
  return static_cast<Int>(CountCodePoints(bytes.substr(0, window->begin + found)));
}

template <bool kFromRight>
Result Find(Runtime& runtime, const Value& self, Arguments& arguments) {
  JINJA_ASSIGN_OR_RETURN(const Int at, FindIndex(runtime, "find", self, arguments, kFromRight));
  return Value(at);
}

template <bool kFromRight>
Result Index(Runtime& runtime, const Value& self, Arguments& arguments) {
  JINJA_ASSIGN_OR_RETURN(const Int at, FindIndex(runtime, "index", self, arguments, kFromRight));
  if (at < 0) return absl::InvalidArgumentError("substring not found");
  return Value(at);
}

Result Count(Runtime& runtime, const Value& self, Arguments& arguments) {
  Value wanted, start, end;
  JINJA_RETURN_IF_ERROR(arguments.Bind(
      "count", {RequiredPositional(wanted), OptionalPositional(start), OptionalPositional(end)}));
  JINJA_ASSIGN_OR_RETURN(const Text* text, TextArgument("count", wanted));
  JINJA_ASSIGN_OR_RETURN(const std::optional<ByteRange> window,
                         Window(self, start, end, runtime.budget));
  if (!window) return Value(Int{0});
  const std::string_view part =
      std::string_view(self.text().bytes()).substr(window->begin, window->end - window->begin);
  if (text->empty()) return Value(static_cast<Int>(CountCodePoints(part)) + 1);
  Int count = 0;
  for (size_t at = FindFirst(part, text->bytes()); at != std::string_view::npos;
       at = FindFirst(part, text->bytes(), at + text->size())) {
    ++count;
  }
  return Value(count);
}

// What markupsafe.escape() gives: markup stays as it is.
Value Escaped(const Value& value, Budget& budget) {
  const Value text = ToString(value, budget);
  if (text.string().markup) return text;
  TextBuilder builder(budget);
  AppendEscaped(text.text(), builder);
  return NewString(std::move(builder), /*markup=*/true);
}

Result Replace(Runtime& runtime, const Value& self, Arguments& arguments) {
  Value from, to;
  Value limit(Int{-1});
  JINJA_RETURN_IF_ERROR(arguments.Bind(
      "replace", {RequiredPositional(from), RequiredPositional(to), OptionalPositional(limit)}));
  JINJA_ASSIGN_OR_RETURN(const Text* old_text, TextArgument("replace", from));
  if (self.string().markup) to = Escaped(to, runtime.budget);  // of any type
  JINJA_ASSIGN_OR_RETURN(const Text* new_text, TextArgument("replace", to));
  JINJA_ASSIGN_OR_RETURN(const Int most, IntArgument("replace", limit));
  TextBuilder builder(runtime.budget);
  AppendReplaced(self.text(), *old_text, *new_text, most, builder);
  return Finish(std::move(builder), self);
}

Result Join(Runtime& runtime, const Value& self, Arguments& arguments) {
  Value iterable;
  JINJA_RETURN_IF_ERROR(arguments.Bind("join", {RequiredPositional(iterable)}));
  JINJA_ASSIGN_OR_RETURN(const std::vector<Value> items, Collect(iterable, runtime));
  TextBuilder builder(runtime.budget);
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) builder.Append(self.text());
    if (self.string().markup) {
      builder.Append(Escaped(items[i], runtime.budget).text());
    } else if (items[i].is_string()) {
      builder.Append(items[i].text());
    } else {
      return TypeError(
          StrCat("sequence item ", i, ": expected str instance, ", TypeName(items[i]), " found"));
    }
  }
  return Finish(std::move(builder), self);
}

Result Format(Runtime& runtime, const Value& self, Arguments& arguments) {
  return FormatBraces(runtime, self, arguments);
}

template <Align kAlign>
Result Justify(Runtime& runtime, const Value& self, Arguments& arguments) {
  Value width, fill;
  JINJA_RETURN_IF_ERROR(
      arguments.Bind("justify", {RequiredPositional(width), OptionalPositional(fill)}));
  JINJA_ASSIGN_OR_RETURN(const Int wide, IntArgument("width", width));
  if (!fill.is_none() && (!fill.is_string() || fill.string().length != 1)) {
    return TypeError("The fill character must be exactly one character long");
  }
  TextBuilder builder(runtime.budget);
  const String& string = self.string();
  const Text character = fill.is_none() ? Text(" ", true) : fill.text();
  // str.center() gives the larger half to the left when both the padding and the width are odd.
  const Int padding = wide - static_cast<Int>(string.length);
  if (kAlign == Align::kCenter && padding > 0 && padding % 2 == 1 && wide % 2 == 1) {
    TextBuilder inner(runtime.budget);
    inner.Append(character);
    inner.Append(string.text);
    AppendAligned(inner.TakeText(), string.length + 1, wide, kAlign, character, builder);
  } else {
    AppendAligned(string.text, string.length, wide, kAlign, character, builder);
  }
  return Finish(std::move(builder), self);
}

Result ZeroFill(Runtime& runtime, const Value& self, Arguments& arguments) {
  Value width;
  JINJA_RETURN_IF_ERROR(arguments.Bind("zfill", {RequiredPositional(width)}));
  JINJA_ASSIGN_OR_RETURN(const Int wide, IntArgument("zfill", width));
  const String& string = self.string();
  const std::string& bytes = string.text.bytes();
  const size_t sign = !bytes.empty() && (bytes[0] == '+' || bytes[0] == '-') ? 1 : 0;
  TextBuilder builder(runtime.budget);
  builder.Append(string.text, 0, sign);
  Text rest;
  rest.Append(string.text, sign, bytes.size());
  AppendAligned(rest, string.length - sign, wide - static_cast<Int>(sign), Align::kRight,
                Text("0", true), builder);
  return Finish(std::move(builder), self);
}

template <bool kPrefix>
Result RemoveAffix(Runtime& runtime, const Value& self, Arguments& arguments) {
  Value affix;
  JINJA_RETURN_IF_ERROR(arguments.Bind("removeprefix", {RequiredPositional(affix)}));
  JINJA_ASSIGN_OR_RETURN(const Text* text, TextArgument("removeprefix", affix));
  const std::string_view bytes = self.text().bytes();
  const bool found = kPrefix ? bytes.starts_with(text->bytes()) : bytes.ends_with(text->bytes());
  if (!found) return self;
  return Substring(
      self,
      kPrefix ? ByteRange{text->size(), bytes.size()} : ByteRange{0, bytes.size() - text->size()},
      runtime.budget);
}

// Whether the text is not empty and `holds` for every character.
template <bool (*kHolds)(char32_t)>
Result All(Runtime& runtime, const Value& self, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("str method"));
  const std::string& bytes = self.text().bytes();
  runtime.budget.Work(bytes.size());
  for (size_t at = 0; at < bytes.size();) {
    const DecodedCodePoint c = DecodeAt(bytes, at);
    if (!kHolds(c.value)) return Value(false);
    at += c.size;
  }
  return Value(!bytes.empty());
}

bool IsAlnumCharacter(char32_t c) { return IsAlnum(c); }

Result IsAscii(Runtime&, const Value& self, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("isascii"));
  return Value(self.string().ascii());
}

Result IsPrintableMethod(Runtime& runtime, const Value& self, Arguments& arguments) {
  if (self.text().empty()) return Value(true);
  return All<IsPrintable>(runtime, self, arguments);
}

// Some letter with case, and none of the other case.
template <bool kUpper>
Result IsCase(Runtime& runtime, const Value& self, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("str method"));
  const std::string& bytes = self.text().bytes();
  runtime.budget.Work(bytes.size());
  bool cased = false;
  for (size_t at = 0; at < bytes.size();) {
    const DecodedCodePoint c = DecodeAt(bytes, at);
    if (IsTitle(c.value) || (kUpper ? IsLower(c.value) : IsUpper(c.value))) return Value(false);
    cased |= kUpper ? IsUpper(c.value) : IsLower(c.value);
    at += c.size;
  }
  return Value(cased);
}

Result IsTitleMethod(Runtime& runtime, const Value& self, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("istitle"));
  const std::string& bytes = self.text().bytes();
  runtime.budget.Work(bytes.size());
  bool cased = false;
  bool in_word = false;
  for (size_t at = 0; at < bytes.size();) {
    const DecodedCodePoint c = DecodeAt(bytes, at);
    const bool capital = IsUpper(c.value) || IsTitle(c.value);
    const bool small = IsLower(c.value);
    if ((capital && in_word) || (small && !in_word)) return Value(false);
    in_word = capital || small;
    cased |= in_word;
    at += c.size;
  }
  return Value(cased);
}

constexpr Method kMethods[] = {
    {"capitalize", Mapped<AppendCapitalized>},
    {"casefold", Mapped<AppendFoldedCase>},
    {"center", Justify<Align::kCenter>},
    {"count", Count},
    {"endswith", StartsOrEnds<false>},
    {"expandtabs", ExpandTabs},
    {"find", Find<false>},
    {"format", Format},
    {"index", Index<false>},
    {"isalnum", All<IsAlnumCharacter>},
    {"isalpha", All<IsAlpha>},
    {"isascii", IsAscii},
    {"isdecimal", All<IsDecimal>},
    {"isdigit", All<IsDigit>},
    {"islower", IsCase<false>},
    {"isnumeric", All<IsNumeric>},
    {"isprintable", IsPrintableMethod},
    {"isspace", All<IsSpace>},
    {"istitle", IsTitleMethod},
    {"isupper", IsCase<true>},
    {"join", Join},
    {"ljust", Justify<Align::kLeft>},
    {"lower", Mapped<WholeLower>},
    {"lstrip", Strip<true, false>},
    {"partition", Partition<false>},
    {"removeprefix", RemoveAffix<true>},
    {"removesuffix", RemoveAffix<false>},
    {"replace", Replace},
    {"rfind", Find<true>},
    {"rindex", Index<true>},
    {"rjust", Justify<Align::kRight>},
    {"rpartition", Partition<true>},
    {"rsplit", SplitMethod<true>},
    {"rstrip", Strip<false, true>},
    {"split", SplitMethod<false>},
    {"splitlines", SplitLinesMethod},
    {"startswith", StartsOrEnds<true>},
    {"strip", Strip<true, true>},
    {"swapcase", Mapped<AppendSwappedCase>},
    {"title", Mapped<AppendTitleCase>},
    {"upper", Mapped<WholeUpper>},
    {"zfill", ZeroFill},
};

}  // namespace

const Method* FindStringMethod(std::string_view name) {
  const auto* found = std::find_if(std::begin(kMethods), std::end(kMethods),
                                   [name](const Method& method) { return method.name == name; });
  return found == std::end(kMethods) ? nullptr : found;
}

}  // namespace fairlead::jinja

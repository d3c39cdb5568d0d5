// SPDX-License-Identifier: Apache-2.0
// The two mini languages of Python's string formatting.
#include "models/jinja/format.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "kernels/strings.h"
#include "models/jinja/format_number.h"
#include "models/jinja/operators.h"
#include "models/jinja/printer.h"
#include "models/jinja/status_macros.h"
#include "models/jinja/string_ops.h"
#include "models/jinja/unicode.h"

namespace fairlead::jinja {
namespace {

// `value` by conversion r, a or s, as one text.
Text Converted(const Value& value, char conversion, Budget& budget) {
  TextBuilder builder(budget);
  if (conversion == 's') {
    AppendStr(value, builder);
  } else {
    AppendRepr(value, builder);
  }
  return builder.TakeText();
}

// The first `count` code points.
Text Truncated(const Text& text, int count) {
  size_t end = 0;
  for (int i = 0; i < count && end < text.size(); ++i) end += DecodeAt(text.bytes(), end).size;
  Text cut;
  cut.Append(text, 0, end);
  return cut;
}

void AppendField(Text text, const NumberFormat& format, TextBuilder& out) {
  if (format.precision >= 0) text = Truncated(text, format.precision);
  const Align align = format.align == '>'   ? Align::kRight
                      : format.align == '^' ? Align::kCenter
                                            : Align::kLeft;
  AppendAligned(text, CountCodePoints(text.bytes()), format.width, align,
                Text(format.fill, format.trusted), out);
}

// Reads `"%..." % arguments` left to right.
class PercentFormatter {
 public:
  PercentFormatter(Runtime& runtime, const Text& format, const Value& arguments, TextBuilder& out)
      : runtime_(runtime), format_(format), arguments_(arguments), out_(out) {}

  absl::Status Run() {
    const std::string& bytes = format_.bytes();
    runtime_.budget.Work(bytes.size());
    while (at_ < bytes.size()) {
      const size_t percent = std::min(bytes.find('%', at_), bytes.size());
      out_.Append(format_, at_, percent);
      at_ = percent + 1;
      if (percent < bytes.size()) JINJA_RETURN_IF_ERROR(Conversion(percent));
      if (!runtime_.budget.Step()) return runtime_.budget.status();
    }
    // Python counts only what cannot be subscripted by name as unused.
    const bool subscriptable = arguments_.is_dict() || arguments_.is_list() ||
                               arguments_.As<Range>() != nullptr || arguments_.is_undefined();
    const bool all_used =
        arguments_.is_tuple() ? used_ >= arguments_.items().size() : used_ > 0 || subscriptable;
    if (!all_used && !keyed_) {
      return TypeError("not all arguments converted during string formatting");
    }
    return absl::OkStatus();
  }

 private:
  char Current() const { return at_ < format_.size() ? format_.bytes()[at_] : '\0'; }

  absl::StatusOr<Value> NextArgument() {
    if (keyed_value_) return *std::exchange(keyed_value_, std::nullopt);
    if (!arguments_.is_tuple()) {
      // A key takes the whole of what there is.
      if (used_++ > 0 || keyed_) return TypeError("not enough arguments for format string");
      return arguments_;
    }
    if (used_ >= arguments_.items().size()) {
      return TypeError("not enough arguments for format string");
    }
    return arguments_.items()[used_++];
  }

  absl::Status Key() {
    const size_t end = format_.bytes().find(')', at_);
    if (end == std::string::npos) return TypeError("incomplete format key");
    if (!arguments_.is_dict()) return TypeError("format requires a mapping");
    const std::string key = format_.bytes().substr(at_ + 1, end - at_ - 1);
    const Value* found = arguments_.dict().Find(key);
    if (found == nullptr) return absl::InvalidArgumentError(StrCat("KeyError: '", key, "'"));
    keyed_value_ = *found;
    keyed_ = true;
    at_ = end + 1;
    return absl::OkStatus();
  }

  // A number in the format, or `*` for one from the arguments.
  absl::StatusOr<int> Number(int otherwise) {
    if (Current() == '*') {
      ++at_;
      JINJA_ASSIGN_OR_RETURN(const Value value, NextArgument());
      if (!value.is_integral()) return TypeError("* wants int");
      return CheckedFormatNumber(value.as_int());
    }
    if (!absl::ascii_isdigit(static_cast<unsigned char>(Current()))) return otherwise;
    Int number = 0;
    while (absl::ascii_isdigit(static_cast<unsigned char>(Current()))) {
      number = std::min<Int>(number * 10 + (Current() - '0'), kMaxInt);
      ++at_;
    }
    return CheckedFormatNumber(number);
  }

  absl::Status Conversion(size_t percent) {
    if (Current() == '(') JINJA_RETURN_IF_ERROR(Key());
    NumberFormat format;
    format.align = '>';
    bool left = false;
    for (bool flags = true; flags;) {
      switch (Current()) {
        case '-':
          left = true;
          break;
        case '+':
          format.sign = '+';
          break;
        case ' ':
          if (format.sign != '+') format.sign = ' ';
          break;
        case '#':
          format.alternate = true;
          break;
        case '0':
          format.zero = true;
          break;
        default:
          flags = false;
      }
      if (flags) ++at_;
    }
    JINJA_ASSIGN_OR_RETURN(format.width, Number(0));
    if (format.width < 0) {
      left = true;
      format.width = -format.width;
    }
    if (Current() == '.') {
      ++at_;
      JINJA_ASSIGN_OR_RETURN(format.precision, Number(0));
      format.precision = std::max(format.precision, 0);
    }
    while (Current() == 'h' || Current() == 'l' || Current() == 'L') ++at_;
    if (at_ >= format_.size()) return absl::InvalidArgumentError("incomplete format");
    format.type = Current();
    ++at_;
    if (left) format.align = '<';
    if (format.type == '%') {
      out_.Append(format_, percent, percent + 1);
      return absl::OkStatus();
    }
    JINJA_ASSIGN_OR_RETURN(const Value value, NextArgument());
    return Convert(value, format);
  }

  absl::Status Convert(const Value& value, NumberFormat format) {
    switch (format.type) {
      case 's':
      case 'r':
      case 'a':
        AppendField(Converted(value, format.type, runtime_.budget), format, out_);
        return absl::OkStatus();
      case 'c':
        return Character(value, format);
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o':
        return Integer(value, format);
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        if (!value.is_number()) {
          if (const auto* undefined = value.As<Undefined>()) return undefined->Error();
          return TypeError(StrCat("must be real number, not ", TypeName(value)));
        }
        if (format.precision < 0) format.precision = 6;
        PadWithZeros(format);
        out_.Append(FormatFloat(value.as_double(), format), true);
        return absl::OkStatus();
      default:
        return absl::InvalidArgumentError(
            StrCat("unsupported format character '", std::string(1, format.type), "'"));
    }
  }

  // The flag 0 pads numbers after their sign, unless they are to stand left.
  static void PadWithZeros(NumberFormat& format) {
    if (!format.zero || format.align == '<') return;
    format.align = '=';
    format.fill.assign(1, '0');
  }

  absl::Status Integer(const Value& value, NumberFormat format) {
    if (const auto* undefined = value.As<Undefined>()) return undefined->Error();
    const bool decimal = format.type == 'd' || format.type == 'i' || format.type == 'u';
    if (!value.is_integral() && !(decimal && value.is_float())) {
      return TypeError(StrCat("%", std::string(1, format.type),
                              " format: a number is required, not ", TypeName(value)));
    }
    JINJA_ASSIGN_OR_RETURN(const Value whole,
                           value.is_float() ? Truncate(value.as_double()) : NewInt(value.as_int()));
    if (decimal) format.type = 'd';
    PadWithZeros(format);
    out_.Append(FormatInt(whole.as_int(), format), true);
    return absl::OkStatus();
  }

  absl::Status Character(const Value& value, NumberFormat format) {
    format.precision = -1;
    if (value.is_string() && value.string().length == 1) {
      AppendField(value.text(), format, out_);
      return absl::OkStatus();
    }
    if (!value.is_integral()) return TypeError("%c requires int or char");
    JINJA_ASSIGN_OR_RETURN(std::string character, CharacterOf(value.as_int()));
    AppendField(Text(std::move(character), true), format, out_);
    return absl::OkStatus();
  }

  Runtime& runtime_;
  const Text& format_;
  const Value& arguments_;
  TextBuilder& out_;
  size_t at_ = 0;
  size_t used_ = 0;
  bool keyed_ = false;
  std::optional<Value> keyed_value_;
};

}  // namespace

absl::StatusOr<Value> FormatPercent(Runtime& runtime, const Value& format, const Value& arguments) {
  TextBuilder builder(runtime.budget);
  JINJA_RETURN_IF_ERROR(PercentFormatter(runtime, format.text(), arguments, builder).Run());
  return NewString(std::move(builder), format.string().markup);
}

absl::Status AppendFormatted(Runtime& runtime, const Value& value, const Text& specification,
                             TextBuilder& out) {
  if (specification.empty()) {
    AppendStr(value, out);
    return absl::OkStatus();
  }
  JINJA_ASSIGN_OR_RETURN(NumberFormat format, ParseFormat(specification.bytes()));
  format.trusted = specification.AllTrusted();
  if (value.is_string()) {
    if (format.type != '\0' && format.type != 's') {
      return absl::InvalidArgumentError(StrCat("Unknown format code '", std::string(1, format.type),
                                               "' for object of type 'str'"));
    }
    if (format.sign != '\0' || format.alternate || format.grouping != '\0' || format.align == '=') {
      return absl::InvalidArgumentError("Sign, '=' and grouping are not allowed for strings");
    }
    AppendField(value.text(), format, out);
    return absl::OkStatus();
  }
  if (!value.is_number()) {
    return TypeError(
        StrCat("unsupported format string passed to ", TypeName(value), ".__format__"));
  }
  JINJA_ASSIGN_OR_RETURN(const std::string text, FormatNumber(value, format));
  out.Append(text, format.trusted);
  return absl::OkStatus();
}

namespace {

// Reads `"{...}".format(...)` left to right.
class BraceFormatter {
 public:
  BraceFormatter(Runtime& runtime, const Arguments& arguments)
      : runtime_(runtime), arguments_(arguments) {}

  absl::Status Run(const Text& format, int depth, TextBuilder& out) {
    if (depth > 1) return absl::InvalidArgumentError("Max string recursion exceeded");
    const std::string& bytes = format.bytes();
    runtime_.budget.Work(bytes.size());
    size_t at = 0;
    while (at < bytes.size()) {
      if (!runtime_.budget.Step()) return runtime_.budget.status();
      const size_t brace = std::min(bytes.find_first_of("{}", at), bytes.size());
      out.Append(format, at, brace);
      if (brace == bytes.size()) break;
      if (brace + 1 < bytes.size() && bytes[brace + 1] == bytes[brace]) {
        out.Append(format, brace, brace + 1);
        at = brace + 2;
        continue;
      }
      if (bytes[brace] == '}') {
        return absl::InvalidArgumentError("Single '}' encountered in format string");
      }
      const size_t end = FieldEnd(bytes, brace + 1);
      if (end == std::string::npos) {
        return absl::InvalidArgumentError("expected '}' before end of string");
      }
      JINJA_RETURN_IF_ERROR(Field(format, brace + 1, end, depth, out));
      at = end + 1;
    }
    return absl::OkStatus();
  }

 private:
  static size_t FieldEnd(const std::string& bytes, size_t at) {
    int open = 1;
    for (; at < bytes.size(); ++at) {
      if (bytes[at] == '{') ++open;
      if (bytes[at] == '}' && --open == 0) return at;
    }
    return std::string::npos;
  }

  absl::Status Field(const Text& format, size_t begin, size_t end, int depth, TextBuilder& out) {
    const std::string_view field = std::string_view(format.bytes()).substr(begin, end - begin);
    size_t name_end = 0;
    bool in_brackets = false;
    while (name_end < field.size() &&
           (in_brackets || (field[name_end] != '!' && field[name_end] != ':'))) {
      if (field[name_end] == '[') in_brackets = true;
      if (field[name_end] == ']') in_brackets = false;
      ++name_end;
    }
    JINJA_ASSIGN_OR_RETURN(Value value, Lookup(field.substr(0, name_end)));
    size_t at = name_end;
    if (at < field.size() && field[at] == '!') {
      if (at + 1 >= field.size() || (at + 2 < field.size() && field[at + 2] != ':')) {
        return absl::InvalidArgumentError("expected ':' after conversion specifier");
      }
      const char conversion = field[at + 1];
      if (conversion != 's' && conversion != 'r' && conversion != 'a') {
        return absl::InvalidArgumentError("Unknown conversion specifier");
      }
      value = NewString(Converted(value, conversion, runtime_.budget));
      at += 2;
    }
    TextBuilder specification(runtime_.budget);
    if (at < field.size()) {
      Text nested;
      nested.Append(format, begin + at + 1, end);
      JINJA_RETURN_IF_ERROR(Run(nested, depth + 1, specification));
    }
    return AppendFormatted(runtime_, value, specification.TakeText(), out);
  }

  static bool IsNumber(std::string_view name) {
    return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
      return absl::ascii_isdigit(static_cast<unsigned char>(c));
    });
  }

  // Of the whole field: "" takes the next argument, a number that one; the two do not mix.
  absl::Status CheckNumbering(std::string_view path) {
    if (!path.empty() && !IsNumber(path)) return absl::OkStatus();
    const Numbering wanted = path.empty() ? Numbering::kAutomatic : Numbering::kManual;
    if (numbering_ != Numbering::kUnknown && numbering_ != wanted) {
      return absl::InvalidArgumentError(
          "cannot mix automatic field numbering and manual field specification");
    }
    numbering_ = wanted;
    return absl::OkStatus();
  }

  absl::StatusOr<Value> First(std::string_view name, bool automatic) {
    if (automatic || IsNumber(name)) {
      size_t index = 0;
      for (const char c : name) {
        index = std::min<size_t>(index * 10 + static_cast<size_t>(c - '0'), 1u << 30);
      }
      if (automatic) index = next_++;
      if (index >= arguments_.positional.size()) {
        return absl::InvalidArgumentError(
            StrCat("Replacement index ", index, " out of range for positional args tuple"));
      }
      return arguments_.positional[index];
    }
    runtime_.budget.Work(16 * arguments_.named.size());
    for (const auto& [key, value] : arguments_.named) {
      if (key == name) return value;
    }
    return absl::InvalidArgumentError(StrCat("KeyError: '", name, "'"));
  }

  // `name`, `name.attribute`, `name[key]` and so on.
  absl::StatusOr<Value> Lookup(std::string_view path) {
    const size_t first_end = std::min(path.find_first_of(".["), path.size());
    JINJA_RETURN_IF_ERROR(CheckNumbering(path));
    JINJA_ASSIGN_OR_RETURN(Value value, First(path.substr(0, first_end), path.empty()));
    size_t at = first_end;
    while (at < path.size()) {
      if (!runtime_.budget.Step()) return runtime_.budget.status();
      if (path[at] == '.') {
        const size_t end = std::min(path.find_first_of(".[", at + 1), path.size());
        const std::string_view name = path.substr(at + 1, end - at - 1);
        if (name.empty()) return absl::InvalidArgumentError("Empty attribute in format string");
        JINJA_ASSIGN_OR_RETURN(
            value, GetAttribute(runtime_, value, name, NewTrusted(name, runtime_.budget)));
        at = end;
        continue;
      }
      const size_t end = path.find(']', at);
      if (path[at] != '[' || end == std::string_view::npos || end == at + 1) {
        return absl::InvalidArgumentError("malformed field in format string");
      }
      const std::string_view key = path.substr(at + 1, end - at - 1);
      const bool number = IsNumber(key);
      Int index = 0;
      for (const char c : number ? key : "") index = std::min<Int>(index * 10 + (c - '0'), kMaxInt);
      JINJA_ASSIGN_OR_RETURN(
          value,
          GetItem(runtime_, value, number ? Value(index) : NewTrusted(key, runtime_.budget)));
      at = end + 1;
    }
    return value;
  }

  enum class Numbering { kUnknown, kAutomatic, kManual };

  Runtime& runtime_;
  const Arguments& arguments_;
  Numbering numbering_ = Numbering::kUnknown;
  size_t next_ = 0;
};

}  // namespace

absl::StatusOr<Value> FormatBraces(Runtime& runtime, const Value& format,
                                   const Arguments& arguments) {
  TextBuilder builder(runtime.budget);
  JINJA_RETURN_IF_ERROR(BraceFormatter(runtime, arguments).Run(format.text(), 0, builder));
  return NewString(std::move(builder), format.string().markup);
}

}  // namespace fairlead::jinja

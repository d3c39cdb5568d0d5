// SPDX-License-Identifier: Apache-2.0
#include "server/config_flag.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

absl::Status Refuse(std::string_view text, std::string_view allowed) {
  return absl::InvalidArgumentError(StrCat("'", text, "' is not ", allowed));
}

// Bytes of one unit; 0 for an unknown one.
double UnitBytes(std::string_view unit) {
  if (unit.empty() || unit == "b") return 1;
  const size_t power = std::string_view("kmgt").find(unit.front());
  if (power == std::string_view::npos) return 0;
  const std::string_view rest = unit.substr(1);
  if (rest.empty() || rest == "i" || rest == "ib") return std::pow(1024.0, power + 1.0);
  return rest == "b" ? std::pow(1000.0, power + 1.0) : 0;
}

std::string Number(double value) { return absl::StrFormat("%g", value); }

// A number of the field's kind in [low, high].
template <typename T, typename Parse>
absl::Status SetNumber(std::string_view text, T low, T high, const char* kind, Parse parse,
                       T& field) {
  T value{};
  if (!parse(AbslView(text), &value) || !(value >= low && value <= high)) {
    if constexpr (std::is_floating_point_v<T>) {
      return Refuse(text, StrCat(kind, " from ", Number(low), " to ", Number(high)));
    } else {
      return Refuse(text, StrCat(kind, " from ", low, " to ", high));
    }
  }
  field = value;
  return absl::OkStatus();
}

absl::Status SetInteger(std::string_view text, int64_t low, int64_t high, int64_t& field) {
  return SetNumber<int64_t>(
      text, low, high, "a whole number",
      [](absl::string_view t, int64_t* v) { return absl::SimpleAtoi(t, v); }, field);
}

absl::Status SetDouble(std::string_view text, double low, double high, double& field) {
  return SetNumber<double>(
      text, low, high, "a number",
      [](absl::string_view t, double* v) { return absl::SimpleAtod(t, v); }, field);
}

}  // namespace

bool ListenAddress::IsLoopback() const {
  if (host == "localhost") return true;
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

std::string ListenAddress::ToString() const {
  if (off()) return "off";
  return absl::StrContains(host, ':') ? StrCat("[", host, "]:", port) : StrCat(host, ":", port);
}

absl::Status ParseMemorySize(std::string_view text, MemorySize& size) {
  constexpr char kAllowed[] = "a size such as 512MiB, 2G, 1500000 or 25%";
  const std::string lower = absl::AsciiStrToLower(AbslView(text));
  const size_t digits = std::min(lower.find_first_not_of("0123456789."), lower.size());
  double number = 0;
  if (digits == 0 || !absl::SimpleAtod(lower.substr(0, digits), &number) || !(number > 0))
    return Refuse(text, kAllowed);
  const std::string unit = lower.substr(digits);
  if (unit == "%") {
    if (number > 100) return Refuse(text, "a share up to 100%");
    size = {.percent = number};
    return absl::OkStatus();
  }
  const double bytes = number * UnitBytes(unit);
  if (!(bytes >= 1) || bytes > std::ldexp(1.0, 62)) return Refuse(text, kAllowed);
  size = {.bytes = static_cast<uint64_t>(bytes)};
  return absl::OkStatus();
}

absl::Status ParseListenAddress(std::string_view text, ListenAddress& address) {
  constexpr char kAllowed[] = "HOST:PORT (such as 127.0.0.1:8000 or [::1]:0) or 'off'";
  if (text == "off") {
    address = {};
    return absl::OkStatus();
  }
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return Refuse(text, kAllowed);
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  if (host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
    if (host.find(':') == std::string_view::npos) return Refuse(text, kAllowed);
  } else if (host.find_first_of(":[]") != std::string_view::npos) {
    return Refuse(text, kAllowed);
  }
  if (host.empty() || host.find_first_of(" \t/") != std::string_view::npos)
    return Refuse(text, kAllowed);
  int64_t number = 0;
  if (port.empty() || port.find_first_not_of("0123456789") != std::string_view::npos ||
      !SetInteger(port, 0, 65535, number).ok()) {
    return Refuse(text, StrCat(kAllowed, " with a port from 0 to 65535"));
  }
  address = {.host = std::string(host), .port = static_cast<int>(number)};
  return absl::OkStatus();
}

Flag TextFlag(std::string name, std::string value, std::string help, std::string* field) {
  return {.name = std::move(name),
          .value = std::move(value),
          .help = std::move(help),
          .set =
              [field](std::string_view text) {
                *field = std::string(text);
                return absl::OkStatus();
              },
          .get = [field] { return Json(*field); }};
}

Flag ChoiceFlag(std::string name, std::vector<std::string> choices, std::string help,
                std::string* field) {
  Flag flag = TextFlag(std::move(name), absl::StrJoin(choices, "|"), std::move(help), field);
  flag.set = [choices = std::move(choices), field](std::string_view text) {
    for (const std::string& choice : choices) {
      if (text != choice) continue;
      *field = choice;
      return absl::OkStatus();
    }
    return Refuse(text, StrCat("one of ", absl::StrJoin(choices, ", ")));
  };
  return flag;
}

Flag IntFlag(std::string name, int low, int high, std::string help, int* field) {
  return {.name = std::move(name),
          .value = "N",
          .help = std::move(help),
          .set =
              [low, high, field](std::string_view text) {
                int64_t value = *field;
                const absl::Status status = SetInteger(text, low, high, value);
                *field = static_cast<int>(value);
                return status;
              },
          .get = [field] { return Json(*field); }};
}

Flag OptionalIntFlag(std::string name, int64_t low, int64_t high, std::string help,
                     std::optional<int64_t>* field) {
  return {
      .name = std::move(name),
      .value = "N",
      .help = std::move(help),
      .set = [low, high, field](
                 std::string_view text) { return SetInteger(text, low, high, field->emplace()); },
      .get = [field] { return field->has_value() ? Json(**field) : Json(nullptr); }};
}

Flag OptionalNumberFlag(std::string name, double low, double high, std::string help,
                        std::optional<double>* field) {
  return {
      .name = std::move(name),
      .value = "X",
      .help = std::move(help),
      .set = [low, high, field](
                 std::string_view text) { return SetDouble(text, low, high, field->emplace()); },
      .get = [field] { return field->has_value() ? Json(**field) : Json(nullptr); }};
}

Flag NumberFlag(std::string name, double low, double high, std::string help, double* field) {
  return {.name = std::move(name),
          .value = "X",
          .help = std::move(help),
          .set = [low, high,
                  field](std::string_view text) { return SetDouble(text, low, high, *field); },
          .get = [field] { return Json(*field); }};
}

Flag SwitchFlag(std::string name, std::string help, bool* field) {
  return {.name = std::move(name),
          .value = "",
          .help = std::move(help),
          .set =
              [field](std::string_view text) {
                if (text != "true" && text != "false") return Refuse(text, "true or false");
                *field = text == "true";
                return absl::OkStatus();
              },
          .get = [field] { return Json(*field); }};
}

Flag MemoryFlag(std::string name, std::string help, std::optional<MemorySize>* field) {
  return {.name = std::move(name),
          .value = "SIZE",
          .help = std::move(help),
          .set = [field](std::string_view text) { return ParseMemorySize(text, field->emplace()); },
          .get =
              [field] {
                if (!field->has_value()) return Json(nullptr);
                const MemorySize& size = **field;
                return size.percent > 0 ? Json(Number(size.percent) + "%") : Json(size.bytes);
              }};
}

Flag BytesFlag(std::string name, uint64_t low, uint64_t high, std::string help, uint64_t* field) {
  return {.name = std::move(name),
          .value = "SIZE",
          .help = std::move(help),
          .set =
              [low, high, field](std::string_view text) {
                MemorySize size;
                if (absl::Status status = ParseMemorySize(text, size); !status.ok()) return status;
                if (size.percent > 0 || size.bytes < low || size.bytes > high)
                  return Refuse(text, StrCat("a size from ", low, " to ", high, " bytes"));
                *field = size.bytes;
                return absl::OkStatus();
              },
          .get = [field] { return Json(*field); }};
}

Flag AddressFlag(std::string name, std::string help, ListenAddress* field) {
  return {.name = std::move(name),
          .value = "HOST:PORT",
          .help = std::move(help),
          .set = [field](std::string_view text) { return ParseListenAddress(text, *field); },
          .get = [field] { return Json(field->ToString()); }};
}

}  // namespace fairlead

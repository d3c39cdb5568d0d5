// SPDX-License-Identifier: Apache-2.0
#include "server/json_fields.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "models/config_reader.h"
#include "server/errors.h"

namespace fairlead {

std::optional<int64_t> JsonInteger(const Json& value, int64_t low, int64_t high) {
  int64_t number = 0;
  if (value.is_number_unsigned()) {
    const uint64_t large = value.get<uint64_t>();
    if (large > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    number = static_cast<int64_t>(large);
  } else if (value.is_number_integer()) {
    number = value.get<int64_t>();
  } else if (value.is_number_float()) {
    const double real = value.get<double>();
    if (!(std::abs(real) < 0x1p53) || real != std::floor(real)) return std::nullopt;
    number = static_cast<int64_t>(real);
  } else {
    return std::nullopt;
  }
  if (number < low || number > high) return std::nullopt;
  return number;
}

const Json* JsonFields::Find(std::string_view name) const {
  const auto found = object_.find(std::string(name));
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void JsonFields::Fail(std::string_view name, std::string_view message) {
  if (!status_.ok()) return;
  const std::string field = prefix_ + std::string(name);
  status_ = FieldError(field, absl::StrCat(field, " ", std::string(message)));
}

void JsonFields::FailType(std::string_view name, const Json& value, std::string_view allowed) {
  Fail(name, absl::StrCat("is ", ShortDump(value), "; it must be ", std::string(allowed)));
}

std::optional<bool> JsonFields::Bool(std::string_view name) {
  const Json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>();
  FailType(name, *value, "true or false");
  return std::nullopt;
}

std::optional<int64_t> JsonFields::Int64(std::string_view name) {
  const Json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  const auto number =
      JsonInteger(*value, std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max());
  if (!number) FailType(name, *value, "an integer of at most 64 bits");
  return number;
}

std::optional<int32_t> JsonFields::Int(std::string_view name) {
  const Json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  const auto number =
      JsonInteger(*value, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max());
  if (number) return static_cast<int32_t>(*number);
  FailType(name, *value, "an integer of at most 32 bits");
  return std::nullopt;
}

std::optional<float> JsonFields::Float(std::string_view name) {
  const Json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_number()) {
    const double number = value->get<double>();
    if (std::abs(number) <= std::numeric_limits<float>::max()) return static_cast<float>(number);
  }
  FailType(name, *value, "a finite number");
  return std::nullopt;
}

std::optional<std::string> JsonFields::String(std::string_view name) {
  const Json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  FailType(name, *value, "a string");
  return std::nullopt;
}

const Json* JsonFields::Object(std::string_view name) {
  const Json* value = Find(name);
  if (value == nullptr || value->is_object()) return value;
  FailType(name, *value, "an object");
  return nullptr;
}

const Json* JsonFields::Array(std::string_view name) {
  const Json* value = Find(name);
  if (value == nullptr || value->is_array()) return value;
  FailType(name, *value, "an array");
  return nullptr;
}

}  // namespace fairlead

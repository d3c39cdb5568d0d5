// SPDX-License-Identifier: Apache-2.0
#include "models/config_reader.h"

#include <cmath>
#include <cstdint>
#include <utility>

#include "kernels/strings.h"

namespace fairlead {
namespace {

constexpr size_t kLongestDump = 80;

}  // namespace

std::string ShortDump(const Json& value) {
  if (value.is_structured() && value.size() > kLongestDump) {
    return StrCat(value.is_array() ? "an array of " : "an object of ", value.size());
  }
  std::string text = DumpJson(value);
  if (text.size() > kLongestDump) {
    size_t end = kLongestDump;
    while ((text[end] & 0xC0) == 0x80) --end;  // to the start of a character
    text.resize(end);
    text += "...";
  }
  return text;
}

bool IsNeutral(const Json& value, double neutral) {
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number()) return value.get<double>() == 0 || value.get<double>() == neutral;
  return value.is_structured() && value.empty();
}

ConfigReader::ConfigReader(const Json& config, std::string where)
    : config_(config), where_(std::move(where)) {
  if (!config.is_object()) {
    status_ = absl::InvalidArgumentError(
        StrCat("config ", where_, " is ", ShortDump(config), "; it must be an object"));
  }
}

const Json* ConfigReader::Find(std::string_view key) const {
  if (!config_.is_object()) return nullptr;
  const auto found = config_.find(key);
  return found == config_.end() || found->is_null() ? nullptr : &*found;
}

bool ConfigReader::IsNull(std::string_view key) const {
  const auto found = config_.find(key);
  return found != config_.end() && found->is_null();
}

int ConfigReader::Int(std::string_view key, int min, int max, std::optional<int> fallback) {
  const std::string allowed = StrCat("an integer from ", min, " to ", max);
  const Json* value = Find(key);
  if (value == nullptr) {
    if (!fallback) FailValue(key, Json(), allowed);
    return fallback.value_or(0);
  }
  const bool fits = value->is_number_unsigned()
                        ? value->get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX)
                        : value->is_number_integer();
  const int64_t number = fits ? value->get<int64_t>() : 0;
  if (!fits || number < min || number > max) {
    FailValue(key, *value, allowed);
    return fallback.value_or(0);
  }
  return static_cast<int>(number);
}

double ConfigReader::Real(std::string_view key, double min, double max,
                          std::optional<double> fallback) {
  const std::string allowed = StrCat("a number from ", min, " to ", max);
  const Json* value = Find(key);
  if (value == nullptr) {
    if (!fallback) FailValue(key, Json(), allowed);
    return fallback.value_or(0);
  }
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (!(number >= min && number <= max)) {  // a NaN too
    FailValue(key, *value, allowed);
    return fallback.value_or(0);
  }
  return number;
}

bool ConfigReader::Bool(std::string_view key, bool fallback) {
  const Json* value = Find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) {
    FailValue(key, *value, "true or false");
    return fallback;
  }
  return value->get<bool>();
}

std::string ConfigReader::String(std::string_view key, std::string_view fallback) {
  const Json* value = Find(key);
  if (value == nullptr) return std::string(fallback);
  if (!value->is_string()) {
    FailValue(key, *value, "a string");
    return std::string(fallback);
  }
  return value->get<std::string>();
}

void ConfigReader::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
}

void ConfigReader::FailValue(std::string_view key, const Json& value, std::string_view allowed) {
  const std::string what = value.is_null() ? "is missing" : StrCat("is ", ShortDump(value));
  Fail(absl::InvalidArgumentError(
      StrCat("config key \"", where_, key, "\" ", what, "; it must be ", allowed)));
}

}  // namespace fairlead

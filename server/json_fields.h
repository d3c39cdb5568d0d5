// SPDX-License-Identifier: Apache-2.0
// Typed access to a JSON object's fields, the way OpenAI's API reads them: null is the same as
// absent, a wrong type is an error that names the field, its value and the type it must have. The
// first error is kept; readers go on with defaults. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "models/json.h"

namespace fairlead {

class JsonFields {
 public:
  // `prefix` comes before the names in errors ("stream_options."). object must outlive this.
  explicit JsonFields(const Json& object, std::string prefix = "")
      : object_(object), prefix_(std::move(prefix)) {}

  // Null if absent or null.
  const Json* Find(std::string_view name) const;
  std::optional<bool> Bool(std::string_view name);
  std::optional<int64_t> Int64(std::string_view name);
  // An integer that fits 32 bits.
  std::optional<int32_t> Int(std::string_view name);
  // A finite number that fits float32.
  std::optional<float> Float(std::string_view name);
  std::optional<std::string> String(std::string_view name);
  const Json* Object(std::string_view name);
  const Json* Array(std::string_view name);

  void Fail(std::string_view name, std::string_view message);
  const absl::Status& status() const { return status_; }

 private:
  void FailType(std::string_view name, const Json& value, std::string_view allowed);

  const Json& object_;
  std::string prefix_;
  absl::Status status_;
};

// One JSON number as an integer: no fraction, inside [low, high].
std::optional<int64_t> JsonInteger(const Json& value, int64_t low, int64_t high);

}  // namespace fairlead

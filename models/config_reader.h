// SPDX-License-Identifier: Apache-2.0
// Typed, bounded reads from a config's JSON. The first failure sticks; later reads return their
// fallback or zero, so that a parser reads everything and asks for status() once. One thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "models/json.h"

namespace fairlead {

class ConfigReader {
 public:
  // `config` is borrowed. `where` precedes the key in messages: "rope_scaling.".
  explicit ConfigReader(const Json& config, std::string where = "");

  // Null if the key is absent or its value is null.
  const Json* Find(std::string_view key) const;
  // Whether the key is there with the value null, which switches something off.
  bool IsNull(std::string_view key) const;

  // Without a fallback the key is required.
  int Int(std::string_view key, int min, int max, std::optional<int> fallback = std::nullopt);
  double Real(std::string_view key, double min, double max,
              std::optional<double> fallback = std::nullopt);
  bool Bool(std::string_view key, bool fallback);
  std::string String(std::string_view key, std::string_view fallback);

  void Fail(absl::Status status);
  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }

 private:
  void FailValue(std::string_view key, const Json& value, std::string_view allowed);

  const Json& config_;
  const std::string where_;
  absl::Status status_;
};

// The value as JSON, cut to a length that fits a message.
std::string ShortDump(const Json& value);

// Whether the value of a key that asks for a feature switches it off: false, 0, `neutral`, or an
// empty list or object.
bool IsNeutral(const Json& value, double neutral);

}  // namespace fairlead

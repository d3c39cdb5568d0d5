// SPDX-License-Identifier: Apache-2.0
// The `loop` variable of a running loop. What a loop marked `recursive` prints for other items,
// loop(items) prints again.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/jinja/objects.h"

namespace fairlead::jinja {

class LoopState final : public Callable,
                        public WithAttributes,
                        public std::enable_shared_from_this<LoopState> {
 public:
  // Runs the loop for `items`, `depth` loops deep.
  using Recurse = std::function<absl::StatusOr<Value>(const Value& items, int depth)>;
  // `recurse`: null without the marker.
  LoopState(std::shared_ptr<Iterator> iterator, int depth0, Recurse recurse, Budget* budget);
  std::string_view type_name() const override { return "jinja2.runtime.LoopContext"; }
  std::string Describe() const override;
  absl::StatusOr<Value> Call(Runtime& runtime, Arguments& arguments) override;
  void Clear() override;

  // The next element of the loop; false at its end.
  absl::StatusOr<bool> Advance(Value& item);
  absl::StatusOr<std::optional<Value>> Attribute(Runtime& runtime, std::string_view name) override;
  // Whether `values` differ from those of the last call.
  bool Changed(const std::vector<Value>& values, Budget& budget);
  int64_t index0() const { return index0_; }

 private:
  // Reads one element ahead; false at the end.
  absl::StatusOr<bool> Peek();
  // The number of elements; reads the rest if only that tells.
  absl::StatusOr<int64_t> Length(Runtime& runtime);
  absl::StatusOr<std::optional<Value>> LengthAttribute(Runtime& runtime, std::string_view name);

  std::shared_ptr<Iterator> iterator_;
  int depth0_;
  Recurse recurse_;
  std::optional<int64_t> length_;
  int64_t index0_ = -1;
  Value before_, current_;
  std::optional<Value> after_;
  std::optional<std::vector<Value>> last_changed_;
  MemoryCharge charge_;
};

}  // namespace fairlead::jinja

// SPDX-License-Identifier: Apache-2.0
// absl::StrCat for std::string_view too. Where Abseil was built as C++14 (Debian 12),
// absl::string_view is a type of its own that std::string_view does not convert to; elsewhere the
// two are one. Any thread.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace fairlead {

inline absl::string_view AbslView(std::string_view text) { return {text.data(), text.size()}; }

namespace strings_internal {
template <typename T>
decltype(auto) Argument(const T& value) {
  if constexpr (std::is_same_v<T, std::string_view>) {
    return AbslView(value);
  } else {
    return (value);
  }
}
}  // namespace strings_internal

template <typename... T>
std::string StrCat(const T&... values) {
  return absl::StrCat(strings_internal::Argument(values)...);
}

template <typename... T>
void StrAppend(std::string* text, const T&... values) {
  absl::StrAppend(text, strings_internal::Argument(values)...);
}

}  // namespace fairlead

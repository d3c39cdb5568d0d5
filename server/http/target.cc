// SPDX-License-Identifier: Apache-2.0
#include "server/http/target.h"

#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

std::optional<int> HexDigit(char c) {
  if (absl::ascii_isdigit(static_cast<unsigned char>(c))) return c - '0';
  const char lower = absl::ascii_tolower(static_cast<unsigned char>(c));
  return lower >= 'a' && lower <= 'f' ? std::optional<int>(lower - 'a' + 10) : std::nullopt;
}

// Leaves what stands behind the authority; "/" where nothing does.
std::string_view WithoutAuthority(std::string_view target) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!absl::StartsWithIgnoreCase(AbslView(target), AbslView(scheme))) continue;
    const size_t end = target.find_first_of("/?", scheme.size());
    return end == std::string_view::npos || target[end] == '?' ? "/" : target.substr(end);
  }
  return target;
}

}  // namespace

std::string PathOfTarget(std::string_view target) {
  target = WithoutAuthority(target);
  target = target.substr(0, target.find('?'));
  std::string path;
  path.reserve(target.size());
  for (size_t i = 0; i < target.size(); ++i) {
    if (target[i] == '%' && i + 2 < target.size()) {
      const std::optional<int> high = HexDigit(target[i + 1]), low = HexDigit(target[i + 2]);
      if (high && low) {
        path += static_cast<char>(*high * 16 + *low);
        i += 2;
        continue;
      }
    }
    path += target[i];
  }
  return path;
}

}  // namespace fairlead

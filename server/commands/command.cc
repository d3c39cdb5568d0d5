// SPDX-License-Identifier: Apache-2.0
#include "server/commands/command.h"

#include "absl/strings/cord.h"

namespace fairlead {
namespace {
constexpr char kUsageUrl[] = "fairlead/usage";
}  // namespace

absl::Status UsageError(std::string_view message) {
  absl::Status status = absl::InvalidArgumentError({message.data(), message.size()});
  status.SetPayload(kUsageUrl, absl::Cord());
  return status;
}

bool IsUsageError(const absl::Status& status) { return status.GetPayload(kUsageUrl).has_value(); }

}  // namespace fairlead

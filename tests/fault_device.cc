// SPDX-License-Identifier: Apache-2.0
#include "tests/fault_device.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace fairlead {

void FaultDevice::FailAt(int64_t k) {
  fail_at_ = k;
  calls_ = 0;
}

absl::Status FaultDevice::NextCall(const char* what) {
  const int64_t call = calls_++;
  if (call != fail_at_) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("injected failure of call ", call, ": ", what));
}

absl::StatusOr<Buffer> FaultDevice::Allocate(size_t bytes) {
  if (absl::Status status = NextCall("Allocate"); !status.ok()) return status;
  return inner_.Allocate(bytes);
}

absl::StatusOr<std::unique_ptr<PackedWeight>> FaultDevice::PackWeight(const PackWeightArgs& args) {
  if (absl::Status status = NextCall("PackWeight"); !status.ok()) return status;
  return inner_.PackWeight(args);
}

}  // namespace fairlead

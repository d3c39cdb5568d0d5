// SPDX-License-Identifier: Apache-2.0
// What chips can do at most: the table in devices.json, which says where each number is from. Any
// thread; no state.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/json.h"

namespace fairlead::bench {

// All a second: bytes, and operations with a multiply and an add as two. 0: not known.
struct DeviceLimits {
  double memory = 0;
  double f32 = 0, bf16 = 0, fp8 = 0, int8 = 0;  // matmuls, dense
  double attention = 0;                         // its matmuls; 0: as the others
  std::string source = {};
};

struct TableDevice {
  std::string id = {}, title = {};
  std::string name = {};  // the driver's
  double memory_bytes = 0;
  DeviceLimits sheet = {};
  // Measured; sheet's where nobody measured. `is_measured`: that of the memory is not sheet's.
  DeviceLimits reached = {};
  bool is_measured = false;
};

// Of devices.json. kNotFound, or kInvalidArgument with the device and the key that is wrong or not
// there.
absl::StatusOr<std::vector<TableDevice>> LoadDeviceTable(const std::string& path);
absl::StatusOr<std::vector<TableDevice>> ParseDeviceTable(const Json& table);

// That whose name is in `description` as whole words ("NVIDIA L4" is not in "NVIDIA L40S"); null
// without one.
const TableDevice* FindDevice(const std::vector<TableDevice>& table, std::string_view description);

}  // namespace fairlead::bench

// SPDX-License-Identifier: Apache-2.0
// What to make of the rows of the program `invariance`. Pure; any thread.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "bench/roofline/devices.h"
#include "models/json.h"

namespace fairlead::bench {

// Adds "limit_%": of what the device's own copies and matmuls reached (`measured`), and where it is
// known "price_%": what a kernel that is not batch-invariant could save at most, with "price_by":
//   memory  the weights are read at the rate of copies, which takes longer than the arithmetic
//   sheet   the product is made at `sheet_bf16`, a data sheet's operations/s; 0: not known
//   torch   by the row's "torch", another library's time of the same product
// The best rate of our own matmuls is that of batch-invariant kernels, so it bounds no price.
void AddPrices(const DeviceLimits& measured, double sheet_bf16, Json& rows);

// kInternal with the products whose rows have other bits in a batch.
absl::Status CheckSameBits(const Json& rows);

// Puts the times in the output of `transformers_peer.py matmul` into the bf16 rows as "torch".
// kInternal where they are not of the same products, all of them; those that are stay.
absl::Status AddTorchTimes(const std::string& lines, Json& rows);

}  // namespace fairlead::bench

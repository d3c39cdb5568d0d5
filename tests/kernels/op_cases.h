// SPDX-License-Identifier: Apache-2.0
// Every op case of every backend, listed once. op_test runs them against the reference device;
// benchmarks may time them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/kernels/case_run.h"

namespace fairlead {

struct OpCase {
  std::string op;
  std::string name;                     // unique; op and sizes, letters, digits and _ only
  std::optional<DType> weight_dtype;    // what the device must be able to pack
  std::function<void(CaseRun&)> build;  // sets up tensors and launches; runs once per device
};

std::vector<OpCase> AllOpCases();

// The parts of that list, one file each.
void AddRowCases(std::vector<OpCase>& cases);        // Embed, norm, gate, GatherRows, Pool
void AddMatmulCases(std::vector<OpCase>& cases);     // Matmul
void AddExpertCases(std::vector<OpCase>& cases);     // Route, GroupedMatmul, CombineExperts
void AddRopeCases(std::vector<OpCase>& cases);       // RopeAndWriteKv
void AddAttentionCases(std::vector<OpCase>& cases);  // Attention over what RopeAndWriteKv wrote
void AddSamplingCases(std::vector<OpCase>& cases);   // SelectTokens, Sample, Logprobs

// The same for every run of a case: from its name and this.
inline constexpr uint64_t kCaseSeed = 20261101;
uint64_t SeedOf(const OpCase& op_case);

// 2^-24, half an ulp of 1: the error of one correctly rounded float operation.
inline constexpr double kFloatRounding = 0x1p-24;

// What a device may lose by rounding the inputs of matmuls under its numerics, relative to |x| |w|.
double MatmulRounding(Numerics numerics);
// The same as energy, relative to the result's.
double MatmulNmse(Numerics numerics);

// Runs `op_case` on both devices and returns everything that is wrong with `device`.
std::vector<std::string> CheckCase(const OpCase& op_case, Device& device, Device& reference);

// Compares the outputs of two finished runs of one case bit by bit; empty: equal.
std::string DifferingBits(const CaseRun& a, const CaseRun& b);

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "bench/gpu/invariance.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "bench/common/stats.h"
#include "bench/gpu/parts.h"
#include "bench/roofline/measured.h"
#include "bench/suite/process.h"
#include "kernels/strings.h"

namespace fairlead::bench {
namespace {

// {"price_%", "price_by"}, or nothing.
Json PriceOf(const Json& row, double memory_s, double operations, const DeviceLimits& measured,
             double sheet_bf16) {
  const double seconds = row["median"].get<double>() / 1e6;
  const auto price = [&](double least_s, const char* by) -> Json {
    return {{"price_%", std::max(0.0, 1 - least_s / seconds) * 100}, {"price_by", by}};
  };
  // Units that are at least as fast as our kernels do not wait for longer than this.
  const double rate = sheet_bf16 > 0 ? sheet_bf16 : measured.bf16;
  if (operations / rate <= memory_s) return price(memory_s, "memory");
  if (sheet_bf16 > 0) return price(operations / rate, "sheet");
  const Json torch = row.value("torch", Json());
  const double other = torch.is_object() ? torch.value("median", 0.0) : 0.0;
  return other > 0 ? price(other / 1e6, "torch") : Json::object();
}

// The data sheet's rate of the device; 0 where the table does not know it.
absl::StatusOr<double> SheetRate(const GpuOptions& options, const std::string& description) {
  const auto table = LoadDeviceTable(options.checkout + "/bench/roofline/devices.json");
  if (!table.ok()) return table.status();
  const TableDevice* chip = FindDevice(*table, description);
  return chip == nullptr ? 0 : chip->sheet.bf16;
}

absl::Status RunProgram(const GpuOptions& options, Json& rows) {
  const std::vector<std::string> command = {options.programs + "/invariance",
                                            "--device",
                                            options.device,
                                            "--scale",
                                            options.plan.scale,
                                            "--json",
                                            "-"};
  // Whatever its exit code: it is not 0 where bits differ, which is when the rows matter.
  const auto finished =
      RunCommand(GpuOptions::Limited(4 * options.plan.invariance_s, command), options.log);
  if (!finished.ok()) return finished.status();
  const auto json = ParseJson(finished->output);
  if (json.ok() && json->is_object()) rows = json->value("rows", Json::array());
  absl::Status status = CheckSameBits(rows);
  if (status.ok() && (rows.empty() || finished->exit_code != 0)) {
    status = absl::InternalError(
        StrCat(ShellLine(command), ": exit code ", finished->exit_code, ", see ", options.log));
  }
  return status;
}

absl::Status RunTorch(const GpuOptions& options, Json& rows) {
  std::vector<std::string> command = {options.transformers_python,
                                      options.checkout + "/bench/peers/transformers_peer.py",
                                      "matmul",
                                      "--device",
                                      options.TorchDevice(),
                                      "--matrix-bytes",
                                      StrCat(options.plan.scale == "full" ? 256 << 20 : 1),
                                      "--product"};
  for (const Json& row : rows) {
    if (row["dtype"] != "bf16") continue;
    command.push_back(StrCat(row["n"].get<int64_t>(), ",", row["k"].get<int64_t>(), ",",
                             row["tokens"].get<int64_t>()));
  }
  const auto finished =
      RunCommand(GpuOptions::Limited(4 * options.plan.invariance_s, command), options.log);
  if (!finished.ok()) return finished.status();
  absl::Status status = AddTorchTimes(finished->output, rows);
  if (finished->exit_code != 0) {
    status = absl::InternalError(
        StrCat("torch's products: exit code ", finished->exit_code, ", see ", options.log));
  }
  return status;
}

}  // namespace

void AddPrices(const DeviceLimits& measured, double sheet_bf16, Json& rows) {
  for (Json& row : rows) {
    const double operations =
        2 * row["n"].get<double>() * row["k"].get<double>() * row["tokens"].get<double>();
    const double memory_s = row["weight_bytes"].get<double>() / measured.memory;
    row["limit_%"] =
        std::max(memory_s, operations / measured.bf16) * 1e8 / row["median"].get<double>();
    row.update(PriceOf(row, memory_s, operations, measured, sheet_bf16));
  }
}

absl::Status CheckSameBits(const Json& rows) {
  std::vector<std::string> others;
  for (const Json& row : rows) {
    if (row.value("same_bits", true)) continue;
    others.push_back(StrCat(row["matrix"].get<std::string>(), " ", row["dtype"].get<std::string>(),
                            " of ", row["tokens"].get<int64_t>(), " rows"));
  }
  if (others.empty()) return absl::OkStatus();
  return absl::InternalError(
      StrCat("a row's bits depend on its batch: ", absl::StrJoin(others, ", ")));
}

absl::Status AddTorchTimes(const std::string& lines, Json& rows) {
  std::vector<Json*> wanted;
  for (Json& row : rows) {
    if (row["dtype"] == "bf16") wanted.push_back(&row);
  }
  size_t i = 0;
  for (const absl::string_view line : absl::StrSplit(lines, '\n', absl::SkipWhitespace())) {
    const auto product = ParseJson({line.data(), line.size()});
    if (!product.ok() || !product->is_object() || i >= wanted.size()) break;
    Json& row = *wanted[i];
    for (const char* key : {"n", "k", "tokens"}) {
      if (product->value(key, 0) != row[key].get<int>())
        return absl::InternalError("torch answered other products than asked");
    }
    const auto microseconds = product->value("microseconds", std::vector<double>());
    if (microseconds.empty()) break;
    row["torch"] = SummaryJson(microseconds);
    ++i;
  }
  if (i == wanted.size()) return absl::OkStatus();
  return absl::InternalError(StrCat("torch answered ", i, " of ", wanted.size(), " products"));
}

absl::Status RunGpuInvariance(const GpuOptions& options, const Json& limits,
                              const std::string& description, Json& rows) {
  absl::Status status = RunProgram(options, rows);
  if (rows.empty()) return status;
  if (!options.transformers_python.empty()) status.Update(RunTorch(options, rows));
  const auto sheet = SheetRate(options, description);
  status.Update(sheet.status());
  if (const std::optional<DeviceLimits> measured = MeasuredLimits(limits))
    AddPrices(*measured, sheet.value_or(0), rows);
  return status;
}

}  // namespace fairlead::bench

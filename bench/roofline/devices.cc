// SPDX-License-Identifier: Apache-2.0
#include "bench/roofline/devices.h"

#include <cctype>
#include <fstream>
#include <iterator>
#include <utility>

#include "kernels/strings.h"

namespace fairlead::bench {
namespace {

// Reads the values of an object, and keeps what was wrong first.
class Reader {
 public:
  Reader(Json object, std::string what) : object_(std::move(object)), what_(std::move(what)) {
    if (!object_.is_object()) Fail("is no object");
  }

  std::string Text(const char* key) {
    if (!Has(key) || !object_[key].is_string()) {
      Fail(StrCat(key, " is no text"));
      return "";
    }
    return object_[key].get<std::string>();
  }
  double Positive(const char* key) {
    const double value = Has(key) && object_[key].is_number() ? object_[key].get<double>() : 0;
    if (!(value > 0)) Fail(StrCat(key, " is no number above 0"));
    return value;
  }
  double PositiveOr(const char* key, double fallback) {
    return Has(key) ? Positive(key) : fallback;
  }
  bool Has(const char* key) const { return object_.is_object() && object_.contains(key); }
  const absl::Status& status() const { return status_; }

 private:
  void Fail(const std::string& why) {
    status_.Update(absl::InvalidArgumentError(StrCat("device table: ", what_, ": ", why)));
  }

  const Json object_;
  const std::string what_;
  absl::Status status_;
};

absl::StatusOr<TableDevice> ParseDevice(const Json& json) {
  Reader device(json, "a device");
  TableDevice out{.id = device.Text("id"),
                  .title = device.Text("title"),
                  .name = device.Text("name"),
                  .memory_bytes = device.Positive("memory_bytes")};
  if (!device.status().ok()) return device.status();
  Reader sheet(json.value("sheet", Json()), out.id + ", sheet");
  out.sheet = {.memory = sheet.Positive("memory"),
               .f32 = sheet.Positive("f32"),
               .bf16 = sheet.Positive("bf16"),
               .fp8 = sheet.PositiveOr("fp8", 0),
               .int8 = sheet.Positive("int8"),
               .source = sheet.Text("source")};
  out.reached = out.sheet;
  if (!sheet.status().ok() || !device.Has("reached")) {
    if (!sheet.status().ok()) return sheet.status();
    return out;
  }
  Reader reached(json["reached"], out.id + ", reached");
  out.is_measured = reached.Has("memory");
  out.reached = {.memory = reached.PositiveOr("memory", out.sheet.memory),
                 .f32 = reached.PositiveOr("f32", out.sheet.f32),
                 .bf16 = reached.PositiveOr("bf16", out.sheet.bf16),
                 .fp8 = reached.PositiveOr("fp8", out.sheet.fp8),
                 .int8 = reached.PositiveOr("int8", out.sheet.int8),
                 .attention = reached.PositiveOr("attention", 0),
                 .source = reached.Text("source")};
  if (!reached.status().ok()) return reached.status();
  return out;
}

bool IsWord(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }

}  // namespace

absl::StatusOr<std::vector<TableDevice>> ParseDeviceTable(const Json& table) {
  const Json devices = table.is_object() ? table.value("devices", Json()) : Json();
  if (!devices.is_array() || devices.empty())
    return absl::InvalidArgumentError("device table: devices is no list of devices");
  std::vector<TableDevice> out;
  for (const Json& json : devices) {
    auto device = ParseDevice(json);
    if (!device.ok()) return device.status();
    out.push_back(*std::move(device));
  }
  return out;
}

absl::StatusOr<std::vector<TableDevice>> LoadDeviceTable(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(StrCat(path, ": cannot be read"));
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const auto json = ParseJson(text);
  if (!json.ok()) return json.status();
  return ParseDeviceTable(*json);
}

const TableDevice* FindDevice(const std::vector<TableDevice>& table, std::string_view description) {
  for (const TableDevice& device : table) {
    const size_t at = description.find(device.name);
    if (at == description.npos) continue;
    const size_t end = at + device.name.size();
    const bool begins = at == 0 || !IsWord(description[at - 1]);
    // A name that goes on is another chip's: "RTX 4090 Laptop GPU", "H200 NVL", a part by MIG.
    if (begins && (end == description.size() || description[end] == ',')) return &device;
  }
  return nullptr;
}

}  // namespace fairlead::bench

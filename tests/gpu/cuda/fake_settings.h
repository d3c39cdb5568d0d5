// SPDX-License-Identifier: Apache-2.0
// What the made-up driver and runtime play, from one environment variable that they alone read:
// FAIRLEAD_FAKE_CUDA="driver=12040,count=0". A test that loads one itself sets `Played` instead,
// before it calls anything else. Read at each call; any thread.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

namespace fairlead::fake_cuda {

inline std::string& Played() {
  static auto* const text = new std::string;
  return *text;
}

inline std::string TextSetting(std::string_view name) {  // "": it is not there
  const char* text = std::getenv("FAIRLEAD_FAKE_CUDA");
  std::string_view rest = text == nullptr ? std::string_view(Played()) : text;
  while (!rest.empty()) {
    const std::string_view entry = rest.substr(0, rest.find(','));
    rest.remove_prefix(entry.size() < rest.size() ? entry.size() + 1 : entry.size());
    if (entry.starts_with(name) && entry.size() > name.size() && entry[name.size()] == '=') {
      return std::string(entry.substr(name.size() + 1));
    }
  }
  return "";
}

inline int64_t Setting(std::string_view name, int64_t otherwise) {
  const std::string text = TextSetting(name);
  return text.empty() ? otherwise : std::atoll(text.c_str());
}

inline constexpr char kName[] = "Made-up GPU";
inline int DriverVersion() { return static_cast<int>(Setting("driver", 13000)); }
inline int DeviceCount() { return static_cast<int>(Setting("count", 1)); }
inline int Capability() { return static_cast<int>(Setting("capability", 90)); }

}  // namespace fairlead::fake_cuda

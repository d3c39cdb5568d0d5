// SPDX-License-Identifier: Apache-2.0
#include "bench/suite/facts.h"

#include <openssl/evp.h>
#include <sys/utsname.h>

#include <fstream>
#include <memory>
#include <sstream>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "bench/suite/process.h"
#include "kernels/cpu/host_info.h"
#include "kernels/strings.h"
#include "server/version.h"

namespace fairlead::bench {
namespace {

std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// The value of the first line that begins with `key`, after `separator`.
std::string FieldOf(const std::string& text, absl::string_view key, char separator) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::ConsumePrefix(&line, key)) continue;
    const size_t at = line.find(separator);
    if (at == line.npos) continue;
    return std::string(absl::StripAsciiWhitespace(line.substr(at + 1)));
  }
  return "";
}

Json TextOrNull(const std::string& text) {
  return text.empty() ? Json(nullptr) : Json(std::string(absl::StripAsciiWhitespace(text)));
}

std::string GitOutput(const std::string& checkout, std::vector<std::string> arguments) {
  std::vector<std::string> command = {"git", "-C", checkout};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const auto output = OutputOf(command, "/dev/null");
  return output.ok() ? std::string(absl::StripAsciiWhitespace(*output)) : "";
}

}  // namespace

std::string VectorFlags(const std::string& cpuinfo) {
  std::vector<std::string> kept;
  for (const absl::string_view flag : absl::StrSplit(FieldOf(cpuinfo, "flags", ':'), ' ')) {
    for (const absl::string_view prefix : {"avx", "fma", "f16c", "amx", "sse4_2"}) {
      if (flag.substr(0, prefix.size()) == prefix) kept.emplace_back(flag);
    }
  }
  return absl::StrJoin(kept, " ");
}

Json MachineFacts() {
  const std::string cpuinfo = ReadText("/proc/cpuinfo");
  std::string system = FieldOf(ReadText("/etc/os-release"), "PRETTY_NAME", '=');
  std::erase(system, '"');
  utsname name{};
  uname(&name);
  double mhz = 0;
  const bool has_mhz = absl::SimpleAtod(FieldOf(cpuinfo, "cpu MHz", ':'), &mhz);
  return {
      {"cpu", CpuModelName()},
      {"cpu_flags", VectorFlags(cpuinfo)},
      {"cores", UsableCpus()},
      {"memory_bytes", TotalMemoryBytes()},
      {"kernel", StrCat(name.sysname, " ", name.release)},
      {"system", system},
      {"governor", TextOrNull(ReadText("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"))},
      {"mhz", has_mhz ? Json(mhz) : Json(nullptr)}};
}

Json BuildFacts() {
  return {{"compiler", FAIRLEAD_COMPILER},
          {"flags", std::string(absl::StripAsciiWhitespace(FAIRLEAD_COMPILE_FLAGS))},
          {"type", FAIRLEAD_BUILD_TYPE},
          {"version", kVersion}};
}

Json CommitFacts(const std::string& checkout) {
  const std::string commit = GitOutput(checkout, {"rev-parse", "--short=10", "HEAD"});
  if (commit.empty()) return {{"commit", nullptr}, {"dirty", nullptr}};
  // Results are written by the bench itself: they do not make a source tree dirty.
  const std::string changes =
      GitOutput(checkout, {"status", "--porcelain", "--", ":(exclude)bench/results"});
  return {{"commit", commit}, {"dirty", !changes.empty()}};
}

absl::StatusOr<std::string> Sha256OfFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(StrCat(path, ": cannot be read"));
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> digest(EVP_MD_CTX_new(),
                                                                  EVP_MD_CTX_free);
  EVP_DigestInit_ex(digest.get(), EVP_sha256(), nullptr);
  std::vector<char> buffer(1 << 20);
  while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) || file.gcount() > 0)
    EVP_DigestUpdate(digest.get(), buffer.data(), static_cast<size_t>(file.gcount()));
  std::string value(EVP_MAX_MD_SIZE, '\0');
  unsigned size = 0;
  EVP_DigestFinal_ex(digest.get(), reinterpret_cast<unsigned char*>(value.data()), &size);
  return absl::BytesToHexString(absl::string_view(value.data(), size));
}

}  // namespace fairlead::bench

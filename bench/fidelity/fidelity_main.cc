// SPDX-License-Identifier: Apache-2.0
// fidelity: what the speed was bought at, as JSON: KL and top-1 agreement with float32. Or what the
// model says, for bench/fidelity/files.py to compare.
#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/device.h"
#include "tests/models/fidelity.h"

namespace fairlead {
namespace {

constexpr int kMaxTokens = 512;

// Of each prefix, the logits of its last token: f32, [prefixes, vocab].
absl::Status WriteLogits(ModelRunner& runner, const Json& prefixes, const std::string& path) {
  std::ofstream out(path, std::ios::binary);
  for (const Json& prefix : prefixes) {
    runner.Restart();
    const std::vector<float> logits = runner.Run(prefix["ids"].get<std::vector<Token>>(), 1);
    out.write(reinterpret_cast<const char*>(logits.data()),
              static_cast<std::streamsize>(logits.size() * sizeof(float)));
  }
  out.close();
  return out ? absl::OkStatus() : absl::UnavailableError(path + ": cannot be written");
}

absl::StatusOr<Json> Measure(const std::string& model, const std::string& numerics,
                             const std::string& kv_dtype, const std::string& golden_file,
                             const std::string& logits) {
  std::ifstream file(golden_file);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return absl::NotFoundError(golden_file + ": cannot be read");
  const auto golden = ParseJson(text.str());
  if (!golden.ok()) return golden.status();
  const Numerics chosen = numerics == "float32" ? Numerics::kFloat32
                          : numerics == "fast"  ? Numerics::kFast
                                                : Numerics::kPrecise;
  auto device = OpenDevice("cpu", {.numerics = chosen, .kv_dtype = ParseDType(kv_dtype)});
  if (!device.ok()) return device.status();
  auto runner = ModelRunner::Open(model, *std::move(device), kMaxTokens);
  if (!runner.ok()) return runner.status();
  if (!logits.empty()) {
    absl::Status status = WriteLogits(**runner, (*golden)["prefixes"], logits);
    if (!status.ok()) return status;
    return Json{{"numerics", numerics}, {"kv_cache_dtype", kv_dtype}, {"logits", logits}};
  }
  const Fidelity fidelity = MeasureFidelity(**runner, *golden);
  return Json{{"numerics", numerics},
              {"kv_cache_dtype", kv_dtype},
              {"prefixes", (*golden)["prefixes"].size()},
              {"kl_mean", fidelity.kl_mean},
              {"top1", fidelity.top1},
              {"largest_logprob_difference", fidelity.largest}};
}

}  // namespace
}  // namespace fairlead

int main(int argc, char** argv) {
  CLI::App app("Compares a model's next-token distributions with golden float32 ones.", "fidelity");
  std::string model, numerics = "precise", kv_dtype = "auto", golden, logits;
  app.add_option("-m,--model", model, "the file that the golden data was made of")->required();
  app.add_option("--numerics", numerics, "of the device")
      ->capture_default_str()
      ->check(CLI::IsMember({"float32", "precise", "fast"}));
  app.add_option("--kv-cache-dtype", kv_dtype, "of the device; auto: as fairlead serve")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "f32", "f16", "q8_0"}));
  app.add_option("--golden", golden, "tests/golden/smollm2/fidelity.json")->required();
  app.add_option("--logits", logits,
                 "writes the logits after each of --golden's prefixes to this file, f32 [prefixes, "
                 "vocab], and compares nothing");
  CLI11_PARSE(app, argc, argv);
  const auto json = fairlead::Measure(model, numerics, kv_dtype, golden, logits);
  if (!json.ok()) {
    std::cerr << "error: " << std::string(json.status().message()) << "\n";
    return 1;
  }
  std::cout << json->dump() << std::endl;
  return 0;
}

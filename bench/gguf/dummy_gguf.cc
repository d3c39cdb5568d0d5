// SPDX-License-Identifier: Apache-2.0
// dummy_gguf: the weights that --load-format dummy makes, as a GGUF file that a peer can load.
#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "bench/gguf/llama_gguf.h"
#include "server/runtime_setup.h"

int main(int argc, char** argv) {
  CLI::App app(
      "Writes the random weights of `fairlead serve --load-format dummy` as a GGUF file of\n"
      "architecture llama without a tokenizer (serve it with --skip-tokenizer).",
      "dummy_gguf");
  fairlead::RuntimeConfig config;
  config.load_format = "dummy";
  std::string output;
  app.add_option("-m,--model", config.model, "folder with a config.json")->required();
  app.add_option("--dummy-dtype", config.dummy_dtype, "of the matrices")->capture_default_str();
  app.add_option("-o,--output", output, "the GGUF file")->required();
  CLI11_PARSE(app, argc, argv);
  absl::Status status;
  if (!fairlead::ParseDType(config.dummy_dtype)) {
    std::cerr << "error: --dummy-dtype: '" << config.dummy_dtype << "' is no dtype\n";
    return 2;
  }
  const auto source = fairlead::OpenModel(config);
  status = source.status();
  if (status.ok()) {
    status = fairlead::bench::WriteLlamaGguf(**source, fairlead::ModelNameOf(config.model), output);
  }
  if (status.ok()) return 0;
  std::cerr << "error: " << std::string(status.message()) << "\n";
  return 1;
}

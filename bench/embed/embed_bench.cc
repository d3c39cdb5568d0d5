// SPDX-License-Identifier: Apache-2.0
// Embeddings in process, for embed_peer.py: a line of JSON in is the body of a request for
// /v1/embeddings, a line out is {"seconds": of tokenizing and computing, "answer": the body}. What
// HTTP and JSON take is not in it.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <string>

#include "absl/time/clock.h"
#include "kernels/strings.h"
#include "server/commands/local_service.h"
#include "server/config.h"
#include "server/metrics.h"
#include "server/once_event.h"
#include "server/openai_embeddings.h"
#include "server/runtime_setup.h"

namespace fairlead {
namespace {

absl::StatusOr<std::string> Measure(EmbedService& service, const std::string& line) {
  const auto json = ParseJson(line);
  if (!json.ok()) return json.status();
  const auto parsed = ParseEmbeddingsRequest(*json);
  if (!parsed.ok()) return parsed.status();
  absl::StatusOr<EmbedAnswer> answer = absl::UnknownError("not done");
  OnceEvent done;
  const std::atomic<bool> cancelled{false};
  const absl::Time begin = absl::Now();
  const auto id =
      service.Start(parsed->request, cancelled, [&](absl::StatusOr<EmbedAnswer> result) {
        answer = std::move(result);
        done.Notify();
      });
  if (!id.ok()) return id.status();
  done.Wait();
  const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  if (!answer.ok()) return answer.status();
  return StrCat("{\"seconds\":", seconds,
                ",\"answer\":", EmbeddingsBody(*answer, service.model().name, parsed->base64), "}");
}

absl::Status Run(const RuntimeConfig& config) {
  auto runtime = LoadRuntime(config, "");
  if (!runtime.ok()) return runtime.status();
  EmbeddingSetup& embeddings = (*runtime)->embeddings;
  if (embeddings.engine == nullptr)
    return absl::InvalidArgumentError(config.model + " makes no embeddings");
  Metrics metrics{BuildInfo{}};
  EmbedService service((*runtime)->served, embeddings.traits, *embeddings.engine, metrics, 1);
  absl::Status status;
  for (std::string line; status.ok() && std::getline(std::cin, line);) {
    const absl::StatusOr<std::string> result = Measure(service, line);
    status = result.status();
    if (!status.ok()) break;
    std::puts(result->c_str());
    std::fflush(stdout);
  }
  embeddings.engine->Drain(absl::InfinitePast());
  return status;
}

int Main(int argc, char** argv) {
  RuntimeConfig config;
  config.task = "embed";
  const std::vector<Flag> flags = RuntimeFlags(config);
  FlagTexts texts;
  CLI::App app("Embeddings in process: requests on stdin, a JSON line each");
  AddFlags(app, flags, texts);
  CLI11_PARSE(app, argc, argv);
  absl::Status status = ApplyTexts(texts, "--", flags);
  if (status.ok()) {
    SetUpLog("error");
    status = Run(config);
  }
  if (status.ok()) return 0;
  std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace
}  // namespace fairlead

int main(int argc, char** argv) { return fairlead::Main(argc, argv); }

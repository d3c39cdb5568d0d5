// SPDX-License-Identifier: Apache-2.0
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "kernels/strings.h"
#include "server/auth/keys.h"
#include "server/auth/tls.h"
#include "server/commands/command.h"
#include "server/commands/local_service.h"
#include "server/config.h"
#include "server/grpc_server.h"
#include "server/http_server.h"
#include "server/metrics.h"
#include "server/once_event.h"
#include "server/runtime_setup.h"
#include "server/services.h"
#include "server/shutdown_signal.h"
#include "server/stage_timer.h"
#include "server/version.h"

namespace fairlead {
namespace {

// After the drain deadline the engine ends what is left; this is for telling the clients.
constexpr absl::Duration kFarewell = absl::Seconds(2);

struct ServeOptions {
  ServeConfig config;
  std::vector<Flag> flags;
  FlagTexts texts;  // of the command line
  std::string config_file;
  FlagTexts written;  // in the file, or on the command line
};

// Everything that serves. Members are destroyed last to first.
struct Serving {
  std::unique_ptr<KeyStore> keys;
  std::unique_ptr<TlsIdentity> tls;  // null: plain
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<Metrics> metrics;
  std::unique_ptr<GenerateService> generate;  // or
  std::unique_ptr<EmbedService> embed;
  std::unique_ptr<HttpServer> http;  // null: off
  std::unique_ptr<GrpcServer> grpc;  // null: off

  Services services() const { return embed != nullptr ? Services(*embed) : Services(*generate); }
};

absl::Status LoadIdentities(const ServeConfig& config, Serving& serving) {
  serving.keys = std::make_unique<KeyStore>(KeyStore::AllowAnonymous());
  if (!config.api_key_file.empty()) {
    absl::StatusOr<KeyStore> keys = KeyStore::FromFile(config.api_key_file);
    if (!keys.ok()) return keys.status();
    *serving.keys = *std::move(keys);
  }
  if (config.tls_cert.empty()) return absl::OkStatus();
  absl::StatusOr<TlsIdentity> tls = LoadTlsIdentity(config.tls_cert, config.tls_key);
  if (!tls.ok()) return tls.status();
  serving.tls = std::make_unique<TlsIdentity>(*std::move(tls));
  return absl::OkStatus();
}

absl::Status LoadService(const ServeConfig& config, Serving& serving) {
  auto runtime = LoadRuntime(config.runtime, config.served_model_name);
  if (!runtime.ok()) return runtime.status();
  serving.runtime = *std::move(runtime);
  StageTimer timer;
  const bool embeds = serving.runtime->embeddings.engine != nullptr;
  if (absl::Status status =
          embeds ? WarmUp(*serving.runtime->embeddings.engine) : WarmUp(*serving.runtime->engine);
      !status.ok()) {
    return absl::Status(status.code(), StrCat(config.runtime.model, ": ", status.message()));
  }
  timer.Done("the first step");
  const DeviceInfo& device = serving.runtime->device->info();
  serving.metrics =
      std::make_unique<Metrics>(BuildInfo{.version = std::string(kVersion),
                                          .device = device.name,
                                          .device_description = device.description,
                                          .model = serving.runtime->served.name,
                                          .numerics = std::string(NumericsName(device.numerics))});
  const Device& telemetry_of = *serving.runtime->device;
  serving.metrics->SetTelemetry([&telemetry_of] { return telemetry_of.Telemetry(); });
  const int threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 4);
  if (embeds) {
    EmbeddingSetup& embeddings = serving.runtime->embeddings;
    EmbeddingEngine& engine = *embeddings.engine;
    serving.metrics->SetEmbeddingEngine([&engine] { return engine.stats(); });
    serving.embed = std::make_unique<EmbedService>(serving.runtime->served, embeddings.traits,
                                                   engine, *serving.metrics, threads);
    return absl::OkStatus();
  }
  Engine& engine = *serving.runtime->engine;
  serving.metrics->SetEngine([&engine] { return engine.stats(); }, config.runtime.block_tokens);
  serving.generate =
      std::make_unique<GenerateService>(serving.runtime->served, engine, *serving.metrics, threads);
  return absl::OkStatus();
}

// One configuration may serve several models, so these are no errors.
void WarnOfFlagsWithoutEffect(const FlagTexts& written) {
  for (const char* name : {"async-scheduling", "block-tokens", "gpu-layers", "graphs",
                           "kv-cache-memory", "max-logprobs", "no-prefix-cache", "speculation"}) {
    if (written.contains(name)) spdlog::warn("--{} changes nothing for embeddings", name);
  }
}

// What has been decided since the start, for /config.
void Resolve(const Serving& serving, ServeConfig& config) {
  config.runtime.device = serving.runtime->device->info().name;
  config.runtime.max_model_len = serving.services().model.max_model_len();
  config.runtime.task = serving.embed != nullptr ? "embed" : "generate";
  config.runtime.kv_cache_memory = MemorySize{.bytes = serving.runtime->kv_cache_bytes};
  config.served_model_name = serving.runtime->served.name;
}

absl::Status StartHttp(const ServeOptions& options, Serving& serving) {
  const ServeConfig& config = options.config;
  if (config.http.off()) return absl::OkStatus();
  HttpServerOptions http{
      .host = config.http.host,
      .port = config.http.port,
      .limits = {},
      .tls = serving.tls.get(),
      .config = ConfigJson(options.flags),
      .version = std::string(kVersion),
      .fingerprint = StrCat("fairlead-", kVersion, "-",
                            NumericsName(serving.runtime->device->info().numerics))};
  http.limits.max_connections = config.max_connections;
  http.limits.max_body_bytes = config.max_body_size;
  auto server = HttpServer::Start(http, *serving.keys, serving.services(), *serving.metrics);
  if (!server.ok()) return server.status();
  serving.http = *std::move(server);
  return absl::OkStatus();
}

absl::Status StartGrpc(const ServeConfig& config, Serving& serving) {
  if (config.grpc.off()) return absl::OkStatus();
  const Runtime& runtime = *serving.runtime;
  pb::ServerInfoResponse info;
  info.set_version(std::string(kVersion));
  info.set_device(runtime.device->info().name);
  info.set_numerics(std::string(NumericsName(runtime.device->info().numerics)));
  info.set_model(runtime.served.name);
  info.set_max_model_len(serving.services().model.max_model_len());
  info.set_max_num_seqs(config.runtime.max_num_seqs);
  info.set_max_batched_tokens(config.runtime.max_batched_tokens);
  if (runtime.engine != nullptr) {
    info.set_kv_cache_blocks(runtime.engine->stats().kv_blocks_total);
    info.set_kv_block_tokens(config.runtime.block_tokens);
  }
  auto server = GrpcServer::Start({.host = config.grpc.host,
                                   .port = config.grpc.port,
                                   .tls = serving.tls.get(),
                                   .reflection = config.grpc_reflection == "on",
                                   .info = std::move(info)},
                                  *serving.keys, serving.services(), *serving.metrics);
  if (!server.ok()) return server.status();
  serving.grpc = *std::move(server);
  return absl::OkStatus();
}

Json AddressOf(ListenAddress address, int port) {
  address.port = port;
  return address.ToString();
}

void AnnounceReady(const ServeConfig& config, const Serving& serving, absl::Time process_start) {
  const DeviceInfo& device = serving.runtime->device->info();
  Json ready = {{"event", "ready"}, {"http", nullptr}, {"grpc", nullptr}};
  if (serving.http != nullptr) ready["http"] = AddressOf(config.http, serving.http->port());
  if (serving.grpc != nullptr) ready["grpc"] = AddressOf(config.grpc, serving.grpc->port());
  ready["model"] = serving.runtime->served.name;
  ready["task"] = config.runtime.task;
  ready["device"] = device.name;
  ready["numerics"] = NumericsName(device.numerics);
  ready["startup_ms"] = absl::ToInt64Milliseconds(absl::Now() - process_start);
  std::fputs((DumpJson(ready) + "\n").c_str(), stdout);
  std::fflush(stdout);
}

void SetReady(Serving& serving, bool ready) {
  if (serving.http != nullptr) serving.http->SetReady(ready);
  if (serving.grpc != nullptr) serving.grpc->SetServing(ready);
}

void EndRequests(Runtime& runtime) {
  if (runtime.engine != nullptr) runtime.engine->Drain(absl::InfinitePast());
  if (runtime.embeddings.engine != nullptr) runtime.embeddings.engine->Drain(absl::InfinitePast());
}

// New work is refused; what runs may finish until the deadline, then the engine ends it and the
// clients are told.
void DrainAll(Serving& serving, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  serving.metrics->SetDraining(true);
  SetReady(serving, false);
  if (serving.http != nullptr) serving.http->StopAccepting();
  OnceEvent http_done, grpc_done;
  std::thread http([&] {
    if (serving.http != nullptr) serving.http->Drain(deadline + kFarewell);
    http_done.Notify();
  });
  std::thread grpc([&] {
    if (serving.grpc != nullptr) serving.grpc->Drain(deadline + kFarewell);
    grpc_done.Notify();
  });
  const bool finished = http_done.WaitUntil(deadline) && grpc_done.WaitUntil(deadline);
  if (!finished) spdlog::warn("the drain timeout has passed: ending the requests that still run");
  EndRequests(*serving.runtime);
  http.join();
  grpc.join();
}

absl::Status ReadConfig(ServeOptions& options) {
  if (!options.config_file.empty()) {
    const absl::StatusOr<FlagTexts> yaml = ReadYaml(options.config_file, options.flags);
    if (!yaml.ok()) return yaml.status();
    absl::Status status = ApplyTexts(*yaml, options.config_file + ": ", options.flags);
    if (!status.ok()) return status;
    options.written = *yaml;
  }
  if (absl::Status status = ApplyTexts(options.texts, "--", options.flags); !status.ok())
    return status;
  options.written.insert(options.texts.begin(), options.texts.end());
  if (options.config.runtime.model.empty())
    return absl::InvalidArgumentError("serve needs --model, here or in the configuration file");
  return CheckServeConfig(options.config);
}

absl::Status RunServe(ServeOptions& options, absl::Time process_start) {
  if (absl::Status status = ReadConfig(options); !status.ok())
    return UsageError({status.message().data(), status.message().size()});
  ShutdownSignal signal;
  SetUpLog(options.config.runtime.log_level);
  spdlog::info("fairlead {}", std::string(kVersion));
  spdlog::debug("start-up: the command line took {:.1f} ms",
                absl::ToDoubleMilliseconds(absl::Now() - process_start));
  Serving serving;
  absl::Status status = LoadIdentities(options.config, serving);
  if (status.ok()) status = LoadService(options.config, serving);
  if (status.ok() && serving.embed != nullptr) WarnOfFlagsWithoutEffect(options.written);
  if (status.ok()) Resolve(serving, options.config);
  StageTimer timer;
  if (status.ok()) status = StartHttp(options, serving);
  if (status.ok()) status = StartGrpc(options.config, serving);
  timer.Done("the ports");
  if (!status.ok()) {
    if (serving.runtime != nullptr) EndRequests(*serving.runtime);
    return status;
  }
  SetReady(serving, true);
  signal.BecomeOrderly();
  AnnounceReady(options.config, serving, process_start);
  const int number = signal.Wait();
  spdlog::info("signal {}: draining for up to {} s; another one ends at once", number,
               options.config.drain_timeout);
  DrainAll(serving, absl::Seconds(options.config.drain_timeout));
  spdlog::info("done");
  return absl::OkStatus();
}

}  // namespace

void AddServeCommand(CLI::App& app, Command& chosen, absl::Time process_start) {
  const auto options = std::make_shared<ServeOptions>();
  options->flags = ServeFlags(options->config);
  CLI::App& command = *app.add_subcommand("serve", "Serves a model over HTTP and gRPC");
  command
      .add_option("--config", options->config_file,
                  "a YAML file with these options by name; the command line wins")
      ->type_name("FILE");
  AddFlags(command, options->flags, options->texts);
  command.callback([options, &chosen, process_start] {
    chosen = [options, process_start] { return RunServe(*options, process_start); };
  });
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "server/config.h"

#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "kernels/device.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

constexpr int kMany = 1 << 20;
constexpr int64_t kMaxContext = int64_t{1} << 24;

const Flag* Find(const std::vector<Flag>& flags, const std::string& name) {
  const auto found =
      std::find_if(flags.begin(), flags.end(), [&](const Flag& flag) { return flag.name == name; });
  return found == flags.end() ? nullptr : &*found;
}

std::string Default(const Flag& flag) {
  const Json value = flag.get();
  if (value.is_string()) return value.get<std::string>();
  return value.is_null() ? "" : DumpJson(value);
}

Flag BlockTokensFlag(int* field) {
  Flag flag =
      IntFlag("block-tokens", KvShape::kTokenGroup, 1024,
              StrCat("tokens of one KV block, a multiple of ", KvShape::kTokenGroup), field);
  flag.set = [set = std::move(flag.set), field](std::string_view text) {
    const int before = *field;
    absl::Status status = set(text);
    if (!status.ok() || *field % KvShape::kTokenGroup == 0) return status;
    *field = before;
    return absl::InvalidArgumentError(
        StrCat("'", text, "' is not a multiple of ", KvShape::kTokenGroup));
  };
  return flag;
}

Flag DeviceFlag(std::string* field) {
  Flag flag =
      TextFlag("device", "auto|cpu|cuda:N|hip:N|host-simt:32|host-simt:64",
               "where to compute; auto: the first of cuda:0, hip:0 and cpu that works", field);
  flag.set = [set = std::move(flag.set)](std::string_view text) {
    const absl::Status status = CheckDeviceName(text);
    return status.ok() ? set(text) : status;
  };
  return flag;
}

absl::Status YamlError(const std::string& path, int line, std::string_view what) {
  return absl::InvalidArgumentError(StrCat(path, ", line ", line + 1, ": ", what));
}

absl::StatusOr<FlagTexts> ReadYamlNodes(const std::string& path, const std::string& text,
                                        const std::vector<Flag>& flags) {
  const YAML::Node root = YAML::Load(text);
  FlagTexts texts;
  if (root.IsNull()) return texts;
  if (!root.IsMap())
    return YamlError(path, root.Mark().line, "must be a mapping of names to values");
  for (const auto& entry : root) {
    const int line = entry.first.Mark().line;
    const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
    if (Find(flags, key) == nullptr) {
      return YamlError(
          path, line,
          StrCat("unknown key '", key, "'; the keys are the flags of `fairlead serve --help`"));
    }
    if (!entry.second.IsScalar())
      return YamlError(path, line, StrCat("'", key, "' must have one plain value"));
    if (!texts.emplace(key, entry.second.Scalar()).second)
      return YamlError(path, line, StrCat("'", key, "' comes twice"));
  }
  return texts;
}

}  // namespace

std::string DefaultWeightCache() {
  // The XDG base directory specification: relative paths are to be ignored.
  for (const auto& [variable, folder] : {std::pair{"XDG_CACHE_HOME", "fairlead/weights"},
                                         std::pair{"HOME", ".cache/fairlead/weights"}}) {
    const char* base = std::getenv(variable);
    std::error_code error;
    if (base != nullptr && base[0] == '/' && std::filesystem::is_directory(base, error))
      return (std::filesystem::path(base) / folder).string();
  }
  return "off";
}

std::vector<Flag> RuntimeFlags(RuntimeConfig& c) {
  return {
      TextFlag("model", "PATH", "a GGUF file, or a folder with config.json and safetensors",
               &c.model),
      TextFlag("tokenizer", "PATH",
               "a tokenizer.json, tokenizer.model, folder or GGUF file; default: the model's",
               &c.tokenizer),
      SwitchFlag("skip-tokenizer", "serve token ids only", &c.skip_tokenizer),
      DeviceFlag(&c.device),
      ChoiceFlag("numerics", {"float32", "precise", "fast"}, "speed against fidelity", &c.numerics),
      ChoiceFlag("kv-cache-dtype", {"auto", "f32", "f16", "bf16", "q8_0", "f8_e4m3"},
                 "of keys and values; auto: f16; with --numerics float32 f32, fast on AMX bf16",
                 &c.kv_cache_dtype),
      IntFlag("threads", 0, 1024, "CPU threads; 0: one per core", &c.threads),
      IntFlag("max-batched-tokens", 1, kMany,
              "tokens of one step, so the size of a prompt's chunks", &c.max_batched_tokens),
      IntFlag("max-num-seqs", 1, 65536, "sequences that run at once", &c.max_num_seqs),
      IntFlag("max-queue", 0, kMany, "requests that may wait; one more is refused", &c.max_queue),
      MemoryFlag("kv-cache-memory",
                 "bytes or % of free memory; default: 25%, or less if that is "
                 "enough",
                 &c.kv_cache_memory),
      OptionalIntFlag("max-model-len", 1, kMaxContext,
                      "tokens of a request, prompt and output together; default: the model's",
                      &c.max_model_len),
      OptionalIntFlag("gpu-layers", 0, 65536,
                      "layers whose weights stay on the GPU; the others are copied from the host's "
                      "memory for every step; default: as many as fit",
                      &c.gpu_layers),
      IntFlag("max-logprobs", 0, kMany, "the most logprobs a request may ask for a token",
              &c.max_logprobs),
      SwitchFlag("no-prefix-cache", "compute every prompt from its start", &c.no_prefix_cache),
      ChoiceFlag("speculation", {"off", "ngram"},
                 "ngram: verify guesses that repeat a request's own text; the answers are the same",
                 &c.speculation),
      ChoiceFlag("graphs", {"on", "off"}, "on GPUs, decode steps are launched as graphs",
                 &c.graphs),
      ChoiceFlag("async-scheduling", {"on", "off"},
                 "on GPUs, a step is begun while the one before runs", &c.async_scheduling),
      BlockTokensFlag(&c.block_tokens),
      ChoiceFlag("weight-dtype",
                 {"auto", "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"},
                 "converts the matrices on loading; auto: as the model has them", &c.weight_dtype),
      ChoiceFlag("load-format", {"auto", "dummy"},
                 "dummy: weights from a seed, for a folder with a config.json alone",
                 &c.load_format),
      ChoiceFlag("dummy-dtype",
                 {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k",
                  "q6_k", "iq4_nl", "mxfp4", "iq4_xs", "q3_k", "q2_k"},
                 "of the matrices of --load-format dummy", &c.dummy_dtype),
      TextFlag("weight-cache", "DIR|off",
               "keeps packed weights there, so that the next start maps them", &c.weight_cache),
      ChoiceFlag("log-level", {"debug", "info", "warn", "error", "off"}, "of the log on stderr",
                 &c.log_level),
  };
}

std::vector<Flag> ServeFlags(ServeConfig& c) {
  std::vector<Flag> flags = RuntimeFlags(c.runtime);
  std::vector<Flag> own = {
      AddressFlag("http", "the HTTP port, or 'off'; port 0 takes a free one", &c.http),
      AddressFlag("grpc", "the gRPC port, or 'off'; port 0 takes a free one", &c.grpc),
      ChoiceFlag("task", {"auto", "generate", "embed"},
                 "what the model is for; auto: as its files say", &c.runtime.task),
      TextFlag("served-model-name", "NAME", "what clients call the model", &c.served_model_name),
      TextFlag("tls-cert", "FILE", "PEM certificate chain, for both ports", &c.tls_cert),
      TextFlag("tls-key", "FILE", "its private key", &c.tls_key),
      TextFlag("api-key-file", "FILE", "one key a line, plain or sha256:<hex>; # comments",
               &c.api_key_file),
      SwitchFlag("allow-anonymous", "listen beyond loopback without API keys", &c.allow_anonymous),
      ChoiceFlag("grpc-reflection", {"on", "off"}, "tell gRPC clients the services",
                 &c.grpc_reflection),
      NumberFlag("drain-timeout", 0, 86400, "seconds that SIGTERM leaves running requests",
                 &c.drain_timeout),
      IntFlag("max-connections", 1, kMany, "open HTTP connections", &c.max_connections),
      BytesFlag("max-body-size", 1024, uint64_t{1} << 30, "of an HTTP request", &c.max_body_size),
  };
  for (Flag& flag : own) {
    flag.secret = flag.name == "api-key-file" || flag.name == "tls-key";
    flags.push_back(std::move(flag));
  }
  return flags;
}

void AddFlags(CLI::App& app, const std::vector<Flag>& flags, FlagTexts& texts) {
  for (const Flag& flag : flags) {
    const std::string option = "--" + flag.name;
    if (flag.value.empty()) {
      app.add_flag_function(
          option, [&texts, name = flag.name](int64_t) { texts[name] = "true"; }, flag.help);
      continue;
    }
    CLI::Option* added = app.add_option_function<std::string>(
        option, [&texts, name = flag.name](const std::string& text) { texts[name] = text; },
        flag.help);
    added->type_name(flag.value);
    if (const std::string value = Default(flag); !value.empty()) added->default_str(value);
  }
}

absl::StatusOr<FlagTexts> ReadYaml(const std::string& path, const std::vector<Flag>& flags) {
  std::ifstream file(path);
  file.peek();  // a folder can be opened and not read: without this the iterator below throws
  if (!file) return absl::InvalidArgumentError(StrCat(path, ": cannot be read"));
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  try {
    return ReadYamlNodes(path, text, flags);
  } catch (const YAML::Exception& error) {
    return YamlError(path, error.mark.line, error.msg);
  }
}

absl::Status ApplyTexts(const FlagTexts& texts, const std::string& source,
                        const std::vector<Flag>& flags) {
  for (const Flag& flag : flags) {
    const auto found = texts.find(flag.name);
    if (found == texts.end()) continue;
    if (absl::Status status = flag.set(found->second); !status.ok()) {
      return absl::InvalidArgumentError(
          StrCat(source, flag.name, ": ", std::string(status.message())));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckServeConfig(const ServeConfig& config) {
  if (config.http.off() && config.grpc.off())
    return absl::InvalidArgumentError("--http and --grpc are both off: nothing is left to serve");
  if (config.tls_cert.empty() != config.tls_key.empty()) {
    return absl::InvalidArgumentError(
        "--tls-cert and --tls-key belong together: one of them is missing");
  }
  if (!config.api_key_file.empty() && config.allow_anonymous) {
    return absl::InvalidArgumentError(
        "--api-key-file and --allow-anonymous exclude each other: with keys nobody is anonymous");
  }
  if (!config.api_key_file.empty() || config.allow_anonymous) return absl::OkStatus();
  for (const ListenAddress* address : {&config.http, &config.grpc}) {
    if (address->off() || address->IsLoopback()) continue;
    return absl::InvalidArgumentError(
        StrCat(address->ToString(),
               " can be reached from other machines and there are no API keys: give "
               "--api-key-file, or --allow-anonymous if everybody may use this server"));
  }
  return absl::OkStatus();
}

Json ConfigJson(const std::vector<Flag>& flags) {
  Json config = Json::object();
  for (const Flag& flag : flags) {
    Json value = flag.get();
    if (flag.secret && value != "") value = "(hidden)";
    config[flag.name] = std::move(value);
  }
  return config;
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// What the commands can be told: their settings, the command line, the YAML file. One thread.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/json.h"
#include "server/config_flag.h"

namespace CLI {
class App;
}

namespace fairlead {

// The user's cache folder for packed weights; "off" where the environment names none.
std::string DefaultWeightCache();

// How a model is loaded and run: serve, generate and chat have these in common.
struct RuntimeConfig {
  std::string model;
  std::string tokenizer;  // "" : the model's own
  bool skip_tokenizer = false;
  std::string task = "auto";
  std::string device = "auto";
  std::string numerics = "precise";
  std::string kv_cache_dtype = "auto";
  int threads = 0;  // 0: one per core
  int max_batched_tokens = 256;
  int max_num_seqs = 64;
  int max_queue = 512;
  std::optional<MemorySize>
      kv_cache_memory;                   // absent: 25 % of what is free, at most what is of use
  std::optional<int64_t> max_model_len;  // absent: the model's, or what the cache holds
  std::optional<int64_t> gpu_layers;     // absent: as many as fit
  int max_logprobs = 20;
  bool no_prefix_cache = false;
  std::string speculation = "off";
  std::string graphs = "on";
  std::string async_scheduling = "on";
  int block_tokens = 16;
  std::string weight_dtype = "auto";
  std::string load_format = "auto";
  std::string dummy_dtype = "q4_0";
  std::string weight_cache = DefaultWeightCache();  // a folder, or "off"
  std::string log_level = "info";
};

struct ServeConfig {
  RuntimeConfig runtime;
  ListenAddress http{"127.0.0.1", 8000};
  ListenAddress grpc{"127.0.0.1", 8001};
  std::string served_model_name;  // "": from the model's path
  std::string tls_cert, tls_key;
  std::string api_key_file;
  bool allow_anonymous = false;
  std::string grpc_reflection = "on";
  double drain_timeout = 30;  // seconds
  int max_connections = 1024;
  uint64_t max_body_size = 32u << 20;
};

// The settings of a command, in the order of --help. `config` lives at least as long.
std::vector<Flag> RuntimeFlags(RuntimeConfig& config);
std::vector<Flag> ServeFlags(ServeConfig& config);

// What was written, before it is checked: name to text.
using FlagTexts = std::map<std::string, std::string>;

// Makes a command line option of every flag; what the command line holds goes to `texts`, which
// lives at least as long as `app`.
void AddFlags(CLI::App& app, const std::vector<Flag>& flags, FlagTexts& texts);
// The YAML file at `path`: a mapping of flag names to plain values. Errors name the file, the line
// and the key.
absl::StatusOr<FlagTexts> ReadYaml(const std::string& path, const std::vector<Flag>& flags);
// Sets the fields; `source` ("--", "fairlead.yaml: ") comes before the flag's name in errors.
absl::Status ApplyTexts(const FlagTexts& texts, const std::string& source,
                        const std::vector<Flag>& flags);
// What the settings say together: addresses that need keys, TLS files that come in pairs.
absl::Status CheckServeConfig(const ServeConfig& config);
// {"max-queue": 512, ...}; the values of secret flags are "(hidden)" where they are set.
Json ConfigJson(const std::vector<Flag>& flags);

}  // namespace fairlead

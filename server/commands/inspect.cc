// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/device.h"
#include "kernels/strings.h"
#include "models/encoder_config.h"
#include "models/latent_attention.h"
#include "models/model.h"
#include "models/quantization_config.h"
#include "models/registry.h"
#include "models/text_part.h"
#include "server/commands/command.h"
#include "server/commands/inspect_encoder.h"
#include "server/commands/inspect_features.h"
#include "server/commands/inspect_text.h"
#include "server/commands/local_service.h"
#include "server/config.h"
#include "server/runtime_setup.h"

namespace fairlead {
namespace {

struct InspectOptions {
  RuntimeConfig runtime;
  std::vector<Flag> flags;
  FlagTexts texts;
  bool json = false;
  int context = 0;  // 0: the model's
  int concurrency = 1;
};

// What a model's weights become when they are loaded: the source's tensors, or others that are made
// of them.
struct Contents {
  std::unique_ptr<WeightSource> made;  // may be null
  absl::Span<const WeightInfo> tensors;
};

absl::StatusOr<Contents> ContentsOf(const WeightSource& source, const ModelConfig* config) {
  Contents contents{.made = nullptr, .tensors = source.tensors()};
  if (config == nullptr || !config->is_latent()) return contents;
  auto made = ExpandLatentWeights(source, *config);
  if (!made.ok()) return made.status();
  contents.made = *std::move(made);
  contents.tensors = contents.made->tensors();
  return contents;
}

Json DtypeCounts(const Contents& contents) {
  std::map<std::string, std::pair<int64_t, uint64_t>> counts;  // tensors, bytes
  for (const WeightInfo& tensor : contents.tensors) {
    auto& [tensors, bytes] = counts[std::string(Info(tensor.dtype).name)];
    ++tensors;
    bytes += tensor.bytes;
  }
  Json json = Json::object();
  for (const auto& [name, count] : counts)
    json[name] = {{"tensors", count.first}, {"bytes", count.second}};
  return json;
}

// Of tensors that are made from another form: as the file has them, and as what they are computed.
Json FormCounts(const Contents& contents) {
  std::map<std::string, int64_t> counts;
  for (const WeightInfo& tensor : contents.tensors) {
    if (tensor.make && !tensor.file_dtype.empty())
      ++counts[StrCat(tensor.file_dtype, " as ", Info(tensor.dtype).name)];
  }
  Json json = Json::object();
  for (const auto& [form, count] : counts) json[form] = count;
  return json;
}

uint64_t BytesOf(const Contents& contents) {
  uint64_t bytes = 0;
  for (const WeightInfo& tensor : contents.tensors) bytes += tensor.bytes;
  return bytes;
}

struct ParameterCounts {
  int64_t total = 0;
  int64_t active = 0;  // that one token is multiplied with, of the experts those it takes
};

// Of the model as it is published, whatever is made of it.
ParameterCounts CountParameters(const WeightSource& source, const ModelConfig* config) {
  int64_t others = 0, experts = 0;
  for (const WeightInfo& tensor : source.tensors()) {
    int64_t count = 1;
    for (const int64_t dim : tensor.dim) count *= dim;
    (tensor.name.find(".experts.") == std::string::npos ? others : experts) += count;
  }
  const int count = config == nullptr ? 0 : config->experts.count;
  return {.total = others + experts,
          .active = others + (count > 0 ? experts / count * config->experts.slots : experts)};
}

Json ModelShape(const ModelConfig& config) {
  Json shape = {{"layers", config.layers},      {"hidden", config.hidden},
                {"heads", config.heads},        {"kv_heads", config.kv_heads},
                {"head_dim", config.head_dim},  {"ffn", config.ffn},
                {"vocabulary", config.vocab},   {"context", config.max_positions},
                {"tied_head", config.tied_head}};
  if (config.experts.count > 0) {
    shape["experts"] = {{"count", config.experts.count},
                        {"per_token", config.experts.slots},
                        {"ffn", config.experts.ffn}};
  }
  return shape;
}

// Of a server with so many requests of such a length at once.
absl::StatusOr<Json> Memory(const InspectOptions& options, const Contents& contents,
                            const ModelConfig& config) {
  const auto device = OpenDevice(options.runtime);
  if (!device.ok()) return device.status();
  const int context =
      options.context > 0 ? std::min(options.context, config.max_positions) : config.max_positions;
  const int block_tokens = options.runtime.block_tokens;
  const size_t block = (*device)->KvBlockBytes({.kv_heads = config.kv_heads,
                                                .head_dim = config.head_dim,
                                                .block_tokens = block_tokens}) *
                       static_cast<size_t>(config.layers);
  const size_t blocks = (static_cast<size_t>(context) + block_tokens - 1) / block_tokens;
  const size_t kv = block * blocks * static_cast<size_t>(options.concurrency);
  const int tokens = options.runtime.max_batched_tokens;
  const int rows = SliceRows({.max_batched_tokens = tokens, .max_num_seqs = options.concurrency});
  const size_t logits = sizeof(float) * static_cast<size_t>(rows) * config.vocab;
  const size_t scratch = ScratchBytesOf(config, **device, tokens, rows) + logits;
  const DeviceInfo& info = (*device)->info();
  return Json{{"device", info.name},
              {"weights", BytesOf(contents)},
              {"kv_dtype", std::string(Info(info.kv_dtype).name)},
              {"kv_per_token", block / block_tokens},
              {"context", context},
              {"concurrency", options.concurrency},
              {"kv", kv},
              {"scratch", scratch},
              {"total", BytesOf(contents) + kv + scratch}};
}

void NoteWeights(const WeightSource& source, const Json& converted, Json& unusual) {
  if (const auto whole = source.config().find(kTextPartOf); whole != source.config().end())
    unusual.push_back(
        StrCat("the text model of a ", whole->get<std::string>(), ", nothing else of it"));
  for (const SkippedTensor& tensor : source.skipped()) {
    unusual.push_back(StrCat("tensor ", tensor.name, " has dtype ", tensor.dtype, ": not used"));
  }
  if (source.format() == WeightFormat::kSafetensors) {
    const auto quantization = ReadQuantizationConfig(source.config());
    if (quantization.ok() && *quantization)
      unusual.push_back(StrCat("weights are quantised: ", (*quantization)->method));
  }
  for (const auto& [form, count] : converted.items())
    unusual.push_back(StrCat("converted weights: ", count.get<int64_t>(), " tensors of ", form));
}

absl::StatusOr<Json> Inspect(const InspectOptions& options) {
  auto opened = OpenModel(options.runtime);
  if (!opened.ok()) return opened.status();
  const WeightSource& source = **opened;
  const absl::StatusOr<std::string> architecture = ArchitectureName(source);
  absl::StatusOr<ModelConfig> config = LoadModelConfig(source);
  absl::StatusOr<Contents> contents = ContentsOf(source, config.ok() ? &*config : nullptr);
  if (!contents.ok()) {
    config = contents.status();
    contents = ContentsOf(source, nullptr);
  }
  const ModelConfig* known = config.ok() ? &*config : nullptr;
  const bool encodes = IsEncoder(source);
  const absl::StatusOr<EncoderConfig> encoder = LoadEncoderConfig(source);
  const ParameterCounts parameters = CountParameters(source, known);
  Json unusual = Json::array();
  Json report = {{"path", source.path()},
                 {"format", source.format() == WeightFormat::kGguf ? "gguf" : "safetensors"},
                 {"architecture", architecture.ok() ? Json(*architecture) : Json(nullptr)},
                 {"supported", config.ok() || encoder.ok()},
                 {"parameters", parameters.total},
                 {"active_parameters", parameters.active},
                 {"tensors", source.tensors().size()},
                 {"dtypes", DtypeCounts(*contents)},
                 {"converted", FormCounts(*contents)},
                 {"shape", nullptr},
                 {"memory", nullptr},
                 {"pooling", nullptr}};
  if (known != nullptr) {
    report["shape"] = ModelShape(*known);
    absl::StatusOr<Json> memory = Memory(options, *contents, *known);
    if (!memory.ok()) return memory.status();
    report["memory"] = *std::move(memory);
    for (std::string& line : UnusualFeatures(*known)) unusual.push_back(std::move(line));
  } else if (encoder.ok()) {
    report["shape"] = EncoderShape(*encoder);
    report["memory"] = {{"weights", BytesOf(*contents)}};
  } else {
    const absl::Status& problem = encodes ? encoder.status() : config.status();
    unusual.push_back(StrCat("not supported: ", std::string(problem.message())));
  }
  report["pooling"] = PoolingInfo(source, unusual);
  NoteWeights(source, report["converted"], unusual);
  report["tokenizer"] = TokenizerInfo(source, unusual);
  report["chat_template"] = encodes ? Json(nullptr) : TemplateInfo(source, unusual);
  report["unusual"] = std::move(unusual);
  return report;
}

std::string PlainText(const Json& value) {
  return value.is_string() ? value.get<std::string>() : DumpJson(value);
}

// "name: value" lines; objects and lists are indented below their name.
void PrintReport(const Json& report, int indent) {
  for (const auto& [key, value] : report.items()) {
    const std::string name = report.is_array() ? "-" : key + ":";
    if (value.is_structured() && !value.empty() && indent < 4) {
      std::printf("%*s%s\n", indent, "", name.c_str());
      PrintReport(value, indent + 2);
    } else {
      std::printf("%*s%s %s\n", indent, "", name.c_str(), PlainText(value).c_str());
    }
  }
}

absl::Status RunInspect(InspectOptions& options) {
  if (absl::Status status = ApplyTexts(options.texts, "--", options.flags); !status.ok())
    return UsageError({status.message().data(), status.message().size()});
  if (options.runtime.model.empty()) return UsageError("inspect needs --model");
  SetUpLog(options.runtime.log_level);
  const absl::StatusOr<Json> report = Inspect(options);
  if (!report.ok()) return report.status();
  if (options.json) {
    std::printf("%s\n", DumpJson(*report).c_str());
  } else {
    PrintReport(*report, 0);
  }
  return absl::OkStatus();
}

}  // namespace

void AddInspectCommand(CLI::App& app, Command& chosen) {
  const auto options = std::make_shared<InspectOptions>();
  options->runtime.device = "cpu";
  options->runtime.log_level = "error";
  CLI::App& command = *app.add_subcommand("inspect", "Says what a model file is and what it needs");
  command.add_flag("--json", options->json, "print one JSON object");
  command.add_option("--context", options->context, "tokens of a request; default: the model's")
      ->check(CLI::Range(1, 1 << 24))
      ->type_name("N");
  command.add_option("--concurrency", options->concurrency, "requests of that length at once")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N");
  // As of serve: what they change is memory.
  const std::set<std::string> taken = {"model",          "device",       "numerics",
                                       "kv-cache-dtype", "block-tokens", "max-batched-tokens",
                                       "weight-dtype"};
  for (Flag& flag : RuntimeFlags(options->runtime)) {
    if (taken.contains(flag.name)) options->flags.push_back(std::move(flag));
  }
  AddFlags(command, options->flags, options->texts);
  command.callback([options, &chosen] { chosen = [options] { return RunInspect(*options); }; });
}

}  // namespace fairlead

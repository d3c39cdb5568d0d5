// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>

#include "absl/strings/str_format.h"
#include "kernels/device.h"
#include "kernels/strings.h"
#include "models/chat_template.h"
#include "models/registry.h"
#include "models/tokenizer.h"
#include "server/commands/command.h"
#include "server/kv_plan.h"
#include "server/runtime_setup.h"

namespace fairlead {
namespace {

constexpr int kBlockTokens = 16;

struct InspectOptions {
  std::string model;
  bool json = false;
  int context = 0;  // 0: the model's
  int concurrency = 1;
  std::string weight_dtype = "auto";
};

Json DtypeCounts(const WeightSource& source) {
  std::map<std::string, std::pair<int64_t, uint64_t>> counts;  // tensors, bytes
  for (const WeightInfo& tensor : source.tensors()) {
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
Json FormCounts(const WeightSource& source) {
  std::map<std::string, int64_t> counts;
  for (const WeightInfo& tensor : source.tensors()) {
    if (tensor.make) ++counts[StrCat(tensor.file_dtype, " as ", Info(tensor.dtype).name)];
  }
  Json json = Json::object();
  for (const auto& [form, count] : counts) json[form] = count;
  return json;
}

uint64_t WeightBytes(const WeightSource& source) {
  uint64_t bytes = 0;
  for (const WeightInfo& tensor : source.tensors()) bytes += tensor.bytes;
  return bytes;
}

Json ModelShape(const ModelConfig& config) {
  return {{"layers", config.layers},      {"hidden", config.hidden},
          {"heads", config.heads},        {"kv_heads", config.kv_heads},
          {"head_dim", config.head_dim},  {"ffn", config.ffn},
          {"vocabulary", config.vocab},   {"context", config.max_positions},
          {"tied_head", config.tied_head}};
}

absl::StatusOr<Json> Memory(const InspectOptions& options, const WeightSource& source,
                            const ModelConfig& config) {
  const auto device = OpenDevice("cpu", {.threads = 1});
  if (!device.ok()) return device.status();
  const int context =
      options.context > 0 ? std::min(options.context, config.max_positions) : config.max_positions;
  const size_t block = (*device)->KvBlockBytes({.kv_heads = config.kv_heads,
                                                .head_dim = config.head_dim,
                                                .block_tokens = kBlockTokens}) *
                       static_cast<size_t>(config.layers);
  const size_t per_request =
      block * ((static_cast<size_t>(context) + kBlockTokens - 1) / kBlockTokens);
  const size_t kv = per_request * static_cast<size_t>(options.concurrency);
  return Json{{"weights", WeightBytes(source)},
              {"kv_per_token", block / kBlockTokens},
              {"context", context},
              {"concurrency", options.concurrency},
              {"kv", kv},
              {"total", WeightBytes(source) + kv}};
}

Json TokenizerInfo(const WeightSource& source, Json& unusual) {
  const auto tokenizer = LoadTokenizer(source);
  if (!tokenizer.ok()) {
    unusual.push_back(StrCat("tokenizer: ", std::string(tokenizer.status().message())));
    return nullptr;
  }
  Json stops = Json::array();
  for (const Token token : (*tokenizer)->stop_tokens())
    stops.push_back({{"id", token}, {"text", (*tokenizer)->Spelling(token)}});
  const std::optional<Token> bos = (*tokenizer)->bos();
  return {{"vocabulary", (*tokenizer)->vocab_size()},
          {"bos", bos ? Json(*bos) : Json(nullptr)},
          {"stop_tokens", std::move(stops)}};
}

Json TemplateInfo(const WeightSource& source, Json& unusual) {
  const absl::StatusOr<ChatFormat> format = LoadChatFormat(source);
  if (!format.ok()) {
    unusual.push_back(StrCat("chat template: ", std::string(format.status().message())));
    return nullptr;
  }
  if (format->chat_template == nullptr) {
    unusual.push_back("there is no chat template");
    return nullptr;
  }
  return {{"characters", format->source.size()},
          {"bos_token", format->bos_token},
          {"eos_token", format->eos_token}};
}

void NoteUnusual(const WeightSource& source, const ModelConfig& config, Json& unusual) {
  if (config.qkv_bias) unusual.push_back("the q, k and v projections have biases");
  if (config.attention_out_bias) unusual.push_back("the attention's output has a bias");
  if (config.mlp_bias) unusual.push_back("the MLP has biases");
  if (config.head_dim * config.heads != config.hidden)
    unusual.push_back("heads x head_dim is not the hidden size");
  const Json& source_config = source.config();
  if (source_config.is_object() && source_config.contains("rope_scaling") &&
      !source_config["rope_scaling"].is_null()) {
    unusual.push_back(StrCat("rope_scaling: ", DumpJson(source_config["rope_scaling"])));
  }
}

absl::StatusOr<Json> Inspect(const InspectOptions& options) {
  RuntimeConfig runtime;
  runtime.model = options.model;
  runtime.weight_dtype = options.weight_dtype;
  auto opened = OpenModel(runtime);
  if (!opened.ok()) return opened.status();
  const WeightSource& source = **opened;
  Json unusual = Json::array();
  for (const SkippedTensor& tensor : source.skipped())
    unusual.push_back(StrCat("tensor ", tensor.name, " has dtype ", tensor.dtype, ": not used"));
  const absl::StatusOr<std::string> architecture = ArchitectureName(source);
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(source);
  Json report = {{"path", source.path()},
                 {"format", source.format() == WeightFormat::kGguf ? "gguf" : "safetensors"},
                 {"architecture", architecture.ok() ? Json(*architecture) : Json(nullptr)},
                 {"supported", config.ok()},
                 {"parameters", CountParameters(source)},
                 {"tensors", source.tensors().size()},
                 {"dtypes", DtypeCounts(source)},
                 {"converted", FormCounts(source)},
                 {"shape", nullptr},
                 {"memory", nullptr}};
  if (config.ok()) {
    report["shape"] = ModelShape(*config);
    absl::StatusOr<Json> memory = Memory(options, source, *config);
    if (!memory.ok()) return memory.status();
    report["memory"] = *std::move(memory);
    NoteUnusual(source, *config, unusual);
  } else {
    unusual.push_back(StrCat("not supported: ", std::string(config.status().message())));
  }
  report["tokenizer"] = TokenizerInfo(source, unusual);
  report["chat_template"] = TemplateInfo(source, unusual);
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

absl::Status RunInspect(const InspectOptions& options) {
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
  CLI::App& command = *app.add_subcommand("inspect", "Says what a model file is and what it needs");
  command.add_option("--model", options->model, "a GGUF file or a folder")
      ->required()
      ->type_name("PATH");
  command.add_flag("--json", options->json, "print one JSON object");
  command.add_option("--context", options->context, "tokens of a request; default: the model's")
      ->check(CLI::Range(1, 1 << 24))
      ->type_name("N");
  command.add_option("--concurrency", options->concurrency, "requests of that length at once")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N");
  command
      .add_option("--weight-dtype", options->weight_dtype,
                  "as if the matrices were converted to it, as serve --weight-dtype")
      ->check(CLI::IsMember({"auto", "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"}))
      ->type_name("T");
  command.callback([options, &chosen] { chosen = [options] { return RunInspect(*options); }; });
}

}  // namespace fairlead

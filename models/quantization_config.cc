// SPDX-License-Identifier: Apache-2.0
#include "models/quantization_config.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "absl/strings/ascii.h"
#include "kernels/strings.h"
#include "models/config_reader.h"
#include "models/regex.h"

namespace fairlead {
namespace {

constexpr int kMostGroup = 1 << 20;
// Published configs have a few groups and patterns, and up to a name for each layer.
constexpr size_t kMostGroups = 256;
constexpr size_t kMostNames = 1 << 17;  // of one list
constexpr size_t kMostPatterns = 256, kLongestPattern = 1024;
// Of layers whose names are matched with patterns: bytes of a name, and of all names with all
// patterns, each name counting kNameBytes more.
constexpr size_t kLongestName = 512, kMostMatchedBytes = size_t{1} << 26, kNameBytes = 64;
constexpr int64_t kBaseSteps = 1 << 16;  // of a pattern: Regex::Search
constexpr std::string_view kPattern = "re:";
constexpr int kDefaultFp8Block = 128;  // as transformers
constexpr char kMethods[] = "fp8, gptq, awq, compressed-tensors, mxfp4";

using Keys = std::initializer_list<std::string_view>;

bool IsOff(const Json& value) {
  if (value.is_null()) return true;
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number()) return value.get<double>() == 0;
  if (value.is_string()) return value.get_ref<const std::string&>().empty();
  return std::all_of(value.begin(), value.end(), IsOff);
}

// Keys that we read, and keys that say how the checkpoint was made or how another program should
// run it. Whatever else is switched on may change what the weights mean.
void RefuseUnknownKeys(const Json& json, const std::string& where, Keys read, Keys harmless,
                       ConfigReader& reader) {
  const auto has = [](Keys keys, const std::string& key) {
    return std::find(keys.begin(), keys.end(), key) != keys.end();
  };
  for (const auto& [key, value] : json.items()) {
    if (has(read, key) || has(harmless, key) || IsOff(value)) continue;
    reader.Fail(absl::UnimplementedError(
        StrCat("config key \"", where, key, "\" is ", ShortDump(value), ": not supported")));
  }
}

void RefuseValue(const std::string& where, std::string_view key, const Json& value,
                 std::string_view known, ConfigReader& reader) {
  reader.Fail(absl::UnimplementedError(StrCat(
      "config key \"", where, key, "\" is ", ShortDump(value), ": not supported; known: ", known)));
}

// A string, in small letters, that must be one of `known`.
std::string Choice(const std::string& where, std::string_view key, Keys known,
                   std::string_view fallback, ConfigReader& reader) {
  std::string value = reader.String(key, fallback);
  absl::AsciiStrToLower(&value);
  if (std::find(known.begin(), known.end(), value) != known.end()) return value;
  std::string list;
  for (const std::string_view name : known) StrAppend(&list, list.empty() ? "" : ", ", name);
  RefuseValue(where, key, Json(value), list, reader);
  return std::string(fallback);
}

void CheckNames(const std::string& where, std::string_view key, ConfigReader& reader) {
  const Json* names = reader.Find(key);
  if (names == nullptr) return;
  const bool ok = names->is_array() && std::all_of(names->begin(), names->end(),
                                                   [](const Json& n) { return n.is_string(); });
  if (!ok) {
    reader.Fail(
        absl::InvalidArgumentError(StrCat("config key \"", where, key, "\" is ", ShortDump(*names),
                                          "; it must be an array of strings")));
  } else if (names->size() > kMostNames) {
    reader.Fail(
        absl::InvalidArgumentError(StrCat("config key \"", where, key, "\" has ", names->size(),
                                          " entries; at most ", kMostNames, " are allowed")));
  }
}

int Bits(const std::string& where, std::string_view key, ConfigReader& reader, bool eight = true) {
  const int bits = reader.Int(key, 1, 64);
  if (reader.ok() && bits != 4 && !(eight && bits == 8))
    RefuseValue(where, key, Json(bits), eight ? "4, 8" : "4", reader);
  return bits;
}

// -1, and 0 here, stands for the whole row.
int GroupSize(const std::string& where, std::string_view key, ConfigReader& reader) {
  const int size = reader.Int(key, -1, kMostGroup, 128);
  if (size == 0) {
    reader.Fail(absl::InvalidArgumentError(
        StrCat("config key \"", where, key, "\" is 0; it must be -1 or at least 1")));
  }
  return std::max(size, 0);
}

constexpr char kWhere[] = "quantization_config.";

// GPTQModel's overrides for modules that match: "-:" ones leave modules as they are, which the
// tensors show.
void CheckDynamic(ConfigReader& reader) {
  const Json* rules = reader.Find("dynamic");
  if (rules == nullptr) return;
  const bool is_object = rules->is_object();
  for (const auto& [pattern, rule] : rules->items()) {
    if (is_object && pattern.starts_with("-:")) continue;
    RefuseValue(kWhere, StrCat("dynamic.", pattern), rule, "\"-:\" rules", reader);
  }
}

absl::StatusOr<QuantScheme> ReadGptq(const Json& json) {
  ConfigReader reader(json, kWhere);
  RefuseUnknownKeys(json, kWhere,
                    {"quant_method", "bits", "group_size", "desc_act", "sym", "checkpoint_format",
                     "format", "dynamic", "pack_dtype", "modules_to_not_convert"},
                    {"act_group_aware",
                     "backend",
                     "batch_size",
                     "block_name_to_quantize",
                     "cache_block_outputs",
                     "damp_auto_increment",
                     "damp_percent",
                     "dataset",
                     "disable_exllama",
                     "exllama_config",
                     "foem",
                     "fail_safe",
                     "failsafe",
                     "gptaq",
                     "lm_head",
                     "max_input_length",
                     "meta",
                     "model_file_base_name",
                     "model_name_or_path",
                     "model_seqlen",
                     "module_name_preceding_first_block",
                     "modules_in_block_to_quantize",
                     "mse",
                     "offload_to_disk",
                     "offload_to_disk_path",
                     "pad_token_id",
                     "quantizer",
                     "static_groups",
                     "tokenizer",
                     "true_sequential",
                     "uri",
                     "use_cuda_fp16",
                     "use_exllama",
                     "v2",
                     "v2_alpha"},
                    reader);
  QuantScheme scheme = {.method = QuantMethod::kGptq};
  scheme.bits = Bits(kWhere, "bits", reader);
  scheme.block_cols = GroupSize(kWhere, "group_size", reader);
  scheme.symmetric = reader.Bool("sym", true);
  scheme.act_order = reader.Bool("desc_act", false);
  const char* key = reader.Find("checkpoint_format") != nullptr ? "checkpoint_format" : "format";
  scheme.zeros_less_one = Choice(kWhere, key, {"gptq", "gptq_v2"}, "gptq", reader) == "gptq";
  Choice(kWhere, "pack_dtype", {"int32", "torch.int32"}, "int32", reader);
  CheckNames(kWhere, "modules_to_not_convert", reader);
  CheckDynamic(reader);
  if (!reader.ok()) return reader.status();
  return scheme;
}

absl::StatusOr<QuantScheme> ReadAwq(const Json& json) {
  ConfigReader reader(json, kWhere);
  RefuseUnknownKeys(
      json, kWhere,
      {"quant_method", "bits", "w_bit", "group_size", "q_group_size", "zero_point", "version",
       "format", "modules_to_not_convert", "sym", "desc_act", "pack_dtype", "checkpoint_format"},
      {"backend", "dataset", "do_fuse", "exllama_config", "fuse_max_seq_len", "lm_head", "meta",
       "method", "modules_to_fuse", "quantizer", "tokenizer"},
      reader);
  QuantScheme scheme = {.method = QuantMethod::kAwq};
  scheme.bits = Bits(kWhere, reader.Find("bits") != nullptr ? "bits" : "w_bit", reader,
                     /*eight=*/false);
  scheme.block_cols = GroupSize(
      kWhere, reader.Find("group_size") != nullptr ? "group_size" : "q_group_size", reader);
  scheme.symmetric = false;
  reader.Bool("zero_point", true);  // GPTQModel says false of symmetric layers, which have qzeros
  if (reader.Bool("desc_act", false)) RefuseValue(kWhere, "desc_act", true, "false", reader);
  for (const char* key : {"version", "format", "checkpoint_format"})
    Choice(kWhere, key, {"gemm"}, "gemm", reader);
  Choice(kWhere, "pack_dtype", {"int32", "torch.int32"}, "int32", reader);
  CheckNames(kWhere, "modules_to_not_convert", reader);
  if (!reader.ok()) return reader.status();
  return scheme;
}

// [rows, columns] of a block.
void ReadBlock(const std::string& where, std::string_view key, ConfigReader& reader,
               QuantScheme& scheme) {
  const Json* block = reader.Find(key);
  const auto is_size = [](const Json& n) {
    return n.is_number_unsigned() && n.get<uint64_t>() >= 1 && n.get<uint64_t>() <= kMostGroup;
  };
  if (block == nullptr || !block->is_array() || block->size() != 2 || !is_size((*block)[0]) ||
      !is_size((*block)[1])) {
    reader.Fail(absl::InvalidArgumentError(
        StrCat("config key \"", where, key, "\" is ", block ? ShortDump(*block) : "missing",
               "; it must be two integers from 1 to ", kMostGroup)));
    return;
  }
  scheme.block_rows = (*block)[0].get<int64_t>();
  scheme.block_cols = (*block)[1].get<int64_t>();
}

absl::StatusOr<QuantScheme> ReadFp8(const Json& json) {
  ConfigReader reader(json, kWhere);
  RefuseUnknownKeys(json, kWhere,
                    {"quant_method", "activation_scheme", "fmt", "weight_block_size", "scale_fmt",
                     "expert_dtype", "modules_to_not_convert", "ignored_layers"},
                    {"dequantize", "kv_cache_scheme", "modules_to_convert"}, reader);
  QuantScheme scheme = {.method = QuantMethod::kFp8, .is_float = true};
  scheme.block_rows = scheme.block_cols = kDefaultFp8Block;
  if (!json.contains("weight_block_size")) {
    scheme.blocks_known = false;
  } else if (reader.Find("weight_block_size") != nullptr) {
    ReadBlock(kWhere, "weight_block_size", reader, scheme);
  } else {
    scheme.block_rows = scheme.block_cols = 0;
    scheme.blocks_known = false;
  }
  Choice(kWhere, "activation_scheme", {"dynamic", "static"}, "dynamic", reader);
  Choice(kWhere, "fmt", {"e4m3"}, "e4m3", reader);
  Choice(kWhere, "scale_fmt", {"float", "ue8m0"}, "float", reader);
  Choice(kWhere, "expert_dtype", {"fp8"}, "fp8", reader);
  CheckNames(kWhere, "modules_to_not_convert", reader);
  CheckNames(kWhere, "ignored_layers", reader);
  if (!reader.ok()) return reader.status();
  return scheme;
}

// A group's "weights".
void ReadWeightArgs(const Json& json, const std::string& where, ConfigReader& group,
                    QuantScheme& scheme) {
  ConfigReader reader(json, where);
  RefuseUnknownKeys(json, where,
                    {"num_bits", "type", "symmetric", "group_size", "strategy", "block_structure",
                     "dynamic", "actorder"},
                    {"observer", "observer_kwargs", "scale_dtype", "zp_dtype"}, reader);
  scheme.bits = Bits(where, "num_bits", reader);
  scheme.is_float = Choice(where, "type", {"int", "float"}, "int", reader) == "float";
  scheme.symmetric = reader.Bool("symmetric", true);
  const int group_size =
      reader.Find("group_size") != nullptr ? GroupSize(where, "group_size", reader) : -1;
  const std::string implied = group_size > 0 ? "group" : group_size == 0 ? "channel" : "tensor";
  const std::string strategy =
      Choice(where, "strategy", {"tensor", "channel", "group", "block"}, implied, reader);
  if (strategy == "tensor") {
    scheme.block_rows = 0;
  } else if (strategy == "block") {
    ReadBlock(where, "block_structure", reader, scheme);
  } else if (strategy == "group") {
    scheme.block_cols = group_size;
    if (group_size <= 0) {
      reader.Fail(
          absl::InvalidArgumentError(StrCat("config key \"", where,
                                            "group_size\" must be at least 1 with the strategy "
                                            "\"group\"")));
    }
  }
  if (const Json* order = reader.Find("actorder"); order != nullptr && order->is_boolean()) {
    scheme.act_order = order->get<bool>();
  } else {
    const std::string name =
        Choice(where, "actorder", {"weight", "static", "group", "dynamic"}, "weight", reader);
    scheme.act_order = name == "group" || name == "dynamic";
  }
  if (const Json* dynamic = reader.Find("dynamic"); dynamic != nullptr && *dynamic != Json(false))
    RefuseValue(where, "dynamic", *dynamic, "false", reader);
  if (scheme.is_float && (scheme.bits != 8 || !scheme.symmetric))
    RefuseValue(where, "type", "float", "float with 8 bits, symmetric", reader);
  group.Fail(reader.status());
}

absl::Status BadTarget(std::string_view target, std::string_view what) {
  return absl::InvalidArgumentError(
      StrCat("quantization_config target ", ShortDump(Json(std::string(target))), what));
}

// The regular expression of a target "re:...".
absl::StatusOr<Regex> CompileTarget(const std::string& target) {
  const std::string_view pattern = std::string_view(target).substr(kPattern.size());
  if (pattern.size() > kLongestPattern) {
    return BadTarget(target, StrCat(" has ", pattern.size(), " bytes; at most ", kLongestPattern,
                                    " are allowed"));
  }
  absl::StatusOr<Regex> regex = Regex::Compile(StrCat("\\A(?:", pattern, ")"));
  if (regex.ok()) return regex;
  const absl::Status error = BadTarget(target, StrCat(": ", std::string(regex.status().message())));
  return absl::Status(regex.status().code(), error.message());
}

absl::Status TooMany(size_t count, std::string_view what, size_t most) {
  return absl::InvalidArgumentError(StrCat("config key \"", kWhere, "config_groups\" has ", count,
                                           " ", what, "; at most ", most, " are allowed"));
}

// targets: of each scheme.
absl::Status AddTargets(const std::vector<std::vector<std::string>>& targets,
                        QuantizationConfig& config) {
  size_t patterns = 0;
  for (const std::vector<std::string>& of : targets) {
    patterns += static_cast<size_t>(std::count_if(
        of.begin(), of.end(), [](const std::string& name) { return name.starts_with(kPattern); }));
  }
  if (patterns > kMostPatterns) return TooMany(patterns, "\"re:\" targets", kMostPatterns);
  for (size_t scheme = 0; scheme < targets.size(); ++scheme) {
    for (const std::string& target : targets[scheme]) {
      if (!target.starts_with(kPattern)) {
        config.names.emplace(target, scheme);  // the first group that has the name keeps it
        continue;
      }
      absl::StatusOr<Regex> regex = CompileTarget(target);
      if (!regex.ok()) return regex.status();
      config.patterns.push_back({target, *std::move(regex), scheme});
    }
  }
  return absl::OkStatus();
}

// Adds nothing where the group leaves weights alone.
void ReadGroup(const Json& json, const std::string& where, const std::string& format_of_all,
               std::vector<QuantScheme>& schemes, std::vector<std::vector<std::string>>& targets,
               ConfigReader& all) {
  ConfigReader reader(json, where);
  if (!reader.ok()) return all.Fail(reader.status());
  RefuseUnknownKeys(json, where, {"targets", "weights", "format"},
                    {"input_activations", "output_activations"}, reader);
  CheckNames(where, "targets", reader);
  const Json* weights = reader.Find("weights");
  if (weights != nullptr && reader.ok()) {
    QuantScheme scheme;
    const std::string format = Choice(
        where, "format", {"pack-quantized", "int-quantized", "float-quantized", "naive-quantized"},
        format_of_all, reader);
    scheme.method = format == "pack-quantized" ? QuantMethod::kPacked : QuantMethod::kPlainTensor;
    ReadWeightArgs(*weights, where + "weights.", reader, scheme);
    if (scheme.is_float && scheme.method == QuantMethod::kPacked)
      RefuseValue(where, "format", format, "floats are not packed", reader);
    schemes.push_back(scheme);
    targets.emplace_back();
    if (const Json* names = reader.Find("targets"); names != nullptr && reader.ok())
      targets.back() = names->get<std::vector<std::string>>();
  }
  all.Fail(reader.status());
}

absl::Status ReadCompressedTensors(const Json& json, QuantizationConfig& config) {
  ConfigReader reader(json, kWhere);
  RefuseUnknownKeys(json, kWhere,
                    {"quant_method", "config_groups", "format", "ignore", "sparsity_config"},
                    {"global_compression_ratio", "kv_cache_scheme", "quantization_status",
                     "run_compressed", "version"},
                    reader);
  CheckNames(kWhere, "ignore", reader);
  if (const Json* sparsity = reader.Find("sparsity_config"); sparsity != nullptr) {
    const std::string where = StrCat(kWhere, "sparsity_config.");
    ConfigReader inner(*sparsity, where);
    if (inner.ok()) Choice(where, "format", {"dense"}, "dense", inner);
    reader.Fail(inner.status());
  }
  const std::string format = Choice(kWhere, "format",
                                    {"pack-quantized", "int-quantized", "float-quantized",
                                     "naive-quantized", "mixed-precision", "dense", "fakequant"},
                                    "fakequant", reader);
  if (!reader.ok()) return reader.status();
  if (format == "dense" || format == "fakequant") return absl::OkStatus();
  const Json* groups = reader.Find("config_groups");
  if (groups == nullptr || !groups->is_object()) {
    return absl::InvalidArgumentError(
        StrCat("config key \"", kWhere, "config_groups\" must be an object"));
  }
  if (groups->size() > kMostGroups) return TooMany(groups->size(), "groups", kMostGroups);
  std::vector<std::vector<std::string>> targets;
  for (const auto& [name, group] : groups->items()) {
    const std::string where = StrCat(kWhere, "config_groups.", name, ".");
    ReadGroup(group, where, format, config.schemes, targets, reader);
  }
  if (!reader.ok()) return reader.status();
  // Else there is nothing to choose.
  return config.schemes.size() > 1 ? AddTargets(targets, config) : absl::OkStatus();
}

// Where the configs of published folders have it.
const Json* FindConfig(const Json& config) {
  if (!config.is_object()) return nullptr;
  for (const char* key : {"quantization_config", "compression_config"}) {
    const auto found = config.find(key);
    if (found != config.end() && !found->is_null()) return &*found;
  }
  const auto text = config.find("text_config");
  return text == config.end() ? nullptr : FindConfig(*text);
}

}  // namespace

absl::StatusOr<std::optional<QuantizationConfig>> ReadQuantizationConfig(const Json& config) {
  const Json* json = FindConfig(config);
  if (json == nullptr) return std::nullopt;
  ConfigReader reader(*json, kWhere);
  const std::string method = reader.String("quant_method", "");
  if (!reader.ok()) return reader.status();
  if (method == "mxfp4") return std::nullopt;
  QuantizationConfig result;
  result.method = method;
  if (method == "compressed-tensors") {
    if (absl::Status status = ReadCompressedTensors(*json, result); !status.ok()) return status;
    return result;
  }
  absl::StatusOr<QuantScheme> scheme = absl::UnimplementedError(
      StrCat("config key \"", kWhere, "quant_method\" is ", ShortDump(Json(method)),
             ": not supported; known: ", kMethods));
  if (method == "gptq") scheme = ReadGptq(*json);
  if (method == "awq") scheme = ReadAwq(*json);
  if (method == "fp8") scheme = ReadFp8(*json);
  if (!scheme.ok()) return scheme.status();
  result.schemes.push_back(*std::move(scheme));
  return result;
}

SchemeFinder::SchemeFinder(const QuantizationConfig& config, size_t name_bytes) : config_(config) {
  for (const QuantizationConfig::Pattern& pattern : config.patterns)
    searches_.emplace_back(pattern.regex, name_bytes, kBaseSteps);
}

absl::Status SchemeFinder::Count(std::string_view module) {
  if (searches_.empty()) return absl::OkStatus();
  if (module.size() > kLongestName) {
    return absl::InvalidArgumentError(
        StrCat("the name of a quantised layer has ", module.size(), " bytes; at most ",
               kLongestName, " are allowed where quantization_config has \"re:\" targets"));
  }
  ++layers_;
  matched_bytes_ += (module.size() + kNameBytes) * searches_.size();
  if (matched_bytes_ <= kMostMatchedBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat("quantization_config has ", searches_.size(),
                                           " \"re:\" targets for at least ", layers_, " layers; ",
                                           kMostMatchedBytes, " bytes of names, and ", kNameBytes,
                                           " more for each, may be matched"));
}

absl::StatusOr<const QuantScheme*> SchemeFinder::Find(std::string_view module) {
  if (config_.schemes.size() == 1) return &config_.schemes.front();
  const auto named = [&](std::string_view name) {
    const auto found = config_.names.find(AbslView(name));
    return found == config_.names.end() ? nullptr : &config_.schemes[found->second];
  };
  if (const QuantScheme* scheme = named(module); scheme != nullptr) return scheme;
  if (absl::Status status = Count(module); !status.ok()) return status;
  std::vector<TextSpan> match;
  for (size_t i = 0; i < searches_.size(); ++i) {
    const QuantizationConfig::Pattern& pattern = config_.patterns[i];
    if (!searches_[i].FindAll(module, &match)) {
      return BadTarget(pattern.target, ": it takes too many steps to match the names of layers");
    }
    if (!match.empty()) return &config_.schemes[pattern.scheme];
  }
  return named("Linear");
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "models/safetensors.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "kernels/strings.h"
#include "models/config_reader.h"
#include "models/json_file.h"
#include "models/mapped_weights.h"
#include "models/mmap_file.h"
#include "models/quantized_tensors.h"
#include "models/text_part.h"

namespace fairlead {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // as the reference implementation
constexpr size_t kMaxDims = 8;
constexpr size_t kMaxIndexBytes = 64 << 20;
constexpr size_t kMaxShards = 4096;
constexpr size_t kMaxConfigValues = 1 << 18;  // its keys are searched one after the other
constexpr int kMaxJsonDepth = 4;              // header: object, entry, array

struct FileType {
  std::string_view name;
  int bytes;
  std::optional<DType> dtype;  // none: the tensor is skipped
};
constexpr std::array kFileTypes = {
    FileType{"F32", 4, DType::kF32},
    FileType{"F16", 2, DType::kF16},
    FileType{"BF16", 2, DType::kBF16},
    FileType{"I32", 4, DType::kI32},
    FileType{"I64", 8, {}},
    FileType{"I16", 2, {}},
    FileType{"I8", 1, {}},
    FileType{"U64", 8, {}},
    FileType{"U32", 4, {}},
    FileType{"U16", 2, {}},
    FileType{"U8", 1, {}},
    FileType{"BOOL", 1, {}},
    FileType{"F8_E4M3", 1, {}},
    FileType{"F8_E5M2", 1, {}},
    FileType{"F8_E8M0", 1, {}},
};

absl::StatusOr<FileType> FindFileType(const std::string& name) {
  std::string known;
  for (const FileType& type : kFileTypes) {
    if (type.name == name) return type;
    if (type.dtype) StrAppend(&known, known.empty() ? "" : ", ", type.name);
  }
  return absl::UnimplementedError(
      StrCat("dtype ", Quoted(name), " is not supported; known: ", known));
}

// An array of non-negative integers.
absl::StatusOr<std::vector<int64_t>> ReadSizes(const JsonTable& entry, const char* key,
                                               size_t max_count) {
  const auto found = entry.find(key);
  if (found == entry.end() || !found->is_array() || found->size() > max_count) {
    return absl::InvalidArgumentError(
        StrCat("\"", key, "\" must be an array of at most ", max_count, " integers"));
  }
  std::vector<int64_t> sizes;
  for (const JsonTable& item : *found) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
      return absl::InvalidArgumentError(StrCat("\"", key, "\" holds ", ShortDump(Json(item)),
                                               "; allowed: integers from 0 to 2^63 - 1"));
    }
    sizes.push_back(item.get<int64_t>());
  }
  return sizes;
}

struct Entry {
  FileType type;
  std::vector<int64_t> shape;
  size_t begin = 0;
  size_t end = 0;
};

absl::StatusOr<Entry> ReadEntry(const JsonTable& json, size_t data_bytes) {
  if (!json.is_object()) return absl::InvalidArgumentError("its description must be an object");
  const auto dtype = json.find("dtype");
  if (dtype == json.end() || !dtype->is_string()) {
    return absl::InvalidArgumentError("\"dtype\" must be a string");
  }
  absl::StatusOr<FileType> type = FindFileType(dtype->get_ref<const std::string&>());
  if (!type.ok()) return type.status();
  absl::StatusOr<std::vector<int64_t>> shape = ReadSizes(json, "shape", kMaxDims);
  if (!shape.ok()) return shape.status();
  absl::StatusOr<std::vector<int64_t>> offsets = ReadSizes(json, "data_offsets", 2);
  if (!offsets.ok()) return offsets.status();
  if (offsets->size() != 2)
    return absl::InvalidArgumentError("\"data_offsets\" must hold two integers");
  const uint64_t begin = static_cast<uint64_t>((*offsets)[0]);
  const uint64_t end = static_cast<uint64_t>((*offsets)[1]);
  if (begin > end || end > data_bytes) {
    return absl::InvalidArgumentError(StrCat("data offsets ", begin, " to ", end,
                                             " do not lie in the file's ", data_bytes,
                                             " bytes of data"));
  }
  int64_t elements = 0;
  int64_t bytes = 0;
  if (!CheckedProduct(*shape, &elements) ||
      __builtin_mul_overflow(elements, int64_t{type->bytes}, &bytes)) {
    return absl::InvalidArgumentError("the size that its shape gives overflows");
  }
  if (static_cast<uint64_t>(bytes) != end - begin) {
    return absl::InvalidArgumentError(StrCat("data offsets ", begin, " to ", end, " hold ",
                                             end - begin, " bytes, its shape and dtype take ",
                                             bytes));
  }
  return Entry{*type, *std::move(shape), static_cast<size_t>(begin), static_cast<size_t>(end)};
}

// The format allows no holes: bytes that no tensor describes could carry anything.
absl::Status CheckTiling(std::vector<TensorExtent>& extents, size_t data_bytes,
                         const std::string& path) {
  if (absl::Status disjoint = CheckDisjoint(extents, path); !disjoint.ok()) return disjoint;
  size_t expected = 0;
  for (const TensorExtent& extent : extents) {
    if (extent.begin != expected) {
      return absl::InvalidArgumentError(StrCat(path, ": data offsets ", expected, " to ",
                                               extent.begin, " before tensor ", Quoted(extent.name),
                                               " belong to no tensor"));
    }
    expected = extent.end;
  }
  if (expected == data_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat(path, ": ", data_bytes - expected,
                                           " bytes at data offset ", expected,
                                           " belong to no tensor"));
}

absl::StatusOr<JsonTable> ReadHeader(absl::Span<const std::byte> file, const std::string& path) {
  uint64_t length = 0;
  if (file.size() < sizeof(length)) {
    return absl::InvalidArgumentError(
        StrCat(path, ": truncated: ", file.size(), " bytes, the header's length alone takes 8"));
  }
  std::memcpy(&length, file.data(), sizeof(length));
  if (length > kMaxHeaderBytes || length > file.size() - sizeof(length)) {
    return absl::InvalidArgumentError(StrCat(path, ": truncated or not safetensors: a header of ",
                                             length, " bytes at byte 8 of ", file.size(),
                                             "; at most ", kMaxHeaderBytes, " are allowed"));
  }
  ReadSoon(file.data(), sizeof(length) + length);
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + sizeof(length), length);
  absl::StatusOr<JsonTable> header = ParseJsonTable(text, kMaxJsonDepth);
  if (!header.ok()) {
    return absl::InvalidArgumentError(
        StrCat(path, ": header (from byte 8): ", header.status().message()));
  }
  if (!header->is_object())
    return absl::InvalidArgumentError(StrCat(path, ": the header is no JSON object"));
  return header;
}

std::string_view AsText(const MmapFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

absl::StatusOr<Json> ReadConfig(const std::string& path) {
  const absl::StatusOr<MmapFile> file = MmapFile::Open(path, kMaxConfigBytes);
  if (!file.ok()) return file.status();
  absl::StatusOr<Json> config = ParseJsonFile(AsText(*file), kMaxConfigValues);
  if (!config.ok())
    return absl::InvalidArgumentError(StrCat(path, ": ", config.status().message()));
  if (!config->is_object()) return absl::InvalidArgumentError(StrCat(path, ": not a JSON object"));
  return config;
}

bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && !absl::StrContains(name, '/') &&
         !absl::StrContains(name, '\\') && name.find('\0') == std::string::npos;
}

using WeightMap =
    std::map<std::string, std::vector<std::string>>;  // shard -> the tensors it must hold

absl::StatusOr<WeightMap> ReadIndex(const std::string& path) {
  const absl::StatusOr<MmapFile> file = MmapFile::Open(path, kMaxIndexBytes);
  if (!file.ok()) return file.status();
  const absl::StatusOr<JsonTable> index = ParseJsonTable(AsText(*file));
  if (!index.ok()) return absl::InvalidArgumentError(StrCat(path, ": ", index.status().message()));
  const auto map = index->find("weight_map");
  if (map == index->end() || !map->is_object() || map->empty()) {
    return absl::InvalidArgumentError(
        StrCat(path, ": \"weight_map\" must be an object with entries"));
  }
  WeightMap shards;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string() || !IsPlainFileName(shard.get_ref<const std::string&>())) {
      return absl::InvalidArgumentError(StrCat(path, ": tensor ", Quoted(tensor),
                                               " is said to be in ", ShortDump(Json(shard)),
                                               "; that must be a plain file name"));
    }
    shards[shard.get<std::string>()].push_back(tensor);
  }
  if (shards.size() > kMaxShards) {
    return absl::InvalidArgumentError(
        StrCat(path, ": ", shards.size(), " shards; at most ", kMaxShards, " are allowed"));
  }
  return shards;
}

absl::Status AddShard(const std::string& path, CheckpointContents& contents,
                      absl::Span<const std::string> required) {
  absl::StatusOr<MmapFile> file = MmapFile::Open(path);
  if (!file.ok()) return file.status();
  file->ReadAhead(false);  // until somebody says that all will be read
  absl::StatusOr<SafetensorsTable> table = ParseSafetensors(file->bytes(), path);
  if (!table.ok()) return table.status();
  absl::flat_hash_set<absl::string_view> names;
  for (const WeightInfo& tensor : table->tensors) names.insert(tensor.name);
  for (const SkippedTensor& tensor : table->skipped) names.insert(tensor.name);
  for (const std::string& name : required) {
    if (names.contains(name)) continue;
    return absl::InvalidArgumentError(
        StrCat(path, ": tensor ", Quoted(name), " is missing; the index says that it is here"));
  }
  contents.files.push_back(*std::move(file));
  std::move(table->tensors.begin(), table->tensors.end(), std::back_inserter(contents.tensors));
  std::move(table->skipped.begin(), table->skipped.end(), std::back_inserter(contents.skipped));
  return absl::OkStatus();
}

// A model that was saved without its head has names without "model." (Qwen3-Embedding).
void NameAsWithHead(CheckpointContents& contents) {
  const auto has = [&](std::string_view name) {
    return std::any_of(contents.tensors.begin(), contents.tensors.end(),
                       [&](const WeightInfo& tensor) { return tensor.name == name; });
  };
  if (!has("embed_tokens.weight") || has("model.embed_tokens.weight")) return;
  for (WeightInfo& tensor : contents.tensors) {
    if (!tensor.name.starts_with("lm_head.")) tensor.name = StrCat("model.", tensor.name);
  }
}

bool Exists(const std::string& path) {
  struct stat info = {};
  return stat(path.c_str(), &info) == 0;
}

}  // namespace

absl::StatusOr<SafetensorsTable> ParseSafetensors(absl::Span<const std::byte> file,
                                                  const std::string& path_for_errors) {
  const absl::StatusOr<JsonTable> header = ReadHeader(file, path_for_errors);
  if (!header.ok()) return header.status();
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof(length));
  const absl::Span<const std::byte> data = file.subspan(sizeof(length) + length);
  SafetensorsTable table;
  std::vector<TensorExtent> extents;
  for (const auto& [name, json] : header->items()) {
    if (name == "__metadata__") continue;
    absl::StatusOr<Entry> entry = ReadEntry(json, data.size());
    if (!entry.ok()) {
      return absl::Status(entry.status().code(), StrCat(path_for_errors, ": tensor ", Quoted(name),
                                                        ": ", entry.status().message()));
    }
    // items() keeps no key alive beyond the step; the table's own strings move when it grows: point
    // into the header.
    extents.push_back({entry->begin, entry->end, header->find(name).key()});
    if (!entry->type.dtype) {
      table.skipped.push_back({.name = name,
                               .dtype = std::string(entry->type.name),
                               .dim = std::move(entry->shape),
                               .data = data.data() + entry->begin,
                               .bytes = entry->end - entry->begin});
      continue;
    }
    table.tensors.push_back({.name = name,
                             .file_name = name,
                             .dtype = *entry->type.dtype,
                             .dim = std::move(entry->shape),
                             .data = data.data() + entry->begin,
                             .bytes = entry->end - entry->begin});
  }
  if (absl::Status tiling = CheckTiling(extents, data.size(), path_for_errors); !tiling.ok())
    return tiling;
  std::sort(table.tensors.begin(), table.tensors.end(),
            [](const WeightInfo& a, const WeightInfo& b) { return a.data < b.data; });
  return table;
}

absl::StatusOr<std::unique_ptr<WeightSource>> OpenSafetensorsFolder(const std::string& path) {
  CheckpointContents contents;
  contents.format = WeightFormat::kSafetensors;
  contents.path = path;
  absl::StatusOr<Json> config = ReadConfig(StrCat(path, "/config.json"));
  if (!config.ok()) return config.status();
  contents.config = *std::move(config);
  const std::string single = StrCat(path, "/model.safetensors");
  const std::string index = StrCat(path, "/model.safetensors.index.json");
  WeightMap shards;
  if (Exists(single)) {
    shards["model.safetensors"] = {};
  } else if (Exists(index)) {
    absl::StatusOr<WeightMap> map = ReadIndex(index);
    if (!map.ok()) return map.status();
    shards = *std::move(map);
  } else {
    return absl::NotFoundError(
        StrCat(path, " holds neither model.safetensors nor model.safetensors.index.json"));
  }
  for (const auto& [shard, tensors] : shards) {
    const absl::Status added = AddShard(StrCat(path, "/", shard), contents, tensors);
    if (!added.ok()) return added;
  }
  if (absl::Status status = ResolveQuantizedTensors(contents); !status.ok()) return status;
  if (absl::Status status = TakeTextPart(contents); !status.ok()) return status;
  NameAsWithHead(contents);
  return MakeMappedWeights(std::move(contents));
}

}  // namespace fairlead

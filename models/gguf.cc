// SPDX-License-Identifier: Apache-2.0
#include "models/gguf.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "kernels/check.h"
#include "kernels/half.h"
#include "kernels/strings.h"
#include "models/gguf_blocks.h"
#include "models/gguf_names.h"
#include "models/gguf_reader.h"
#include "models/mapped_weights.h"
#include "models/mmap_file.h"

namespace fairlead {
namespace {

// What is read ahead before anybody knows where the metadata ends: that of large vocabularies, but
// little of a small file.
constexpr size_t kHeaderBytes = size_t{8} << 20;
constexpr size_t kHeaderShare = 64;

// ggml's numbers (enum ggml_type) but those of gguf_blocks.h. Those without a dtype are known by
// name only, so that an error can say it.
struct GgmlType {
  uint32_t number;
  std::string_view name;
  std::optional<DType> dtype = std::nullopt;
};
constexpr std::array kGgmlTypes = {
    GgmlType{0, "F32", DType::kF32},
    GgmlType{1, "F16", DType::kF16},
    GgmlType{2, "Q4_0", DType::kQ4_0},
    GgmlType{3, "Q4_1", DType::kQ4_1},
    GgmlType{6, "Q5_0", DType::kQ5_0},
    GgmlType{7, "Q5_1", DType::kQ5_1},
    GgmlType{8, "Q8_0", DType::kQ8_0},
    GgmlType{9, "Q8_1"},
    GgmlType{10, "Q2_K", DType::kQ2_K},
    GgmlType{11, "Q3_K", DType::kQ3_K},
    GgmlType{12, "Q4_K", DType::kQ4_K},
    GgmlType{13, "Q5_K", DType::kQ5_K},
    GgmlType{14, "Q6_K", DType::kQ6_K},
    GgmlType{15, "Q8_K"},
    GgmlType{20, "IQ4_NL", DType::kIQ4_NL},
    GgmlType{23, "IQ4_XS", DType::kIQ4_XS},
    GgmlType{24, "I8"},
    GgmlType{25, "I16"},
    GgmlType{26, "I32", DType::kI32},
    GgmlType{27, "I64"},
    GgmlType{28, "F64"},
    GgmlType{30, "BF16", DType::kBF16},
    GgmlType{39, "MXFP4", DType::kMXFP4},
    GgmlType{41, "Q1_0"},
    GgmlType{42, "Q2_0"},
};

std::string KnownTypes() {
  std::string names;
  for (const GgmlType& type : kGgmlTypes) {
    if (type.dtype) StrAppend(&names, names.empty() ? "" : ", ", type.name);
  }
  for (const GgufBlockFormat& format : GgufBlockFormats()) StrAppend(&names, ", ", format.name);
  return names;
}

// How the file has a tensor's elements.
struct FileType {
  std::string_view name;
  int block_elements;
  int block_bytes;
  DType dtype;                              // what the tensor is read as
  const GgufBlockFormat* format = nullptr;  // where the file's bytes are not that dtype's
};

absl::StatusOr<FileType> FindType(uint32_t number) {
  if (const GgufBlockFormat* format = FindGgufBlockFormat(number)) {
    return FileType{format->name, format->block_elements, format->block_bytes, format->made,
                    format};
  }
  std::string_view name = "an unknown type";
  for (const GgmlType& type : kGgmlTypes) {
    if (type.number != number) continue;
    if (type.dtype) {
      const DTypeInfo& info = Info(*type.dtype);
      return FileType{info.name, info.block_elements, info.block_bytes, *type.dtype};
    }
    name = type.name;
  }
  return absl::UnimplementedError(
      StrCat("dtype ", name, " (", number, ") is not supported; known: ", KnownTypes()));
}

// The tensor's bytes, or why they cannot be: overflow, part of a block, outside the file.
absl::StatusOr<size_t> CheckExtent(const GgufTensor& tensor, const FileType& type,
                                   const GgufHeader& header, size_t data_bytes) {
  int64_t elements = 0;
  if (!CheckedProduct(tensor.dims, &elements)) {
    return absl::InvalidArgumentError("the product of its dimensions overflows");
  }
  if (tensor.dims[0] % type.block_elements != 0) {
    return absl::InvalidArgumentError(StrCat("rows of ", tensor.dims[0], " elements; ", type.name,
                                             " needs a multiple of ", type.block_elements));
  }
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(static_cast<uint64_t>(elements / type.block_elements),
                             static_cast<uint64_t>(type.block_bytes), &bytes)) {
    return absl::InvalidArgumentError("its size in bytes overflows");
  }
  if (tensor.offset % header.alignment != 0) {
    return absl::InvalidArgumentError(StrCat(
        "data offset ", tensor.offset, " is not a multiple of the alignment ", header.alignment));
  }
  if (tensor.offset > data_bytes || bytes > data_bytes - tensor.offset) {
    return absl::InvalidArgumentError(StrCat(
        "takes ", bytes, " bytes at data offset ", tensor.offset, ", but the file's data has ",
        data_bytes, " bytes (from byte ", header.data_start, ")"));
  }
  return static_cast<size_t>(bytes);
}

// What the bytes at `data` are read as. `size`: theirs, checked.
void SetData(const FileType& type, const std::byte* data, size_t size, WeightInfo* weight) {
  weight->dtype = type.dtype;
  if (type.format == nullptr) {
    weight->data = data;
    weight->bytes = size;
    return;
  }
  const auto blocks = static_cast<int64_t>(size / type.block_bytes);
  weight->bytes = static_cast<size_t>(blocks) * RowBytes(type.dtype, type.block_elements);
  weight->file_dtype = std::string(type.name);
  const int64_t row_blocks = weight->dim.back() / type.block_elements;
  weight->make = [format = type.format, data, row_blocks](int64_t first, int64_t rows,
                                                          std::byte* out) {
    format->make(data + first * row_blocks * format->block_bytes, rows * row_blocks, out);
  };
}

// Multiplies the f16 elements [begin, end) of a tensor: each run of `run` has its f32 factor.
void ScaleHalves(const std::byte* factors, int64_t run, int64_t begin, int64_t end,
                 std::byte* halves) {
  for (int64_t i = 0; i < end - begin; ++i) {
    float factor;
    uint16_t half;
    std::memcpy(&factor, factors + (begin + i) / run * sizeof(factor), sizeof(factor));
    std::memcpy(&half, halves + i * sizeof(half), sizeof(half));
    half = F32ToF16(F16ToF32(half) * factor);
    std::memcpy(halves + i * sizeof(half), &half, sizeof(half));
  }
}

// An NVFP4 tensor "X.weight" may come with "X.scale", f32: a factor for all of it, or one for each
// of its matrices (experts). The values times it are what is read, rounded to f16.
absl::Status ApplyNvfp4Scales(const std::string& path, std::vector<WeightInfo>& weights) {
  absl::flat_hash_map<absl::string_view, const WeightInfo*> scales;
  for (const WeightInfo& weight : weights) {
    if (absl::EndsWith(weight.file_name, ".scale")) scales.emplace(weight.file_name, &weight);
  }
  if (scales.empty()) return absl::OkStatus();
  for (WeightInfo& weight : weights) {
    absl::string_view name = weight.file_name;
    if (!absl::ConsumeSuffix(&name, ".weight")) continue;
    const auto found = scales.find(absl::StrCat(name, ".scale"));
    if (found == scales.end() || weight.bytes == 0) continue;
    if (weight.file_dtype != "NVFP4") {
      return absl::UnimplementedError(
          StrCat(path, ": tensor ", Quoted(found->second->file_name),
                 ": a scale beside a tensor of another type than NVFP4 is not supported"));
    }
    const WeightInfo& scale = *found->second;
    const int64_t matrices = weight.dim.size() > 2 ? weight.dim[0] : 1;
    const bool fits = scale.dtype == DType::kF32 && scale.dim.size() == 1 &&
                      (scale.dim[0] == 1 || scale.dim[0] == matrices);
    if (!fits) {
      return absl::InvalidArgumentError(
          StrCat(path, ": tensor ", Quoted(scale.file_name), ": must be 1 or ", matrices,
                 " f32 values, one for each matrix of ", Quoted(weight.file_name)));
    }
    const auto elements = static_cast<int64_t>(weight.bytes / sizeof(uint16_t));
    weight.make = [make = weight.make, factors = scale.data, run = elements / scale.dim[0],
                   cols = weight.dim.back()](int64_t first, int64_t rows, std::byte* out) {
      make(first, rows, out);
      ScaleHalves(factors, run, first * cols, (first + rows) * cols, out);
    };
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<WeightInfo>> LocateTensors(absl::Span<const std::byte> bytes,
                                                      const GgufHeader& header,
                                                      const std::string& path) {
  const size_t data_bytes = bytes.size() - std::min(bytes.size(), header.data_start);
  std::string architecture;
  if (const auto key = header.metadata.find("general.architecture");
      key != header.metadata.end() && key->is_string()) {
    architecture = key->get<std::string>();
  }
  std::vector<WeightInfo> weights;
  std::vector<TensorExtent> extents;
  weights.reserve(header.tensors.size());
  extents.reserve(header.tensors.size());
  for (const GgufTensor& tensor : header.tensors) {
    const absl::StatusOr<FileType> type = FindType(tensor.type);
    const absl::StatusOr<size_t> size =
        type.ok() ? CheckExtent(tensor, *type, header, data_bytes) : type.status();
    if (!size.ok()) {
      return absl::Status(
          size.status().code(),
          StrCat(path, ": tensor ", Quoted(tensor.name), ": ", size.status().message(),
                 " (described at byte ", tensor.described_at, ")"));
    }
    WeightInfo& weight = weights.emplace_back();
    weight.file_name = std::string(tensor.name);
    weight.name = HfTensorName(tensor.name, architecture);
    weight.dim.assign(tensor.dims.rbegin(), tensor.dims.rend());
    // Some files have this matrix of one row as a vector.
    if (weight.dim.size() == 1 && weight.name.ends_with(".shared_expert_gate.weight")) {
      weight.dim.insert(weight.dim.begin(), 1);
    }
    SetData(*type, bytes.data() + header.data_start + tensor.offset, *size, &weight);
    extents.push_back({tensor.offset, tensor.offset + *size, tensor.name});
  }
  if (absl::Status disjoint = CheckDisjoint(extents, path); !disjoint.ok()) return disjoint;
  if (absl::Status scaled = ApplyNvfp4Scales(path, weights); !scaled.ok()) return scaled;
  return weights;
}

absl::StatusOr<std::unique_ptr<WeightSource>> Build(absl::Span<const std::byte> bytes,
                                                    std::string path, std::vector<MmapFile> files) {
  absl::StatusOr<GgufHeader> header = ReadGgufHeader(bytes, path);
  if (!header.ok()) return header.status();
  absl::StatusOr<std::vector<WeightInfo>> tensors = LocateTensors(bytes, *header, path);
  if (!tensors.ok()) return tensors.status();
  absl::StatusOr<Json> config = HfConfig(header->metadata, *tensors);
  if (!config.ok()) {
    return absl::Status(config.status().code(), StrCat(path, ": ", config.status().message()));
  }
  return MakeMappedWeights({.format = WeightFormat::kGguf,
                            .path = std::move(path),
                            .files = std::move(files),
                            .tensors = *std::move(tensors),
                            .skipped = {},
                            .config = *std::move(config),
                            .metadata = std::move(header->metadata)});
}

}  // namespace

absl::StatusOr<std::unique_ptr<WeightSource>> OpenGguf(const std::string& path) {
  absl::StatusOr<MmapFile> file = MmapFile::Open(path);
  if (!file.ok()) return file.status();
  const absl::Span<const std::byte> bytes = file->bytes();
  file->ReadAhead(false);  // until somebody says that all will be read
  ReadSoon(bytes.data(), std::min(kHeaderBytes, bytes.size() / kHeaderShare));
  std::vector<MmapFile> files;
  files.push_back(*std::move(file));
  return Build(bytes, path, std::move(files));
}

absl::StatusOr<std::unique_ptr<WeightSource>> OpenGgufBytes(absl::Span<const std::byte> bytes,
                                                            std::string path_for_errors) {
  return Build(bytes, std::move(path_for_errors), {});
}

uint32_t GgmlTypeOf(DType dtype) {
  const auto* type = std::find_if(kGgmlTypes.begin(), kGgmlTypes.end(),
                                  [dtype](const GgmlType& t) { return t.dtype == dtype; });
  FAIRLEAD_CHECK(type != kGgmlTypes.end());
  return type->number;
}

}  // namespace fairlead

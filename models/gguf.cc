// SPDX-License-Identifier: Apache-2.0
#include "models/gguf.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "kernels/strings.h"
#include "models/gguf_names.h"
#include "models/gguf_reader.h"
#include "models/mapped_weights.h"
#include "models/mmap_file.h"

namespace fairlead {
namespace {

// ggml's numbers (enum ggml_type). Those without a dtype are known by name only, so that an error
// can say it.
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
    GgmlType{10, "Q2_K"},
    GgmlType{11, "Q3_K"},
    GgmlType{12, "Q4_K", DType::kQ4_K},
    GgmlType{13, "Q5_K", DType::kQ5_K},
    GgmlType{14, "Q6_K", DType::kQ6_K},
    GgmlType{15, "Q8_K"},
    GgmlType{16, "IQ2_XXS"},
    GgmlType{17, "IQ2_XS"},
    GgmlType{18, "IQ3_XXS"},
    GgmlType{19, "IQ1_S"},
    GgmlType{20, "IQ4_NL"},
    GgmlType{21, "IQ3_S"},
    GgmlType{22, "IQ2_S"},
    GgmlType{23, "IQ4_XS"},
    GgmlType{24, "I8"},
    GgmlType{25, "I16"},
    GgmlType{26, "I32", DType::kI32},
    GgmlType{27, "I64"},
    GgmlType{28, "F64"},
    GgmlType{29, "IQ1_M"},
    GgmlType{30, "BF16", DType::kBF16},
    GgmlType{34, "TQ1_0"},
    GgmlType{35, "TQ2_0"},
    GgmlType{39, "MXFP4"},
    GgmlType{40, "NVFP4"},
    GgmlType{41, "Q1_0"},
    GgmlType{42, "Q2_0"},
};

std::string KnownTypes() {
  std::string names;
  for (const GgmlType& type : kGgmlTypes) {
    if (type.dtype) StrAppend(&names, names.empty() ? "" : ", ", type.name);
  }
  return names;
}

absl::StatusOr<DType> FindDType(uint32_t number) {
  std::string_view name = "an unknown type";
  for (const GgmlType& type : kGgmlTypes) {
    if (type.number != number) continue;
    if (type.dtype) return *type.dtype;
    name = type.name;
  }
  return absl::UnimplementedError(
      StrCat("dtype ", name, " (", number, ") is not supported; known: ", KnownTypes()));
}

// The tensor's bytes, or why they cannot be: overflow, part of a block, outside the file.
absl::StatusOr<size_t> CheckExtent(const GgufTensor& tensor, DType dtype, const GgufHeader& header,
                                   size_t data_bytes) {
  const DTypeInfo& info = Info(dtype);
  int64_t elements = 0;
  if (!CheckedProduct(tensor.dims, &elements)) {
    return absl::InvalidArgumentError("the product of its dimensions overflows");
  }
  if (tensor.dims[0] % info.block_elements != 0) {
    return absl::InvalidArgumentError(StrCat("rows of ", tensor.dims[0], " elements; ", info.name,
                                             " needs a multiple of ", info.block_elements));
  }
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(static_cast<uint64_t>(elements / info.block_elements),
                             static_cast<uint64_t>(info.block_bytes), &bytes)) {
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

absl::StatusOr<std::vector<WeightInfo>> LocateTensors(absl::Span<const std::byte> bytes,
                                                      const GgufHeader& header,
                                                      const std::string& path) {
  const size_t data_bytes = bytes.size() - std::min(bytes.size(), header.data_start);
  std::vector<WeightInfo> weights;
  std::vector<TensorExtent> extents;
  weights.reserve(header.tensors.size());
  extents.reserve(header.tensors.size());
  for (const GgufTensor& tensor : header.tensors) {
    const absl::StatusOr<DType> dtype = FindDType(tensor.type);
    const absl::StatusOr<size_t> size =
        dtype.ok() ? CheckExtent(tensor, *dtype, header, data_bytes) : dtype.status();
    if (!size.ok()) {
      return absl::Status(
          size.status().code(),
          StrCat(path, ": tensor ", Quoted(tensor.name), ": ", size.status().message(),
                 " (described at byte ", tensor.described_at, ")"));
    }
    WeightInfo& weight = weights.emplace_back();
    weight.file_name = std::string(tensor.name);
    weight.name = HfTensorName(tensor.name);
    weight.dtype = *dtype;
    weight.dim.assign(tensor.dims.rbegin(), tensor.dims.rend());
    weight.data = bytes.data() + header.data_start + tensor.offset;
    weight.bytes = *size;
    extents.push_back({tensor.offset, tensor.offset + *size, tensor.name});
  }
  const absl::Status disjoint = CheckDisjoint(extents, path);
  if (!disjoint.ok()) return disjoint;
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

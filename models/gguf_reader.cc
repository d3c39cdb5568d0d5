// SPDX-License-Identifier: Apache-2.0
#include "models/gguf_reader.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include "absl/container/flat_hash_set.h"
#include "kernels/strings.h"
#include "models/config_reader.h"
#include "models/mapped_weights.h"

namespace fairlead {
namespace {

static_assert(std::endian::native == std::endian::little, "model files are read in place");

// The largest headers that are met take 30 MB. A file of terabytes must not make us read or
// allocate that much.
constexpr size_t kMaxHeaderBytes = size_t{1} << 30;
constexpr uint64_t kMaxTensors = 1 << 20;
constexpr uint64_t kMaxMetadataEntries = 1 << 16;
constexpr uint64_t kMaxNameBytes = 65535;      // of a metadata key, by the specification
constexpr uint64_t kMaxStringBytes = 1 << 26;  // of a value: chat templates take up to 100 KB
constexpr uint64_t kMaxTensorNameBytes = 255;  // the specification says 64; longer ones are met
constexpr uint64_t kMaxDims = 4;
constexpr int kMaxArrayDepth = 4;
// What the metadata may take in memory: its text, and a JSON value takes 16 bytes where the file
// may spend one, a string 48 more. The largest vocabularies that are met (780,000 tokens and
// merges) take 70 MB.
constexpr uint64_t kMaxMemory = uint64_t{128} << 20;
constexpr uint64_t kItemBytes = 16, kStringBytes = 64;
constexpr uint64_t kMaxAlignment = 1 << 16;
constexpr uint64_t kMinAlignment = 8;  // the specification asks for a multiple of 8

enum ValueType : uint32_t {
  kU8 = 0,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
  kNumValueTypes
};
// The fewest bytes a value of each type takes.
constexpr std::array<size_t, kNumValueTypes> kMinValueBytes = {1, 1, 2,  2, 4, 4, 4,
                                                               1, 8, 12, 8, 8, 8};

constexpr size_t kMinMetadataBytes = 8 + 1 + 4 + 1;  // key length, key, type, value
constexpr size_t kMinTensorBytes =
    8 + 1 + 4 + 8 + 4 + 8;  // name length, name, n_dims, one dim, type, offset

Json ReadValue(GgufCursor& in, uint32_t type, int depth, uint64_t& bytes_left);

bool ReadBool(GgufCursor& in) {
  const uint8_t value = in.Read<uint8_t>("value");
  if (value > 1) in.Malformed(StrCat("boolean ", value, "; allowed: 0, 1"));
  return value == 1;
}

// A string that is kept.
std::string_view ReadText(GgufCursor& in, std::string_view what, uint64_t max_bytes,
                          uint64_t& bytes_left) {
  const std::string_view text = in.ReadString(what, std::min(max_bytes, bytes_left));
  bytes_left -= text.size();
  return text;
}

Json ReadArray(GgufCursor& in, int depth, uint64_t& bytes_left) {
  const uint32_t type = in.Read<uint32_t>("array type");
  if (in.ok() && type >= kNumValueTypes) in.Malformed(StrCat("unknown value type ", type));
  if (in.ok() && depth >= kMaxArrayDepth) {
    in.Malformed(StrCat("arrays are nested deeper than ", kMaxArrayDepth, " levels"));
  }
  if (!in.ok()) return Json();
  const uint64_t item_bytes = type == kString || type == kArray ? kStringBytes : kItemBytes;
  const uint64_t count =
      in.ReadCount("array length", kMinValueBytes[type], bytes_left / item_bytes);
  if (!in.ok()) return Json();
  bytes_left -= count * item_bytes;
  Json::array_t items;
  items.reserve(count);
  for (uint64_t i = 0; i < count && in.ok(); ++i) {
    items.push_back(ReadValue(in, type, depth + 1, bytes_left));
  }
  return Json(std::move(items));
}

Json ReadValue(GgufCursor& in, uint32_t type, int depth, uint64_t& bytes_left) {
  switch (type) {
    case kU8:
      return in.Read<uint8_t>("value");
    case kI8:
      return in.Read<int8_t>("value");
    case kU16:
      return in.Read<uint16_t>("value");
    case kI16:
      return in.Read<int16_t>("value");
    case kU32:
      return in.Read<uint32_t>("value");
    case kI32:
      return in.Read<int32_t>("value");
    case kF32:
      return in.Read<float>("value");
    case kBool:
      return ReadBool(in);
    case kString:
      return Json(std::string(ReadText(in, "string", kMaxStringBytes, bytes_left)));
    case kArray:
      return ReadArray(in, depth, bytes_left);
    case kU64:
      return in.Read<uint64_t>("value");
    case kI64:
      return in.Read<int64_t>("value");
    case kF64:
      return in.Read<double>("value");
    default:
      in.Malformed(StrCat("unknown value type ", type));
      return Json();
  }
}

Json ReadMetadata(GgufCursor& in, uint64_t count) {
  Json::object_t members;  // appended to directly: its own insertion scans all members
  members.reserve(count);
  absl::flat_hash_set<absl::string_view> seen;
  uint64_t bytes_left = kMaxMemory;
  for (uint64_t i = 0; i < count && in.ok(); ++i) {
    in.set_subject(StrCat("metadata entry ", i));
    const std::string_view key = ReadText(in, "key", kMaxNameBytes, bytes_left);
    if (in.ok() && key.empty()) in.Malformed("empty key");
    if (in.ok() && !seen.insert(AbslView(key)).second)
      in.Malformed(StrCat("duplicate key ", Quoted(key)));
    in.set_subject(StrCat("metadata key ", Quoted(key)));
    const uint32_t type = in.Read<uint32_t>("value type");
    if (in.ok()) members.emplace_back(std::string(key), ReadValue(in, type, 0, bytes_left));
  }
  in.set_subject("");
  return Json(std::move(members));
}

std::vector<int64_t> ReadDims(GgufCursor& in) {
  const uint32_t count = in.Read<uint32_t>("n_dims");
  if (in.ok() && (count == 0 || count > kMaxDims)) {
    in.Malformed(StrCat("n_dims is ", count, "; allowed: 1 to ", kMaxDims));
  }
  std::vector<int64_t> dims;
  for (uint32_t i = 0; i < count && in.ok(); ++i) {
    const uint64_t dim = in.Read<uint64_t>("dimension");
    if (in.ok() && (dim == 0 || dim > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))) {
      in.Malformed(StrCat("dimension ", i, " is ", dim, "; allowed: 1 to 2^63 - 1"));
    }
    dims.push_back(static_cast<int64_t>(dim));
  }
  return dims;
}

std::vector<GgufTensor> ReadTensors(GgufCursor& in, uint64_t count) {
  std::vector<GgufTensor> tensors;
  tensors.reserve(in.ok() ? count : 0);
  for (uint64_t i = 0; i < count && in.ok(); ++i) {
    in.set_subject(StrCat("tensor ", i));
    GgufTensor& tensor = tensors.emplace_back();
    tensor.described_at = in.position();
    tensor.name = in.ReadString("name", kMaxTensorNameBytes);
    if (in.ok() && tensor.name.empty()) in.Malformed("empty name");
    in.set_subject(StrCat("tensor ", Quoted(tensor.name)));
    tensor.dims = ReadDims(in);
    tensor.type = in.Read<uint32_t>("type");
    tensor.offset = in.Read<uint64_t>("offset");
  }
  in.set_subject("");
  return tensors;
}

void CheckVersion(GgufCursor& in, uint32_t version) {
  if (!in.ok() || version == 2 || version == 3) return;
  const bool swapped = version == 0x02000000 || version == 0x03000000;
  in.Fail(absl::StatusCode::kUnimplemented,
          swapped ? "big-endian GGUF is not supported; known: little-endian versions 2, 3"
                  : StrCat("GGUF version ", version, " is not supported; known: 2, 3"));
}

void CheckNotSplit(GgufCursor& in, const Json& metadata) {
  const auto count = metadata.find("split.count");
  if (count == metadata.end() || *count == 0 || *count == 1) return;
  in.Fail(absl::StatusCode::kUnimplemented,
          StrCat("split.count is ", ShortDump(*count),
                 ": GGUF files split in parts are not supported; merge the parts into one file"));
}

size_t ReadAlignment(GgufCursor& in, const Json& metadata) {
  const auto found = metadata.find("general.alignment");
  if (found == metadata.end()) return GgufHeader().alignment;
  const uint64_t value = found->is_number_unsigned() ? found->get<uint64_t>() : 0;
  if (value < kMinAlignment || value > kMaxAlignment || !std::has_single_bit(value)) {
    in.Malformed(StrCat("metadata key \"general.alignment\" is ", ShortDump(*found),
                        "; it must be a power of two from ", kMinAlignment, " to ", kMaxAlignment));
    return GgufHeader().alignment;
  }
  return value;
}

}  // namespace

std::string_view GgufCursor::ReadString(std::string_view what, uint64_t max_bytes) {
  const uint64_t size = Read<uint64_t>(what);
  if (ok() && size > max_bytes) {
    Malformed(StrCat(what, " of ", size, " bytes; at most ", max_bytes, " are allowed"));
  }
  if (!Need(size, what)) return {};
  const char* data = reinterpret_cast<const char*>(bytes_.data() + position_);
  position_ += size;
  return {data, static_cast<size_t>(size)};
}

uint64_t GgufCursor::ReadCount(std::string_view what, size_t min_bytes, uint64_t max_count) {
  const uint64_t count = Read<uint64_t>(what);
  if (ok() && count > max_count) {
    Malformed(StrCat(what, " is ", count, "; at most ", max_count, " are allowed"));
  }
  if (ok() && count > remaining() / min_bytes) {
    Malformed(StrCat(what, " is ", count, ", but the ", remaining(), " bytes left hold at most ",
                     remaining() / min_bytes));
  }
  return ok() ? count : 0;
}

void GgufCursor::Fail(absl::StatusCode code, std::string_view message) {
  if (!status_.ok()) return;
  status_ = absl::Status(code, StrCat(path_, ": ", subject_, subject_.empty() ? "" : ": ", message,
                                      " (at byte ", position_, ")"));
}

bool GgufCursor::Need(uint64_t size, std::string_view what) {
  if (ok() && size > remaining()) {
    Malformed(StrCat("truncated: ", what, " needs ", size, " bytes, ", remaining(), " are left"));
  }
  return ok();
}

absl::StatusOr<GgufHeader> ReadGgufHeader(absl::Span<const std::byte> bytes,
                                          const std::string& path) {
  GgufCursor in(bytes.subspan(0, kMaxHeaderBytes), path);
  const std::array<char, 4> magic = in.Read<std::array<char, 4>>("magic");
  if (in.ok() && std::string_view(magic.data(), magic.size()) != "GGUF") {
    in.Malformed(StrCat("not a GGUF file: it starts with ",
                        Quoted(std::string_view(magic.data(), magic.size())),
                        ", not with \"GGUF\""));
  }
  CheckVersion(in, in.Read<uint32_t>("version"));
  const uint64_t tensor_count = in.ReadCount("tensor count", kMinTensorBytes, kMaxTensors);
  const uint64_t metadata_count =
      in.ReadCount("metadata count", kMinMetadataBytes, kMaxMetadataEntries);
  if (!in.ok()) return in.status();
  GgufHeader header;
  header.metadata = ReadMetadata(in, metadata_count);
  if (!in.ok()) return in.status();
  CheckNotSplit(in, header.metadata);
  header.alignment = ReadAlignment(in, header.metadata);
  header.tensors = ReadTensors(in, tensor_count);
  if (!in.ok()) return in.status();
  // Cannot overflow: the position is within a mapping, the alignment at most 64 KiB.
  header.data_start = (in.position() + header.alignment - 1) / header.alignment * header.alignment;
  return header;
}

}  // namespace fairlead

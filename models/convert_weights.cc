// SPDX-License-Identifier: Apache-2.0
#include "models/convert_weights.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "kernels/half.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

constexpr int kBlock = 32;

template <typename T>
T Load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

template <typename T>
void Store(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof(value));
}

// The blocks of 4 and 5 bits: d, [m,] [32 fifth bits,] 32 nibbles, the first half of the elements
// low. value = d * q + m, or d * (q - half).
struct NibbleBlock {
  bool five, has_minimum;
  int most() const { return five ? 31 : 15; }
  int half() const { return five ? 16 : 8; }
  int fifth_at() const { return has_minimum ? 4 : 2; }
  int nibbles_at() const { return fifth_at() + (five ? 4 : 0); }
};

bool IsNibbles(DType dtype, NibbleBlock* block) {
  *block = {.five = dtype == DType::kQ5_0 || dtype == DType::kQ5_1,
            .has_minimum = dtype == DType::kQ4_1 || dtype == DType::kQ5_1};
  return block->five || block->has_minimum || dtype == DType::kQ4_0;
}

bool IsPlain(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

float PlainValue(DType dtype, const std::byte* row, int64_t i) {
  if (dtype == DType::kF32) return Load<float>(row + 4 * i);
  const auto bits = Load<uint16_t>(row + 2 * i);
  return dtype == DType::kF16 ? F16ToF32(bits) : BF16ToF32(bits);
}

void ReadNibbles(const NibbleBlock& form, const std::byte* block, float* out) {
  const float d = F16ToF32(Load<uint16_t>(block));
  const float minimum = form.has_minimum ? F16ToF32(Load<uint16_t>(block + 2)) : 0;
  const uint32_t fifth = form.five ? Load<uint32_t>(block + form.fifth_at()) : 0;
  for (int i = 0; i < kBlock; ++i) {
    const auto byte = Load<uint8_t>(block + form.nibbles_at() + i % 16);
    const int q = static_cast<int>((byte >> (i < 16 ? 0 : 4) & 15u) | (fifth >> i & 1u) << 4);
    out[i] = form.has_minimum ? d * static_cast<float>(q) + minimum
                              : d * static_cast<float>(q - form.half());
  }
}

// `count` values of a row from `col` on, a multiple of a block.
void ReadBlock(DType dtype, const std::byte* row, int64_t col, int count, float* out) {
  if (IsPlain(dtype)) {
    for (int i = 0; i < count; ++i) out[i] = PlainValue(dtype, row, col + i);
    return;
  }
  const std::byte* block = row + RowBytes(dtype, col);
  if (NibbleBlock form; IsNibbles(dtype, &form)) return ReadNibbles(form, block, out);
  const float d = F16ToF32(Load<uint16_t>(block));
  for (int i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(Load<int8_t>(block + 2 + i));
}

// Cut to a whole number; a NaN, too, becomes one.
int WholeNumber(float value, int low, int high) {
  if (!(value > static_cast<float>(low))) return low;
  return value < static_cast<float>(high) ? static_cast<int>(value) : high;
}

void WriteQ8(const float* values, std::byte* block) {
  float largest = 0;
  for (int i = 0; i < kBlock; ++i) largest = std::max(largest, std::abs(values[i]));
  const float d = largest / 127;
  const float inverse = d != 0 ? 1 / d : 0;
  Store(block, F32ToF16(d));
  for (int i = 0; i < kBlock; ++i) {
    const int q = WholeNumber(std::round(values[i] * inverse), -128, 127);
    Store(block + 2 + i, static_cast<int8_t>(q));
  }
}

void WriteNibbles(const NibbleBlock& form, const float* values, std::byte* block) {
  float d, minimum = 0;
  if (form.has_minimum) {
    minimum = *std::min_element(values, values + kBlock);
    d = (*std::max_element(values, values + kBlock) - minimum) / static_cast<float>(form.most());
    Store(block + 2, F32ToF16(minimum));
  } else {
    // The value that is largest without its sign becomes -8 or -16, which has no opposite.
    d = *std::max_element(values, values + kBlock, [](float a, float b) {
      return std::abs(a) < std::abs(b);
    }) / static_cast<float>(-form.half());
  }
  const float inverse = d != 0 ? 1 / d : 0;
  Store(block, F32ToF16(d));
  const float offset = form.has_minimum ? 0.5f : static_cast<float>(form.half()) + 0.5f;
  uint32_t fifth = 0;
  std::array<uint8_t, kBlock / 2> nibbles = {};
  for (int i = 0; i < kBlock; ++i) {
    const float scaled = (values[i] - minimum) * inverse;
    const auto q = static_cast<uint32_t>(WholeNumber(scaled + offset, 0, form.most()));
    fifth |= (q >> 4) << i;
    nibbles[i % 16] |= static_cast<uint8_t>((q & 15) << (i < 16 ? 0 : 4));
  }
  if (form.five) Store(block + form.fifth_at(), fifth);
  std::memcpy(block + form.nibbles_at(), nibbles.data(), nibbles.size());
}

void WriteValues(DType dtype, const float* values, int64_t col, int count, std::byte* row) {
  std::byte* at = row + RowBytes(dtype, col);
  if (NibbleBlock form; IsNibbles(dtype, &form)) return WriteNibbles(form, values, at);
  if (dtype == DType::kQ8_0) return WriteQ8(values, at);
  for (int i = 0; i < count; ++i) {
    if (dtype == DType::kF32) Store(at + 4 * i, values[i]);
    if (dtype == DType::kF16) Store(at + 2 * i, F32ToF16(values[i]));
    if (dtype == DType::kBF16) Store(at + 2 * i, F32ToBF16(values[i]));
  }
}

void Convert(const WeightInfo& from, DType dtype, int64_t first, int64_t rows, std::byte* out) {
  const WeightBytes bytes(from, first, rows);
  const int64_t cols = from.dim.back();
  const size_t in_row = RowBytes(from.dtype, cols), out_row = RowBytes(dtype, cols);
  float values[kBlock];
  for (int64_t row = 0; row < rows; ++row) {
    const std::byte* source = bytes.data() + static_cast<size_t>(row) * in_row;
    std::byte* target = out + static_cast<size_t>(row) * out_row;
    for (int64_t col = 0; col < cols; col += kBlock) {
      const int count = static_cast<int>(std::min<int64_t>(kBlock, cols - col));
      ReadBlock(from.dtype, source, col, count, values);
      WriteValues(dtype, values, col, count, target);
    }
  }
}

bool IsMatrix(const WeightInfo& info, WeightFormat format) {
  const std::string& name = info.name;
  const bool stacks = format == WeightFormat::kGguf || name.find(".experts.") != std::string::npos;
  const bool shape = info.dim.size() == 2 || (info.dim.size() > 2 && stacks);
  // Small, and what they decide is whether an expert is asked at all.
  const bool is_router = name.ends_with("mlp.gate.weight") ||
                         name.ends_with("block_sparse_moe.gate.weight") ||
                         name.ends_with("router.weight") || name.ends_with("expert_gate.weight");
  return shape && name.ends_with(".weight") && !is_router && IsWeightType(info.dtype);
}

double BitsOf(DType dtype) { return 8.0 * Info(dtype).block_bytes / Info(dtype).block_elements; }

absl::Status Check(const WeightInfo& info, DType dtype) {
  const auto tensor = StrCat("tensor ", info.file_name);
  const std::string_view form =
      info.file_dtype.empty() ? Info(info.dtype).name : std::string_view(info.file_dtype);
  if (!IsReadable(info.dtype)) {
    return absl::UnimplementedError(StrCat("--weight-dtype: ", tensor, " is ", form,
                                           ", which cannot be converted; known: f32, f16, bf16, "
                                           "q8_0, q5_1, q5_0, q4_1, q4_0"));
  }
  // Floats that were made of something else hold at most 8 bits for a weight.
  const double had = IsPlain(info.dtype) ? (info.file_dtype.empty() ? 0 : 8) : BitsOf(info.dtype);
  if (BitsOf(dtype) <= had) {
    return absl::InvalidArgumentError(StrCat("--weight-dtype ", Info(dtype).name, ": ", tensor,
                                             " is quantised already, as ", form,
                                             "; it can only become a dtype with more bits"));
  }
  if (info.dim.back() % Info(dtype).block_elements != 0) {
    return absl::InvalidArgumentError(
        StrCat("--weight-dtype ", Info(dtype).name, ": ", tensor, " has rows of ", info.dim.back(),
               " values, no multiple of ", Info(dtype).block_elements));
  }
  return absl::OkStatus();
}

class ConvertedWeights final : public WeightSource {
 public:
  explicit ConvertedWeights(std::unique_ptr<WeightSource> source) : source_(std::move(source)) {}

  absl::Status Convert(DType dtype) {
    for (const WeightInfo& info : source_->tensors()) {
      index_.emplace(info.name, tensors_.size());
      WeightInfo& own = tensors_.emplace_back(info);
      if (!IsMatrix(info, format()) || info.dtype == dtype) continue;
      if (absl::Status status = Check(info, dtype); !status.ok()) {
        return absl::Status(status.code(), StrCat(path(), ": ", std::string(status.message())));
      }
      own = ConvertTensor(info, dtype);
      own.converted_from = &info;
    }
    return absl::OkStatus();
  }

  WeightFormat format() const override { return source_->format(); }
  const std::string& path() const override { return source_->path(); }
  const WeightInfo* Find(std::string_view name) const override {
    const auto found = index_.find(AbslView(name));
    return found == index_.end() ? nullptr : &tensors_[found->second];
  }
  absl::Span<const WeightInfo> tensors() const override { return tensors_; }
  absl::Span<const SkippedTensor> skipped() const override { return source_->skipped(); }
  const Json& config() const override { return source_->config(); }
  const Json& metadata() const override { return source_->metadata(); }
  absl::Span<const MmapFile> files() const override { return source_->files(); }

 private:
  const std::unique_ptr<WeightSource> source_;
  std::vector<WeightInfo> tensors_;
  absl::flat_hash_map<std::string, size_t> index_;
};

}  // namespace

WeightInfo ConvertTensor(const WeightInfo& from, DType dtype) {
  WeightInfo converted = from;
  converted.dtype = dtype;
  converted.data = nullptr;
  converted.bytes = RowBytes(dtype, from.dim.back()) * static_cast<size_t>(from.rows());
  converted.make = [from, dtype](int64_t first, int64_t rows, std::byte* out) {
    Convert(from, dtype, first, rows, out);
  };
  if (converted.file_dtype.empty()) converted.file_dtype = std::string(Info(from.dtype).name);
  return converted;
}

bool IsReadable(DType dtype) {
  NibbleBlock block;
  return IsPlain(dtype) || dtype == DType::kQ8_0 || IsNibbles(dtype, &block);
}

void ReadValues(DType dtype, const std::byte* row, int64_t cols, float* out) {
  for (int64_t col = 0; col < cols; col += kBlock) {
    ReadBlock(dtype, row, col, static_cast<int>(std::min<int64_t>(kBlock, cols - col)), out + col);
  }
}

absl::StatusOr<std::unique_ptr<WeightSource>> ConvertWeights(std::unique_ptr<WeightSource> source,
                                                             DType dtype) {
  if (!IsReadable(dtype)) {
    return absl::InvalidArgumentError(
        StrCat("--weight-dtype ", Info(dtype).name, ": weights are not converted to it"));
  }
  auto converted = std::make_unique<ConvertedWeights>(std::move(source));
  if (absl::Status status = converted->Convert(dtype); !status.ok()) return status;
  return converted;
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "models/parameters.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/check.h"
#include "kernels/half.h"

namespace fairlead {
namespace {

// Norms and biases come in one of the plain types; nothing else is a vector.
absl::StatusOr<std::vector<float>> ToF32(const std::string& path, const WeightInfo& info,
                                         int64_t size) {
  std::vector<float> out(static_cast<size_t>(size));
  const WeightBytes bytes(info);
  const std::byte* data = bytes.data();
  const auto half = [&](int64_t i) {
    uint16_t bits;
    std::memcpy(&bits, data + 2 * i, sizeof(bits));
    return bits;
  };
  switch (info.dtype) {
    case DType::kF32:
      std::memcpy(out.data(), data, out.size() * sizeof(float));
      return out;
    case DType::kF16:
      for (int64_t i = 0; i < size; ++i) out[i] = F16ToF32(half(i));
      return out;
    case DType::kBF16:
      for (int64_t i = 0; i < size; ++i) out[i] = BF16ToF32(half(i));
      return out;
    default:
      return absl::UnimplementedError(
          absl::StrCat(path, ": tensor ", info.file_name, ": a vector of type ",
                       std::string(Info(info.dtype).name), "; known: f32, f16, bf16"));
  }
}

// `rows` rows of a tensor, from `first` on.
WeightPart PartOf(const WeightInfo& info, int64_t first, int64_t rows) {
  if (!info.make) {
    const size_t row_bytes = RowBytes(info.dtype, info.dim.back());
    return {info.data + static_cast<size_t>(first) * row_bytes, rows};
  }
  return {nullptr, rows, [&info, first](int64_t row, int64_t count, std::byte* out) {
            info.make(first + row, count, out);
          }};
}

}  // namespace

void Linear::Apply(Stream& stream, const Ops& ops, const Tensor& x, const Tensor& out,
                   bool accumulate, int64_t out_column) const {
  for (const Piece& piece : pieces_) {
    Tensor bias;
    if (bias_)
      bias = Tensor(bias_.As<float>() + piece.out_column, DType::kF32, {piece.weight->rows()});
    ops.Matmul(stream, {.x = x,
                        .weight = piece.weight.get(),
                        .out = out,
                        .bias = bias,
                        .out_column = out_column + piece.out_column,
                        .accumulate = accumulate});
  }
}

size_t Linear::bytes() const {
  size_t total = 0;
  for (const Piece& piece : pieces_) total += piece.weight->bytes();
  return total;
}

size_t Linear::host_bytes() const {
  size_t total = 0;
  for (const Piece& piece : pieces_) total += piece.weight->host_bytes();
  return total;
}

absl::StatusOr<const WeightInfo*> RequireTensor(const WeightSource& source, const std::string& name,
                                                std::vector<int64_t> dim) {
  const WeightInfo* info = source.Find(name);
  if (info == nullptr) {
    const auto skipped = source.skipped();
    const auto found =
        std::find_if(skipped.begin(), skipped.end(),
                     [&](const SkippedTensor& tensor) { return tensor.name == name; });
    if (found == skipped.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(source.path(), ": tensor ", name, " is missing"));
    }
    return absl::UnimplementedError(
        absl::StrCat(source.path(), ": tensor ", name, " has dtype ", found->dtype,
                     ", which is known as a part of quantised weights alone; the config has no "
                     "quantization_config that describes it"));
  }
  if (info->dim != dim) {
    return absl::InvalidArgumentError(absl::StrCat(source.path(), ": tensor ", info->file_name,
                                                   " has the shape ", ShapeText(info->dim),
                                                   ", the config asks for ", ShapeText(dim)));
  }
  return info;
}

absl::StatusOr<std::unique_ptr<PackedWeight>> ParameterLoader::LoadMatrix(const std::string& name,
                                                                          int64_t rows,
                                                                          int64_t cols,
                                                                          bool embedding) {
  auto info = Require(name, {rows, cols});
  if (!info.ok()) return info.status();
  if (absl::Status status = CheckDtype(**info); !status.ok()) return status;
  const WeightPart part = PartOf(**info, 0, rows);
  return Pack({name}, {.dtype = (*info)->dtype,
                       .cols = cols,
                       .parts = absl::MakeConstSpan(&part, 1),
                       .embedding = embedding});
}

absl::StatusOr<std::unique_ptr<PackedWeight>> ParameterLoader::Pack(
    absl::Span<const std::string> names, const PackWeightArgs& args) {
  auto packed = cache_ != nullptr ? cache_->Pack(names, args) : device_.PackWeight(args);
  for (const MmapFile& file : source_.files()) file.DropPages();
  return packed;
}

size_t ParameterLoader::LinearBytes(const LinearSpec& spec) const {
  size_t total = 0;
  const auto dtype_of = [&](size_t i) {
    const WeightInfo* info = source_.Find(spec.modules[i] + ".weight");
    return info == nullptr ? DType::kI32 : info->dtype;
  };
  for (size_t i = 0; i < spec.modules.size();) {
    const DType dtype = dtype_of(i);
    int64_t rows = 0;
    for (; i < spec.modules.size() && dtype_of(i) == dtype; ++i) rows += spec.rows[i];
    if (!IsWeightType(dtype) || spec.cols % Info(dtype).block_elements != 0) continue;
    total += device_.PackedBytes(dtype, rows, spec.cols, /*groups=*/1);
  }
  return total;
}

absl::StatusOr<Linear> ParameterLoader::LoadLinear(const LinearSpec& spec, bool streamed) {
  std::vector<const WeightInfo*> infos;
  for (size_t i = 0; i < spec.modules.size(); ++i) {
    auto info = Require(spec.modules[i] + ".weight", {spec.rows[i], spec.cols});
    if (!info.ok()) return info.status();
    infos.push_back(*info);
  }
  Linear linear;
  int64_t column = 0;
  for (size_t i = 0; i < infos.size();) {
    const DType dtype = infos[i]->dtype;
    if (absl::Status status = CheckDtype(*infos[i]); !status.ok()) return status;
    std::vector<WeightPart> parts;
    std::vector<std::string> names;
    const int64_t first_column = column;
    for (; i < infos.size() && infos[i]->dtype == dtype; ++i) {
      parts.push_back(PartOf(*infos[i], 0, spec.rows[i]));
      names.push_back(infos[i]->name);
      column += spec.rows[i];
    }
    auto packed =
        Pack(names, {.dtype = dtype, .cols = spec.cols, .parts = parts, .streamed = streamed});
    if (!packed.ok()) return packed.status();
    linear.pieces_.push_back({*std::move(packed), first_column});
  }
  if (spec.bias) {
    for (size_t i = 0; i < spec.modules.size(); ++i) {
      auto offset = AddVector(spec.modules[i] + ".bias", spec.rows[i]);
      if (!offset.ok()) return offset.status();
      if (i == 0) linear.bias_offset_ = *offset;
    }
    linear.bias_ = Tensor(nullptr, DType::kF32, {column});
  }
  return linear;
}

absl::StatusOr<size_t> ParameterLoader::AddVector(const std::string& name, int64_t size,
                                                  float offset, float factor) {
  auto info = Require(name, {size});
  if (!info.ok()) return info.status();
  auto values = ToF32(source_.path(), **info, size);
  if (!values.ok()) return values.status();
  for (float& value : *values) value = factor * (value + offset);
  return AddValues(*values);
}

absl::Status ParameterLoader::CheckDtype(const WeightInfo& info) const {
  const std::vector<DType>& known = device_.info().weight_dtypes;
  if (std::find(known.begin(), known.end(), info.dtype) != known.end()) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat(source_.path(), ": tensor ", info.file_name, ": ",
                                               device_.info().name, " has no matmul for ",
                                               std::string(Info(info.dtype).name)));
}

void Experts::Apply(Stream& stream, const Ops& ops, const Tensor& x, const Tensor& expert,
                    const Tensor& out) const {
  ops.GroupedMatmul(stream,
                    {.x = x, .expert = expert, .weight = weight_.get(), .out = out, .bias = bias_});
}

size_t ParameterLoader::ExpertsBytes(const ExpertsSpec& spec) const {
  const WeightInfo* info = source_.Find(spec.modules[0][0] + ".weight");
  const DType dtype = info == nullptr ? DType::kI32 : info->dtype;
  if (!IsWeightType(dtype) || spec.cols % Info(dtype).block_elements != 0) return 0;
  const int64_t rows = spec.rows * spec.count * static_cast<int64_t>(spec.modules.size());
  return device_.PackedBytes(dtype, rows, spec.cols, spec.count);
}

absl::StatusOr<Experts> ParameterLoader::LoadExperts(const ExpertsSpec& spec, bool streamed) {
  std::vector<std::vector<const WeightInfo*>> infos;
  std::vector<std::string> names;
  const WeightInfo* first = nullptr;
  for (const std::vector<std::string>& modules : spec.modules) {
    infos.emplace_back();
    for (const std::string& module : modules) {
      auto info = Require(module + ".weight",
                          spec.stacked ? std::vector<int64_t>{spec.count, spec.rows, spec.cols}
                                       : std::vector<int64_t>{spec.rows, spec.cols});
      if (!info.ok()) return info.status();
      if (first == nullptr) first = *info;
      if ((*info)->dtype != first->dtype) {
        return absl::UnimplementedError(absl::StrCat(
            source_.path(), ": tensors ", first->file_name, " and ", (*info)->file_name, " are ",
            std::string(Info(first->dtype).name), " and ", std::string(Info((*info)->dtype).name),
            "; the experts of a layer must have one type"));
      }
      infos.back().push_back(*info);
      names.push_back((*info)->name);
    }
  }
  if (absl::Status status = CheckDtype(*first); !status.ok()) return status;
  std::vector<WeightPart> parts;
  for (int e = 0; e < spec.count; ++e) {
    for (const std::vector<const WeightInfo*>& of : infos) {
      parts.push_back(spec.stacked ? PartOf(*of[0], e * spec.rows, spec.rows)
                                   : PartOf(*of[e], 0, spec.rows));
    }
  }
  Experts experts;
  auto packed = Pack(names, {.dtype = first->dtype,
                             .cols = spec.cols,
                             .parts = parts,
                             .streamed = streamed,
                             .groups = spec.count});
  if (!packed.ok()) return packed.status();
  experts.weight_ = *std::move(packed);
  if (!spec.bias) return experts;
  auto offset = AddExpertsBias(spec);
  if (!offset.ok()) return offset.status();
  experts.bias_offset_ = *offset;
  experts.has_bias_ = true;
  return experts;
}

// [count, matrices, rows] of stacked biases of [count, rows] each.
absl::StatusOr<size_t> ParameterLoader::AddExpertsBias(const ExpertsSpec& spec) {
  std::vector<std::vector<float>> biases;
  for (const std::vector<std::string>& modules : spec.modules) {
    auto info = Require(modules[0] + ".bias", {spec.count, spec.rows});
    if (!info.ok()) return info.status();
    auto values = ToF32(source_.path(), **info, spec.count * spec.rows);
    if (!values.ok()) return values.status();
    biases.push_back(*std::move(values));
  }
  const size_t offset = values_.size();
  for (int e = 0; e < spec.count; ++e) {
    for (const std::vector<float>& bias : biases) {
      AddValues(absl::MakeConstSpan(bias).subspan(e * spec.rows, spec.rows));
    }
  }
  return offset;
}

size_t ParameterLoader::AddValues(absl::Span<const float> values) {
  const size_t offset = values_.size();
  values_.insert(values_.end(), values.begin(), values.end());
  return offset;
}

absl::StatusOr<Buffer> ParameterLoader::Upload() {
  auto buffer = device_.Allocate(values_.size() * sizeof(float));
  if (!buffer.ok()) return buffer.status();
  const std::unique_ptr<Stream> stream = device_.NewStream();
  stream->CopyToDevice(buffer->data(), values_.data(), values_.size() * sizeof(float));
  stream->Wait();
  uploaded_ = static_cast<float*>(buffer->data());
  return buffer;
}

Tensor ParameterLoader::VectorAt(size_t offset, std::initializer_list<int64_t> dims) const {
  FAIRLEAD_CHECK(uploaded_ != nullptr);
  return Tensor(uploaded_ + offset, DType::kF32, dims);
}

void ParameterLoader::Bind(Experts& experts) const {
  if (!experts.has_bias_) return;
  const PackedWeight& weight = *experts.weight_;
  experts.bias_ = VectorAt(experts.bias_offset_, {weight.groups(), weight.group_rows()});
}

void ParameterLoader::Bind(Linear& linear) const {
  if (linear.bias_offset_ == Linear::kNoBias) return;
  linear.bias_ = VectorAt(linear.bias_offset_, {linear.bias_.dim[0]});
}

}  // namespace fairlead

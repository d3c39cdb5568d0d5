// SPDX-License-Identifier: Apache-2.0
#include "models/latent_attention.h"

#include <cstring>
#include <memory>
#include <utility>

#include "kernels/half.h"
#include "kernels/strings.h"
#include "models/convert_weights.h"
#include "models/overlay_weights.h"

namespace fairlead {
namespace {

// Halves of kv_b_proj.
constexpr char kSplitK[] = "self_attn.k_b_proj", kSplitV[] = "self_attn.v_b_proj";
constexpr char kQ[] = "self_attn.q_heads", kKv[] = "self_attn.kv_heads",
               kOut[] = "self_attn.o_heads";

DType PlainType(DType dtype) { return IsQuantized(dtype) ? DType::kF16 : dtype; }

void Put(DType dtype, float value, std::byte* at) {
  const uint16_t half = dtype == DType::kF16 ? F32ToF16(value) : F32ToBF16(value);
  if (dtype == DType::kF32) {
    std::memcpy(at, &value, sizeof(value));
  } else {
    std::memcpy(at, &half, sizeof(half));
  }
}

// The values of a matrix, or of several, in a dtype of single elements.
class PlainBytes {
 public:
  PlainBytes(const WeightInfo& info, DType dtype) : bytes_(info), data_(bytes_.data()) {
    if (info.dtype == dtype) return;
    const int64_t cols = info.dim.back();
    int64_t rows = 1;
    for (size_t i = 0; i + 1 < info.dim.size(); ++i) rows *= info.dim[i];
    const size_t row_bytes = RowBytes(info.dtype, cols), size = RowBytes(dtype, 1);
    std::vector<float> values(static_cast<size_t>(cols));
    converted_ =
        std::make_unique_for_overwrite<std::byte[]>(static_cast<size_t>(rows * cols) * size);
    std::byte* out = converted_.get();
    for (int64_t row = 0; row < rows; ++row) {
      ReadValues(info.dtype, bytes_.data() + static_cast<size_t>(row) * row_bytes, cols,
                 values.data());
      for (const float value : values) {
        Put(dtype, value, out);
        out += size;
      }
    }
    data_ = converted_.get();
  }
  const std::byte* data() const { return data_; }

 private:
  const WeightBytes bytes_;
  std::unique_ptr<std::byte[]> converted_;
  const std::byte* data_;
};

struct Shape {
  int64_t heads, rope, nope, value, rank;
  int64_t head_dim() const { return rope + nope; }
};

void MakeQ(const WeightInfo& q, const Shape& shape, std::byte* out) {
  const WeightBytes bytes(q);
  const size_t row = RowBytes(q.dtype, q.dim[1]);
  const size_t rope = static_cast<size_t>(shape.rope) * row;
  const size_t nope = static_cast<size_t>(shape.nope) * row;
  const std::byte* head = bytes.data();
  for (int64_t h = 0; h < shape.heads; ++h, head += nope + rope, out += nope + rope) {
    std::memcpy(out, head + nope, rope);
    std::memcpy(out + rope, head, nope);
  }
}

// What k and v are made of, by the steps from head to head, row to row and column to column, in
// elements.
struct KvPart {
  const std::byte* data;
  int64_t head, row, col;
};

void MakeKv(const KvPart& k, const KvPart& v, DType dtype, const Shape& s, std::byte* out) {
  const size_t size = RowBytes(dtype, 1), row = RowBytes(dtype, s.rank + s.rope);
  const int64_t rows = s.heads * s.head_dim();  // of k, then of v
  std::memset(out, 0, static_cast<size_t>(2 * rows) * row);
  const auto copy = [&](const KvPart& part, int64_t head, int64_t i, std::byte* to) {
    const std::byte* from = part.data + static_cast<size_t>(head * part.head + i * part.row) * size;
    if (part.col == 1) return void(std::memcpy(to, from, static_cast<size_t>(s.rank) * size));
    for (int64_t c = 0; c < s.rank; ++c, to += size, from += part.col * size) {
      std::memcpy(to, from, size);
    }
  };
  for (int64_t h = 0; h < s.heads; ++h) {
    std::byte* k_row = out + static_cast<size_t>(h * s.head_dim()) * row;
    std::byte* v_row = k_row + static_cast<size_t>(rows) * row;
    for (int64_t i = 0; i < s.rope; ++i, k_row += row) {
      Put(dtype, 1, k_row + RowBytes(dtype, s.rank + i));
    }
    for (int64_t i = 0; i < s.nope; ++i, k_row += row) copy(k, h, i, k_row);
    for (int64_t i = 0; i < s.value; ++i, v_row += row) copy(v, h, i, v_row);
  }
}

void MakeKvFromOne(const WeightInfo& kv, const Shape& s, std::byte* out) {
  const DType dtype = PlainType(kv.dtype);
  const PlainBytes bytes(kv, dtype);
  const int64_t head = (s.nope + s.value) * s.rank;
  const std::byte* v = bytes.data() + RowBytes(dtype, s.nope * s.rank);
  MakeKv({bytes.data(), head, s.rank, 1}, {v, head, s.rank, 1}, dtype, s, out);
}

void MakeOut(const WeightInfo& o, const Shape& s, std::byte* out) {
  const DType dtype = PlainType(o.dtype);
  const PlainBytes bytes(o, dtype);
  const size_t value = RowBytes(dtype, s.value), head_dim = RowBytes(dtype, s.head_dim());
  const std::byte* from = bytes.data();
  for (int64_t i = 0; i < o.dim[0] * s.heads; ++i, from += value, out += head_dim) {
    std::memcpy(out, from, value);
    std::memset(out + value, 0, head_dim - value);
  }
}

using MakeBytes = void (*)(const WeightInfo& from, const Shape& shape, std::byte* out);

class Expander {
 public:
  Expander(const WeightSource& source, const ModelConfig& config)
      : source_(source),
        config_(config),
        shape_{config.heads, config.latent.rope_dim, config.latent.nope_dim,
               config.latent.value_dim, config.latent.kv_rank} {}

  absl::Status AddLayer(int index) {
    const std::string prefix = LayerPrefix(index);
    const int64_t q_rows = shape_.heads * shape_.head_dim();
    const bool split = source_.Find(prefix + kSplitK + ".weight") != nullptr;
    for (const LatentMatrix& matrix : LatentMatricesOf(config_, index)) {
      if (split && matrix.module.ends_with("kv_b_proj")) {
        if (absl::Status status = AddSplitKv(prefix); !status.ok()) return status;
        continue;
      }
      const auto info =
          RequireTensor(source_, matrix.module + ".weight", {matrix.rows, matrix.cols});
      if (!info.ok()) return info.status();
      absl::Status status;
      if (matrix.module.ends_with("q_proj") || matrix.module.ends_with("q_b_proj")) {
        Add(**info, prefix + kQ, (*info)->dtype, q_rows, matrix.cols, MakeQ);
      } else if (matrix.module.ends_with("kv_b_proj")) {
        status =
            AddPlain(**info, prefix + kKv, 2 * q_rows, shape_.rank + shape_.rope, MakeKvFromOne);
      } else if (matrix.module.ends_with("o_proj")) {
        status = AddPlain(**info, prefix + kOut, matrix.rows, q_rows, MakeOut);
      }
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  std::vector<WeightInfo> Take() { return std::move(made_); }

 private:
  absl::Status CheckReadable(const WeightInfo& info) const {
    if (IsReadable(info.dtype)) return absl::OkStatus();
    return absl::UnimplementedError(
        StrCat(source_.path(), ": tensor ", info.file_name, " of latent attention is ",
               Info(info.dtype).name,
               ", which cannot be read back; known: f32, f16, bf16, q8_0, q5_1, "
               "q5_0, q4_1, q4_0"));
  }

  // kv_b_proj as GGUF files have it: [heads, rank, nope] for k, [heads, value, rank] for v.
  absl::Status AddSplitKv(const std::string& prefix) {
    const Shape s = shape_;
    const auto k = RequireTensor(source_, prefix + kSplitK + ".weight", {s.heads, s.rank, s.nope});
    if (!k.ok()) return k.status();
    const auto v = RequireTensor(source_, prefix + kSplitV + ".weight", {s.heads, s.value, s.rank});
    if (!v.ok()) return v.status();
    for (const WeightInfo* part : {*k, *v}) {
      if (absl::Status status = CheckReadable(*part); !status.ok()) return status;
    }
    const bool alike = PlainType((*k)->dtype) == PlainType((*v)->dtype);
    const DType dtype = alike ? PlainType((*k)->dtype) : DType::kF32;
    const int64_t rows = 2 * s.heads * s.head_dim(), cols = s.rank + s.rope;
    WeightInfo& made = Add(**k, prefix + kKv, dtype, rows, cols, nullptr);
    made.make = [s, dtype, from_k = *k, from_v = *v](std::byte* out) {
      const PlainBytes k_bytes(*from_k, dtype), v_bytes(*from_v, dtype);
      MakeKv({k_bytes.data(), s.rank * s.nope, 1, s.nope},
             {v_bytes.data(), s.value * s.rank, s.rank, 1}, dtype, s, out);
    };
    return absl::OkStatus();
  }

  absl::Status AddPlain(const WeightInfo& from, const std::string& module, int64_t rows,
                        int64_t cols, MakeBytes make) {
    if (from.dim[1] == cols) {  // nothing to fill up
      made_.push_back(from);
      made_.back().name = module + ".weight";
      return absl::OkStatus();
    }
    if (absl::Status status = CheckReadable(from); !status.ok()) return status;
    Add(from, module, PlainType(from.dtype), rows, cols, make);
    return absl::OkStatus();
  }

  WeightInfo& Add(const WeightInfo& from, const std::string& module, DType dtype, int64_t rows,
                  int64_t cols, MakeBytes make) {
    made_.push_back(
        {.name = module + ".weight",
         .file_name = from.file_name,
         .dtype = dtype,
         .dim = {rows, cols},
         .bytes = RowBytes(dtype, cols) * static_cast<size_t>(rows),
         .make = [&from, shape = shape_, make](std::byte* out) { make(from, shape, out); },
         .file_dtype = from.file_dtype});
    return made_.back();
  }

  const WeightSource& source_;
  const ModelConfig& config_;
  const Shape shape_;
  std::vector<WeightInfo> made_;
};

}  // namespace

void SetLatentLinears(const ModelConfig& c, int index, LayerLinears& linears) {
  const LatentConfig& latent = c.latent;
  const std::string prefix = LayerPrefix(index);
  const int64_t rows = int64_t{c.heads} * c.head_dim, kv_cols = latent.kv_rank + latent.rope_dim;
  linears.qkv = {.modules = {prefix + kQ},
                 .rows = {rows},
                 .cols = latent.q_rank > 0 ? latent.q_rank : c.hidden};
  if (latent.q_rank > 0) {
    linears.q_down = {
        .modules = {prefix + "self_attn.q_a_proj"}, .rows = {latent.q_rank}, .cols = c.hidden};
  }
  linears.kv_down = {
      .modules = {prefix + "self_attn.kv_a_proj_with_mqa"}, .rows = {kv_cols}, .cols = c.hidden};
  linears.kv = {.modules = {prefix + kKv}, .rows = {2 * rows}, .cols = kv_cols};
  linears.attention_out = {.modules = {prefix + kOut}, .rows = {c.hidden}, .cols = rows};
}

std::vector<LatentMatrix> LatentMatricesOf(const ModelConfig& c, int index) {
  const LatentConfig& latent = c.latent;
  const std::string prefix = LayerPrefix(index) + "self_attn.";
  const int64_t q_rows = int64_t{c.heads} * c.head_dim;
  std::vector<LatentMatrix> matrices;
  if (latent.q_rank > 0) {
    matrices.push_back({prefix + "q_a_proj", latent.q_rank, c.hidden});
    matrices.push_back({prefix + "q_b_proj", q_rows, latent.q_rank});
  } else {
    matrices.push_back({prefix + "q_proj", q_rows, c.hidden});
  }
  matrices.push_back({prefix + "kv_a_proj_with_mqa", latent.kv_rank + latent.rope_dim, c.hidden});
  matrices.push_back({prefix + "kv_b_proj", int64_t{c.heads} * (latent.nope_dim + latent.value_dim),
                      latent.kv_rank});
  matrices.push_back({prefix + "o_proj", c.hidden, int64_t{c.heads} * latent.value_dim});
  return matrices;
}

absl::StatusOr<std::unique_ptr<WeightSource>> ExpandLatentWeights(const WeightSource& source,
                                                                  const ModelConfig& config) {
  Expander expander(source, config);
  for (int i = 0; i < config.layers; ++i) {
    if (absl::Status status = expander.AddLayer(i); !status.ok()) return status;
  }
  return std::make_unique<OverlayWeights>(source, expander.Take());
}

}  // namespace fairlead

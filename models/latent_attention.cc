// SPDX-License-Identifier: Apache-2.0
#include "models/latent_attention.h"

#include <algorithm>
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

// The values of some rows of a matrix, or of several, in a dtype of single elements.
class PlainRows {
 public:
  PlainRows(const WeightInfo& info, DType dtype, int64_t first, int64_t rows)
      : bytes_(info, first, rows), data_(bytes_.data()) {
    if (info.dtype == dtype) return;
    const int64_t cols = info.dim.back();
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

// Calls run(head, i, count, place) for the parts of [first, first + rows) in one head of head_dim
// rows each; `place` counts from first.
template <typename Run>
void ForEachHead(int64_t head_dim, int64_t first, int64_t rows, const Run& run) {
  for (int64_t row = first; row < first + rows;) {
    const int64_t i = row % head_dim, count = std::min(head_dim - i, first + rows - row);
    run(row / head_dim, i, count, row - first);
    row += count;
  }
}

// Of each head, the rows that rotate first.
void MakeQ(const WeightInfo& q, const Shape& s, int64_t first, int64_t rows, std::byte* out) {
  const size_t row_bytes = RowBytes(q.dtype, q.dim[1]);
  ForEachHead(s.head_dim(), first, rows, [&](int64_t h, int64_t i, int64_t count, int64_t place) {
    const auto copy = [&](int64_t begin, int64_t end, int64_t from) {  // of this head's rows
      begin = std::max(begin, i), end = std::min(end, i + count);
      if (begin >= end) return;
      const WeightBytes bytes(q, h * s.head_dim() + from + begin, end - begin);
      std::memcpy(out + static_cast<size_t>(place + begin - i) * row_bytes, bytes.data(),
                  static_cast<size_t>(end - begin) * row_bytes);
    };
    copy(0, s.rope, s.nope);
    copy(s.rope, s.head_dim(), -s.rope);
  });
}

// Where the rows of k and v are: of one matrix, or k's transposed ([rank, nope] a head) in its own.
struct KvSource {
  const WeightInfo* k;
  const WeightInfo* v;
  bool split;
};

// The rows [begin, begin + count) of `info` become rows of `row_bytes`.
void CopyRows(const WeightInfo& info, DType dtype, int64_t begin, int64_t count, size_t row_bytes,
              std::byte* out) {
  if (count <= 0) return;
  const PlainRows rows(info, dtype, begin, count);
  const size_t bytes = RowBytes(dtype, info.dim.back());
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(out + static_cast<size_t>(i) * row_bytes,
                rows.data() + static_cast<size_t>(i) * bytes, bytes);
  }
}

// The columns [begin, begin + count) of one head of k become rows.
void CopyColumns(const WeightInfo& k, DType dtype, const Shape& s, int64_t head, int64_t begin,
                 int64_t count, size_t row_bytes, std::byte* out) {
  if (count <= 0) return;
  const PlainRows rows(k, dtype, head * s.rank, s.rank);
  const size_t size = RowBytes(dtype, 1);
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < s.rank; ++c) {
      std::memcpy(out + static_cast<size_t>(i) * row_bytes + static_cast<size_t>(c) * size,
                  rows.data() + static_cast<size_t>(c * s.nope + begin + i) * size, size);
    }
  }
}

// Of each head's k, the identity for what rotates and then kv_b_proj's rows; of its v, those of
// kv_b_proj and zeros. First all heads of k, then all of v.
void MakeKv(const KvSource& from, DType dtype, const Shape& s, int64_t first, int64_t rows,
            std::byte* out) {
  const size_t row_bytes = RowBytes(dtype, s.rank + s.rope);
  std::memset(out, 0, static_cast<size_t>(rows) * row_bytes);
  const int64_t head_rows = s.nope + s.value;  // of kv_b_proj as one matrix
  ForEachHead(s.head_dim(), first, rows, [&](int64_t h, int64_t i, int64_t count, int64_t place) {
    std::byte* to = out + static_cast<size_t>(place) * row_bytes;
    if (h >= s.heads) {
      h -= s.heads;
      const int64_t row = from.split ? h * s.value : h * head_rows + s.nope;
      CopyRows(*from.v, dtype, row + i, std::min(count, s.value - i), row_bytes, to);
      return;
    }
    for (; i < s.rope && count > 0; ++i, --count, to += row_bytes) {
      Put(dtype, 1, to + RowBytes(dtype, s.rank + i));
    }
    if (from.split) {
      CopyColumns(*from.k, dtype, s, h, i - s.rope, count, row_bytes, to);
    } else {
      CopyRows(*from.k, dtype, h * head_rows + i - s.rope, count, row_bytes, to);
    }
  });
}

void MakeKvFromOne(const WeightInfo& kv, const Shape& s, int64_t first, int64_t rows,
                   std::byte* out) {
  MakeKv({&kv, &kv, false}, PlainType(kv.dtype), s, first, rows, out);
}

// Zero columns where v is shorter than a head.
void MakeOut(const WeightInfo& o, const Shape& s, int64_t first, int64_t rows, std::byte* out) {
  const DType dtype = PlainType(o.dtype);
  const PlainRows plain(o, dtype, first, rows);
  const size_t value = RowBytes(dtype, s.value), head_dim = RowBytes(dtype, s.head_dim());
  const std::byte* from = plain.data();
  for (int64_t i = 0; i < rows * s.heads; ++i, from += value, out += head_dim) {
    std::memcpy(out, from, value);
    std::memset(out + value, 0, head_dim - value);
  }
}

using MakeRows = void (*)(const WeightInfo& from, const Shape& shape, int64_t first, int64_t rows,
                          std::byte* out);

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
  const OverlayWeights::Names& replaced() const { return replaced_; }

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
    const WeightInfo &from_k = InFile(**k), &from_v = InFile(**v);
    for (const WeightInfo* part : {&from_k, &from_v}) {
      if (absl::Status status = CheckReadable(*part); !status.ok()) return status;
    }
    const bool alike = PlainType(from_k.dtype) == PlainType(from_v.dtype);
    const DType dtype = alike ? PlainType(from_k.dtype) : DType::kF32;
    const int64_t rows = 2 * s.heads * s.head_dim(), cols = s.rank + s.rope;
    WeightInfo& made = Add(from_k, prefix + kKv, dtype, rows, cols, nullptr);
    made.make = [s, dtype, from = KvSource{&from_k, &from_v, true}](int64_t first, int64_t count,
                                                                    std::byte* out) {
      MakeKv(from, dtype, s, first, count, out);
    };
    replaced_.insert((*v)->name);
    if ((*k)->dtype == (*v)->dtype) ConvertLike(**k, made);
    return absl::OkStatus();
  }

  absl::Status AddPlain(const WeightInfo& from, const std::string& module, int64_t rows,
                        int64_t cols, MakeRows make) {
    if (from.dim[1] == cols) {  // nothing to fill up
      replaced_.insert(from.name);
      made_.push_back(from);
      made_.back().name = module + ".weight";
      return absl::OkStatus();
    }
    const WeightInfo& values = InFile(from);
    if (absl::Status status = CheckReadable(values); !status.ok()) return status;
    ConvertLike(from, Add(values, module, PlainType(values.dtype), rows, cols, make));
    return absl::OkStatus();
  }

  // Before --weight-dtype: values are rounded once.
  static const WeightInfo& InFile(const WeightInfo& info) {
    return info.converted_from != nullptr ? *info.converted_from : info;
  }

  static void ConvertLike(const WeightInfo& from, WeightInfo& made) {
    const bool blocks = made.dim.back() % Info(from.dtype).block_elements == 0;
    if (from.converted_from != nullptr && blocks && made.dtype != from.dtype)
      made = ConvertTensor(made, from.dtype);
  }

  WeightInfo& Add(const WeightInfo& from, const std::string& module, DType dtype, int64_t rows,
                  int64_t cols, MakeRows make) {
    replaced_.insert(from.name);
    const bool other = from.file_dtype.empty() && dtype != from.dtype;
    made_.push_back({.name = module + ".weight",
                     .file_name = from.file_name,
                     .dtype = dtype,
                     .dim = {rows, cols},
                     .bytes = RowBytes(dtype, cols) * static_cast<size_t>(rows),
                     .make = [&from, shape = shape_, make](
                                 int64_t first, int64_t count,
                                 std::byte* out) { make(from, shape, first, count, out); },
                     .file_dtype = other ? std::string(Info(from.dtype).name) : from.file_dtype});
    return made_.back();
  }

  const WeightSource& source_;
  const ModelConfig& config_;
  const Shape shape_;
  std::vector<WeightInfo> made_;
  OverlayWeights::Names replaced_;
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
  return std::make_unique<OverlayWeights>(source, expander.Take(), expander.replaced());
}

}  // namespace fairlead

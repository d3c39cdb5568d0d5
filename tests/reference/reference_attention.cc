// SPDX-License-Identifier: Apache-2.0
// Rotary embedding, the KV cache and attention of the reference device.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/half.h"
#include "tests/reference/reference_ops.h"

namespace fairlead::reference {

size_t KvView::BlockBytes(const KvShape& shape, DType dtype) {
  return RowBytes(StoredAs(dtype),
                  int64_t{shape.block_tokens} * shape.kv_heads * 2 * shape.head_dim);
}

int64_t KvView::Index(int64_t slot, int kv_head, Part part, int i) const {
  return ((slot * kv_.shape.kv_heads + kv_head) * 2 + part) * kv_.shape.head_dim + i;
}

void KvView::Set(int64_t slot, int kv_head, Part part, int i, float value) const {
  const int64_t index = Index(slot, kv_head, part, i);
  if (StoredAs(dtype_) == DType::kF32) {
    static_cast<float*>(kv_.data)[index] = value;
  } else {
    static_cast<uint16_t*>(kv_.data)[index] =
        dtype_ == DType::kF16 ? F32ToF16(value) : F32ToBF16(value);
  }
}

namespace {

// The nearest of all finite values of f8_e4m3, the even code on a tie.
float RoundedToF8(float value) {
  if (std::isnan(value)) return value;
  int best = 0;
  double best_value = 0, best_error = std::numeric_limits<double>::infinity();
  for (int code = 0; code < 127; ++code) {
    const int exponent = code >> 3, mantissa = code & 7;
    const double candidate =
        exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    const double error = std::abs(std::min(std::abs(double{value}), 1000.0) - candidate);
    if (error < best_error || (error == best_error && code % 2 == 0 && best % 2 != 0)) {
      best = code;
      best_value = candidate;
      best_error = error;
    }
  }
  return static_cast<float>(std::copysign(best_value, value));
}

}  // namespace

void KvView::SetHead(int64_t slot, int kv_head, Part part, const float* values) const {
  const int head_dim = kv_.shape.head_dim;
  for (int begin = 0; begin < head_dim; begin += 32) {
    const int end = std::min(begin + 32, head_dim);
    float largest = 0;
    bool finite = true;
    for (int i = begin; i < end; ++i) {
      largest = std::max(largest, std::abs(values[i]));
      finite = finite && std::isfinite(values[i]);
    }
    const float scale =
        finite ? F16ToF32(F32ToF16(largest / 127)) : std::numeric_limits<float>::quiet_NaN();
    for (int i = begin; i < end; ++i) {
      float value = values[i];
      if (dtype_ == DType::kQ8_0) {
        value = scale == 0
                    ? 0.0f
                    : scale * std::clamp(std::nearbyint(value * (1 / scale)), -128.0f, 127.0f);
      }
      if (dtype_ == DType::kF8_E4M3) value = RoundedToF8(value);
      Set(slot, kv_head, part, i, value);
    }
  }
}

float KvView::Get(int64_t slot, int kv_head, Part part, int i) const {
  const int64_t index = Index(slot, kv_head, part, i);
  if (StoredAs(dtype_) == DType::kF32) return static_cast<const float*>(kv_.data)[index];
  const uint16_t bits = static_cast<const uint16_t*>(kv_.data)[index];
  return dtype_ == DType::kF16 ? F16ToF32(bits) : BF16ToF32(bits);
}

namespace {

// One head in place.
void NormHead(float* head, int head_dim, const float* weight, float epsilon) {
  double squares = 0;
  for (int i = 0; i < head_dim; ++i) squares += double{head[i]} * head[i];
  const double rms = std::sqrt(squares / head_dim + epsilon);
  for (int i = 0; i < head_dim; ++i) head[i] = static_cast<float>(head[i] / rms * weight[i]);
}

// One head in place. `cos_sin` is the row of this position.
void RotateHead(float* head, const float* cos_sin, int rotary_dim, RopePairing pairing) {
  const int half = rotary_dim / 2;
  for (int i = 0; i < half; ++i) {
    const int first = pairing == RopePairing::kHalves ? i : 2 * i;
    const int second = pairing == RopePairing::kHalves ? i + half : 2 * i + 1;
    const double a = head[first], b = head[second];
    const double cos = cos_sin[i], sin = cos_sin[half + i];
    head[first] = static_cast<float>(a * cos - b * sin);
    head[second] = static_cast<float>(b * cos + a * sin);
  }
}

// One query head against the keys that it sees: softmax(scale * q . k) . v over the cache slots in
// `slots`. `sink`: one more score, without a value.
void AttendHead(const AttentionArgs& args, const float* q, const KvView& kv,
                const std::vector<int64_t>& slots, int kv_head, double sink, float* out) {
  const int head_dim = args.kv.shape.head_dim;
  std::vector<double> score;
  for (const int64_t slot : slots) {
    double dot = 0;
    for (int i = 0; i < head_dim; ++i) {
      dot += double{q[i]} * kv.Get(slot, kv_head, KvView::kKey, i);
    }
    dot *= args.scale;
    if (args.soft_cap > 0) dot = args.soft_cap * std::tanh(dot / args.soft_cap);
    score.push_back(dot);
  }
  const double max = std::max(sink, *std::max_element(score.begin(), score.end()));
  double sum = std::exp(sink - max);
  for (double& s : score) {
    s = std::exp(s - max);
    sum += s;
  }
  for (int i = 0; i < head_dim; ++i) {
    double value = 0;
    for (size_t j = 0; j < slots.size(); ++j) {
      value += score[j] / sum * kv.Get(slots[j], kv_head, KvView::kValue, i);
    }
    out[i] = static_cast<float>(value);
  }
}

}  // namespace

void ReferenceOps::RopeAndWriteKv(Stream&, const RopeAndWriteKvArgs& args) const {
  const int kv_heads = args.kv.shape.kv_heads, head_dim = args.kv.shape.head_dim;
  const int rotary_dim = static_cast<int>(args.cos_sin.dim[1]);
  const KvView kv(args.kv, kv_dtype_);
  for (int64_t t = 0; t < args.qkv.dim[0]; ++t) {
    float* row = args.qkv.As<float>() + t * (args.heads + 2 * kv_heads) * head_dim;
    const float* cos_sin =
        args.cos_sin.As<float>() + int64_t{args.position.As<int32_t>()[t]} * rotary_dim;
    for (int h = 0; h < args.heads + kv_heads; ++h) {  // q and k
      const Tensor& norm = h < args.heads ? args.q_norm : args.k_norm;
      if (norm) NormHead(row + h * head_dim, head_dim, norm.As<float>(), args.norm_epsilon);
      RotateHead(row + h * head_dim, cos_sin, rotary_dim, args.pairing);
    }
    const int64_t slot = args.kv_slot.As<int32_t>()[t];
    if (slot < 0) continue;
    for (int h = 0; h < kv_heads; ++h) {
      kv.SetHead(slot, h, KvView::kKey, row + (args.heads + h) * head_dim);
      kv.SetHead(slot, h, KvView::kValue, row + (args.heads + kv_heads + h) * head_dim);
    }
  }
}

void ReferenceOps::Attention(Stream&, const AttentionArgs& args) const {
  const KvShape& shape = args.kv.shape;
  const KvView kv(args.kv, kv_dtype_);
  const int32_t* query_start = args.query_start.As<int32_t>();
  for (int64_t s = 0; s < args.context_tokens.dim[0]; ++s) {
    const int32_t* blocks = args.block_table.As<int32_t>() + s * args.block_table.dim[1];
    const int queries = query_start[s + 1] - query_start[s];
    for (int j = 0; j < queries; ++j) {
      const int context = args.context_tokens.As<int32_t>()[s];
      const int position = context - queries + j;
      std::vector<int64_t> slots;
      for (int p = 0; p < (args.causal ? position + 1 : context); ++p) {
        if (args.window > 0 && p <= position - args.window) continue;
        slots.push_back(int64_t{blocks[p / shape.block_tokens]} * shape.block_tokens +
                        p % shape.block_tokens);
      }
      const int64_t t = query_start[s] + j;
      const int group = args.heads / shape.kv_heads;
      for (int h = 0; h < args.heads; ++h) {
        const float* q =
            args.qkv.As<float>() + (t * (args.heads + 2 * shape.kv_heads) + h) * shape.head_dim;
        float* out = args.out.As<float>() + (t * args.heads + h) * shape.head_dim;
        const double sink =
            args.sinks ? args.sinks.As<float>()[h] : -std::numeric_limits<double>::infinity();
        AttendHead(args, q, kv, slots, h / group, sink, out);
      }
    }
  }
}

}  // namespace fairlead::reference

// SPDX-License-Identifier: Apache-2.0
// Rotary embedding of q and k, after norms of their heads or not, and the write of k and v to the
// paged cache, in one pass.
#include "kernels/gpu/kernels.h"
#include "kernels/gpu/kv_formats.h"
#include "kernels/gpu/kv_layout.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

constexpr int kThreads = 128;

struct RopeCall {
  float* qkv;
  const int* position;
  const int* kv_slot;
  const float* cos_sin;
  unsigned char* kv;
  KvLayout layout;
  int heads;
  int rotary_dim;
  bool adjacent;        // RopePairing
  const float* q_norm;  // these for kernels with norms
  const float* k_norm;
  float norm_epsilon;
};

// The elements of a head of q or k before the rotation.
struct Head {
  const float* x;
  GPU_METHOD float operator[](int i) const { return x[i]; }
};
struct NormedHead {
  const float* x;
  const float* weight;
  float scale;
  GPU_METHOD float operator[](int i) const { return x[i] * scale * weight[i]; }
};

// All heads of q, then those of k. `scale`: of each head, if they are normed.
template <bool kNorm>
GPU_DEVICE auto HeadAt(const RopeCall& call, const float* q, const float* scale, int head) {
  const float* x = q + head * call.layout.head_dim;
  if constexpr (kNorm) {
    return NormedHead{x, head < call.heads ? call.q_norm : call.k_norm, scale[head]};
  } else {
    return Head{x};
  }
}

// A warp a head, so that `scale` is there for all threads of the block.
GPU_DEVICE void NormHeads(const RopeCall& call, const float* q, int heads, float* scale) {
  const int head_dim = call.layout.head_dim;
  for (int head = WarpId(); head < heads; head += kThreads / kWarp) {
    const float* x = q + head * head_dim;
    float sum = 0.0f;
    for (int i = LaneId(); i < head_dim; i += kWarp) sum = fmaf(x[i], x[i], sum);
    const float mean = WarpSum(sum) / static_cast<float>(head_dim);
    if (LaneId() == 0) scale[head] = 1.0f / sqrtf(mean + call.norm_epsilon);
  }
  SyncThreads();
}

// Element `i` of a head after the rotation.
template <typename AnyHead>
GPU_DEVICE float Rotated(const AnyHead& head, const float* cos_sin, int rotary_dim, bool adjacent,
                         int i) {
  if (i >= rotary_dim) return head[i];
  const int half = rotary_dim / 2;
  const int pair = adjacent ? i / 2 : i % half;
  const bool second = adjacent ? i % 2 != 0 : i >= half;
  const float a = head[adjacent ? 2 * pair : pair];
  const float b = head[adjacent ? 2 * pair + 1 : pair + half];
  const float cos = cos_sin[pair], sin = cos_sin[half + pair];
  return second ? fmaf(b, cos, a * sin) : fmaf(a, cos, -(b * sin));
}

// A token: its heads, their scales if they are normed, and its row of cosines and sines.
struct Token {
  float* q;
  const float* scale;
  const float* cos_sin;
};

// Element `dim` of a key of head `head`.
template <bool kNorm>
GPU_DEVICE float KeyOf(const RopeCall& call, const Token& token, int head, int dim) {
  const auto key = HeadAt<kNorm>(call, token.q, token.scale, call.heads + head);
  return Rotated(key, token.cos_sin, call.rotary_dim, call.adjacent, dim);
}

template <typename Kv, bool kNorm>
GPU_DEVICE void WriteKv(const RopeCall& call, const Token& token, int64_t block, int offset) {
  const KvLayout& layout = call.layout;
  const float* v = token.q + (call.heads + layout.kv_heads) * layout.head_dim;
  for (int i = ThreadX(); i < layout.kv_heads * layout.head_dim; i += kThreads) {
    const int head = i / layout.head_dim, dim = i % layout.head_dim;
    using Element = typename Kv::Element;
    unsigned char* at = call.kv + layout.Head(block, head) + dim % Kv::kElements * sizeof(Element);
    const int vector = dim / Kv::kElements;
    *reinterpret_cast<Element*>(at + layout.Key(offset, vector)) =
        Kv::Encode(KeyOf<kNorm>(call, token, head, dim));
    *reinterpret_cast<Element*>(at + layout.Value(offset, vector)) = Kv::Encode(v[i]);
  }
}

// A scale and the integer of this lane's element, of 32 lanes that share the scale (lanes without
// an element have a 0). As on the CPU: the largest becomes 127 of the scale that f16 can hold, and
// where one of them is not finite, the scale is NaN.
struct Quantized {
  uint16_t scale;
  int8_t integer;
  GPU_METHOD explicit Quantized(float value) {
    float largest = fabsf(value);
    bool finite = largest <= 3.402823466e38f;
    for (int i = kKvScaleDims / 2; i > 0; i /= 2) {
      largest = fmaxf(largest, ShflXor(largest, i));
      finite = ShflXor(finite ? 1 : 0, i) != 0 && finite;
    }
    scale = finite ? F16Bits(largest / 127.0f) : uint16_t{0x7e00};
    const bool zero = !finite || (scale & 0x7fffu) == 0;
    const float rounded = zero ? 0.0f : rintf(value * (1.0f / F16Value(scale)));
    integer = static_cast<int8_t>(fminf(fmaxf(rounded, -128.0f), 127.0f));
  }
};

template <bool kNorm>
GPU_DEVICE void WriteQuantizedKv(const RopeCall& call, const Token& token, int64_t block,
                                 int offset) {
  const KvLayout& layout = call.layout;
  const float* v = token.q + (call.heads + layout.kv_heads) * layout.head_dim;
  const int lane = ThreadX() % kKvScaleDims;
  const int count = layout.kv_heads * layout.scales;
  // All lanes of a warp stay together: they exchange.
  for (int first = 0; first < count; first += kThreads / kKvScaleDims) {
    const int index = first + ThreadX() / kKvScaleDims;
    const int head = index / layout.scales, scale = index % layout.scales;
    const int dim = scale * kKvScaleDims + lane;
    const bool active = index < count && dim < layout.head_dim;
    const Quantized key(active ? KeyOf<kNorm>(call, token, head, dim) : 0.0f);
    const Quantized value(active ? v[head * layout.head_dim + dim] : 0.0f);
    if (!active) continue;
    unsigned char* at = call.kv + layout.Head(block, head);
    const int vector = dim / KvQ8::kElements, element = dim % KvQ8::kElements;
    *reinterpret_cast<int8_t*>(at + layout.Key(offset, vector) + element) = key.integer;
    *reinterpret_cast<int8_t*>(at + layout.Value(offset, vector) + element) = value.integer;
    if (lane != 0) continue;
    *reinterpret_cast<uint16_t*>(at + layout.KeyScale(offset, scale)) = key.scale;
    *reinterpret_cast<uint16_t*>(at + layout.ValueScale(offset, scale)) = value.scale;
  }
}

// q in place: a thread takes both elements of a pair.
template <bool kNorm>
GPU_DEVICE void RotateQueries(const RopeCall& call, const Token& token) {
  const int head_dim = call.layout.head_dim, half = call.rotary_dim / 2;
  for (int i = ThreadX(); i < call.heads * half; i += kThreads) {
    float* x = token.q + i / half * head_dim;
    const auto head = HeadAt<kNorm>(call, token.q, token.scale, i / half);
    const int first = call.adjacent ? i % half * 2 : i % half;
    const int second = call.adjacent ? first + 1 : first + half;
    const float a = Rotated(head, token.cos_sin, call.rotary_dim, call.adjacent, first);
    const float b = Rotated(head, token.cos_sin, call.rotary_dim, call.adjacent, second);
    x[first] = a;
    x[second] = b;
  }
  if constexpr (kNorm) {
    const int rest = head_dim - call.rotary_dim;
    for (int i = ThreadX(); i < call.heads * rest; i += kThreads) {
      const int dim = call.rotary_dim + i % rest;
      token.q[i / rest * head_dim + dim] = HeadAt<kNorm>(call, token.q, token.scale, i / rest)[dim];
    }
  }
}

// A block a token.
template <typename Kv, bool kNorm>
GPU_KERNEL void RopeAndWriteKv(RopeCall call) {
  const KvLayout& layout = call.layout;
  const int64_t index = BlockX();
  Token token = {.q = call.qkv + index * (call.heads + 2 * layout.kv_heads) * layout.head_dim,
                 .scale = nullptr,
                 .cos_sin = call.cos_sin + int64_t{1} * call.position[index] * call.rotary_dim};
  const int slot = call.kv_slot[index];
  if constexpr (kNorm) {
    GPU_DYNAMIC_SHARED(float, scale);
    NormHeads(call, token.q, slot < 0 ? call.heads : call.heads + layout.kv_heads, scale);
    token.scale = scale;
  }
  RotateQueries<kNorm>(call, token);
  if (slot < 0) return;
  const int64_t block = slot / layout.block_tokens;
  const int offset = slot % layout.block_tokens;
  if constexpr (Kv::kScaled) {
    WriteQuantizedKv<kNorm>(call, token, block, offset);
  } else {
    WriteKv<Kv, kNorm>(call, token, block, offset);
  }
}

template <typename Kv, bool kNorm>
void LaunchRope(const StreamHandle& stream, const Grid& grid, size_t shared_bytes,
                const RopeCall& call) {
  GPU_LAUNCH(stream, grid, kThreads, shared_bytes, (RopeAndWriteKv<Kv, kNorm>), call);
}

}  // namespace

void LaunchRopeAndWriteKv(const StreamHandle& stream, const RopeAndWriteKvArgs& args,
                          DType kv_dtype) {
  if (args.qkv.dim[0] == 0) return;
  const RopeCall call = {.qkv = args.qkv.As<float>(),
                         .position = args.position.As<int>(),
                         .kv_slot = args.kv_slot.As<int>(),
                         .cos_sin = args.cos_sin.As<float>(),
                         .kv = static_cast<unsigned char*>(args.kv.data),
                         .layout = KvLayout(args.kv.shape, kv_dtype),
                         .heads = args.heads,
                         .rotary_dim = static_cast<int>(args.cos_sin.dim[1]),
                         .adjacent = args.pairing == RopePairing::kAdjacent,
                         .q_norm = args.q_norm.As<float>(),
                         .k_norm = args.k_norm.As<float>(),
                         .norm_epsilon = args.norm_epsilon};
  const Grid grid = {static_cast<unsigned>(args.qkv.dim[0])};
  const bool norm = static_cast<bool>(args.q_norm);
  const size_t scales = sizeof(float) * (args.heads + args.kv.shape.kv_heads);
  ForKvDtype(kv_dtype, [&](auto kv) {
    if (norm) {
      LaunchRope<decltype(kv), true>(stream, grid, scales, call);
    } else {
      LaunchRope<decltype(kv), false>(stream, grid, 0, call);
    }
  });
}

}  // namespace fairlead::FAIRLEAD_GPU

// SPDX-License-Identifier: Apache-2.0
// Rotary embedding of q and k, and the write of k and v to the paged cache, in one pass.
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
  bool adjacent;  // RopePairing
};

// Element `i` of a head after the rotation.
GPU_DEVICE float Rotated(const float* head, const float* cos_sin, int rotary_dim, bool adjacent,
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

// Element `dim` of a key of head `head`.
GPU_DEVICE float KeyOf(const RopeCall& call, const float* k, const float* cos_sin, int head,
                       int dim) {
  return Rotated(k + head * call.layout.head_dim, cos_sin, call.rotary_dim, call.adjacent, dim);
}

template <typename Kv>
GPU_DEVICE void WriteKv(const RopeCall& call, const float* k, const float* v, const float* cos_sin,
                        int64_t block, int offset) {
  const KvLayout& layout = call.layout;
  for (int i = ThreadX(); i < layout.kv_heads * layout.head_dim; i += kThreads) {
    const int head = i / layout.head_dim, dim = i % layout.head_dim;
    using Element = typename Kv::Element;
    unsigned char* at = call.kv + layout.Head(block, head) + dim % Kv::kElements * sizeof(Element);
    const int vector = dim / Kv::kElements;
    *reinterpret_cast<Element*>(at + layout.Key(offset, vector)) =
        Kv::Encode(KeyOf(call, k, cos_sin, head, dim));
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

GPU_DEVICE void WriteQuantizedKv(const RopeCall& call, const float* k, const float* v,
                                 const float* cos_sin, int64_t block, int offset) {
  const KvLayout& layout = call.layout;
  const int lane = ThreadX() % kKvScaleDims;
  const int count = layout.kv_heads * layout.scales;
  // All lanes of a warp stay together: they exchange.
  for (int first = 0; first < count; first += kThreads / kKvScaleDims) {
    const int index = first + ThreadX() / kKvScaleDims;
    const int head = index / layout.scales, scale = index % layout.scales;
    const int dim = scale * kKvScaleDims + lane;
    const bool active = index < count && dim < layout.head_dim;
    const Quantized key(active ? KeyOf(call, k, cos_sin, head, dim) : 0.0f);
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

// A block a token. q is rotated in place: a thread takes both elements of a pair.
template <typename Kv>
GPU_KERNEL void RopeAndWriteKv(RopeCall call) {
  const KvLayout& layout = call.layout;
  const int head_dim = layout.head_dim, half = call.rotary_dim / 2;
  const int64_t token = BlockX();
  float* q = call.qkv + token * (call.heads + 2 * layout.kv_heads) * head_dim;
  const float* cos_sin = call.cos_sin + int64_t{1} * call.position[token] * call.rotary_dim;
  for (int i = ThreadX(); i < call.heads * half; i += kThreads) {
    float* head = q + i / half * head_dim;
    const int first = call.adjacent ? i % half * 2 : i % half;
    const int second = call.adjacent ? first + 1 : first + half;
    const float a = Rotated(head, cos_sin, call.rotary_dim, call.adjacent, first);
    const float b = Rotated(head, cos_sin, call.rotary_dim, call.adjacent, second);
    head[first] = a;
    head[second] = b;
  }
  const int slot = call.kv_slot[token];
  if (slot < 0) return;
  const int64_t block = slot / layout.block_tokens;
  const int offset = slot % layout.block_tokens;
  const float* k = q + call.heads * head_dim;
  const float* v = k + layout.kv_heads * head_dim;
  if constexpr (Kv::kScaled) {
    WriteQuantizedKv(call, k, v, cos_sin, block, offset);
  } else {
    WriteKv<Kv>(call, k, v, cos_sin, block, offset);
  }
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
                         .adjacent = args.pairing == RopePairing::kAdjacent};
  const Grid grid = {static_cast<unsigned>(args.qkv.dim[0])};
  ForKvDtype(kv_dtype, [&](auto kv) {
    GPU_LAUNCH(stream, grid, kThreads, 0, RopeAndWriteKv<decltype(kv)>, call);
  });
}

}  // namespace fairlead::FAIRLEAD_GPU

// SPDX-License-Identifier: Apache-2.0
// Rotary embedding of q and k, and the write of k and v to the paged cache, in one pass.
#include "kernels/gpu/kernels.h"
#include "kernels/gpu/kv_layout.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

constexpr int kThreads = 128;

template <typename T>
struct RopeCall {
  float* qkv;
  const int* position;
  const int* kv_slot;
  const float* cos_sin;
  T* kv;
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

// A block a token. q is rotated in place: a thread takes both elements of a pair.
template <typename T>
GPU_KERNEL void RopeAndWriteKv(RopeCall<T> call) {
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
  for (int i = ThreadX(); i < layout.kv_heads * head_dim; i += kThreads) {
    const int head = i / head_dim, dim = i % head_dim;
    const float key = Rotated(k + head * head_dim, cos_sin, call.rotary_dim, call.adjacent, dim);
    StoreKv(key, call.kv + layout.Key(block, head, offset, dim / kKeyVector) + dim % kKeyVector);
    StoreKv(v[i], call.kv + layout.Value(block, head, offset) + dim);
  }
}

template <typename T>
void Launch(const StreamHandle& stream, const RopeAndWriteKvArgs& args) {
  const KvShape& shape = args.kv.shape;
  const RopeCall<T> call = {.qkv = args.qkv.As<float>(),
                            .position = args.position.As<int>(),
                            .kv_slot = args.kv_slot.As<int>(),
                            .cos_sin = args.cos_sin.As<float>(),
                            .kv = static_cast<T*>(args.kv.data),
                            .layout = KvLayout(shape.kv_heads, shape.head_dim, shape.block_tokens),
                            .heads = args.heads,
                            .rotary_dim = static_cast<int>(args.cos_sin.dim[1]),
                            .adjacent = args.pairing == RopePairing::kAdjacent};
  const Grid grid = {static_cast<unsigned>(args.qkv.dim[0])};
  GPU_LAUNCH(stream, grid, kThreads, 0, RopeAndWriteKv<T>, call);
}

}  // namespace

void LaunchRopeAndWriteKv(const StreamHandle& stream, const RopeAndWriteKvArgs& args,
                          DType kv_dtype) {
  if (args.qkv.dim[0] == 0) return;
  const auto launch = kv_dtype == DType::kF16 ? &Launch<uint16_t> : &Launch<float>;
  launch(stream, args);
}

}  // namespace fairlead::FAIRLEAD_GPU

// SPDX-License-Identifier: Apache-2.0
// All that a backend must do. A new pure virtual makes the compiler list every backend to change.
// Ops are enqueued on the stream and read their tensors when it runs them; the host learns results
// by Stream::CopyToHost and Wait. Every op is batch-invariant: the bits of an output row depend on
// that row's inputs alone, not on how many rows or sequences come with it, how a prompt was cut
// into chunks, or the number of threads. Shapes use: tokens, seqs, rows, heads, kv_heads, head_dim,
// hidden, ffn, vocab, blocks. Activations (f32 below) have DeviceInfo::activation_dtype (Matmul may
// also write f32: logits); integers are i32. Required fields have no default, optional ones do.
// tokens, seqs and rows may be 0; a tensor without elements may have no data. An output overlaps no
// input unless its op says so; inputs and the parts of an output that an op does not name keep
// their values.
#pragma once

#include <array>
#include <memory>

#include "kernels/device.h"
#include "kernels/tensor.h"

namespace fairlead {

// out[t] = table[token[t]]; with accumulate the row is added to what is there (embeddings of
// positions and of token types).
struct EmbedArgs {
  Tensor token;               // i32 [tokens], each in [0, table->rows())
  const PackedWeight* table;  // [vocab, hidden], packed with embedding = true
  Tensor out;                 // [tokens, hidden]
  bool accumulate = false;

  auto tensors() const { return std::array{token, out}; }
};

// out = x / sqrt(mean(x^2) + epsilon) * weight (Zhang and Sennrich, arXiv 1910.07467), of the
// columns [column, column + hidden) of x and out alone. out may be x. With accumulate the product
// is rounded, then added to what is there (the norms after a branch of Gemma 2, arXiv 2408.00118),
// and out may not be x.
struct RmsNormArgs {
  Tensor x;       // [tokens, columns], columns >= column + hidden
  Tensor weight;  // f32 [hidden]
  Tensor out;     // [tokens, columns]
  float epsilon;
  bool accumulate = false;
  int64_t column = 0;

  auto tensors() const { return std::array{x, weight, out}; }
};

// out = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * weight + bias (Ba et al., arXiv
// 1607.06450), the variance from the rounded mean. out may be x.
struct LayerNormArgs {
  Tensor x;            // [tokens, hidden]
  Tensor weight = {};  // f32 [hidden]; absent: ones (OLMo, arXiv 2402.00838)
  Tensor bias = {};    // f32 [hidden]; absent: none
  Tensor out;          // [tokens, hidden]
  float epsilon;

  auto tensors() const { return std::array{x, weight, bias, out}; }
};

// out[t, out_column + n] = sum_k x[t, k] * weight[n, k] (+ bias[n]); with accumulate the sum is
// added to what is there.
struct MatmulArgs {
  Tensor x;                    // [tokens, k]
  const PackedWeight* weight;  // [n, k]
  Tensor out;                  // [tokens, columns], columns >= out_column + n
  Tensor bias = {};            // f32 [n]
  int64_t out_column = 0;
  bool accumulate = false;

  auto tensors() const { return std::array{x, out, bias}; }
};

// Which elements of a head rotate together: (i, i + rotary_dim / 2) as Hugging Face stores weights,
// or (2i, 2i + 1) as GGUF files of the Llama family do.
enum class RopePairing { kHalves, kAdjacent };

struct PagedKv {
  void* data = nullptr;  // num_blocks * Device::KvBlockBytes(shape)
  int num_blocks = 0;
  KvShape shape;

  Tensor View() const { return Tensor(data, DType::kF32, {0}); }  // where it is
};

// Rotates q (in place) and k, and writes k and v to their cache slots. slot = block * block_tokens
// + offset, or -1: not written. Afterwards the k part of qkv is unspecified; the v part is
// unchanged. Elements from rotary_dim on, which may be 0, do not rotate. With q_norm and k_norm,
// each head of q and of k becomes x / sqrt(mean(x^2) + norm_epsilon) * weight before it rotates,
// over all of head_dim (Qwen3, arXiv 2505.09388).
struct RopeAndWriteKvArgs {
  Tensor qkv;       // [tokens, heads + 2 * kv_heads, head_dim]
  Tensor position;  // i32 [tokens]
  Tensor kv_slot;   // i32 [tokens]
  Tensor cos_sin;   // f32 [max_positions, rotary_dim]: rotary_dim / 2 cosines, then as many sines
  PagedKv kv;
  int heads;
  RopePairing pairing;
  Tensor q_norm = {};  // f32 [head_dim]; absent: none
  Tensor k_norm = {};  // f32 [head_dim]; present when q_norm is
  float norm_epsilon = 0;

  auto tensors() const {
    return std::array{qkv, position, kv_slot, cos_sin, kv.View(), q_norm, k_norm};
  }
};

// Attention of one ragged batch: a prefill chunk has many query rows, a decode has one. Row j of
// sequence s stands at position context_tokens[s] - (query_start[s + 1] - query_start[s]) + j and
// sees the positions up to its own; without causal it sees all context_tokens[s], whichever row it
// is (encoders, whose chunks are whole sequences). The keys are split at fixed positions, so the
// sums do not depend on the batch. Of a head h: with s_i = scale * q . k_i, and where
// soft_cap > 0 s_i = soft_cap * tanh(s_i / soft_cap) (Gemma 2, arXiv 2408.00118), out = sum
// exp(s_i) v_i / (sum exp(s_i) + exp(sinks[h])); without sinks the last term is absent (Xiao et
// al., arXiv 2309.17453; as gpt-oss has them).
struct AttentionArgs {
  Tensor qkv;  // [tokens, heads + 2 * kv_heads, head_dim]; only q is read
  Tensor out;  // [tokens, heads * head_dim]
  PagedKv kv;
  Tensor query_start;     // i32 [seqs + 1]
  Tensor context_tokens;  // i32 [seqs], this batch's tokens included
  Tensor block_table;     // i32 [seqs, max_blocks]
  int heads;
  float scale;
  int window = 0;      // of the last so many positions, its own included (Mistral); 0: all
  bool causal = true;  // false: without a window
  float soft_cap = 0;  // 0: none
  Tensor sinks = {};   // f32 [heads]; absent: none

  auto tensors() const {
    return std::array{qkv, out, kv.View(), query_start, context_tokens, block_table, sinks};
  }
};

// kSilu: x / (1 + exp(-x)). kGelu: x / 2 * (1 + erf(x / sqrt(2))). kGeluTanh: its approximation
// x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) (Hendrycks and Gimpel, arXiv 1606.08415).
// kClampedSilu: x / (1 + exp(-1.702 x)), and both factors are limited (gpt-oss, arXiv 2508.10925).
enum class Activation { kSilu, kGeluTanh, kGelu, kClampedSilu };

// out[t, i] = activation(x[t, i]) * x[t, ffn + i]; with kClampedSilu
// activation(min(x[t, i], limit)) * (max(-limit, min(x[t, ffn + i], limit)) + 1). Without gated
// out[t, i] = activation(x[t, i]), and out may be x.
struct ActivateAndMulArgs {
  Tensor x;    // [tokens, 2 * ffn]; without gated [tokens, ffn]
  Tensor out;  // [tokens, ffn]
  Activation activation;
  float limit = 0;    // above 0 for kClampedSilu
  bool gated = true;  // always with kClampedSilu

  auto tensors() const { return std::array{x, out}; }
};

struct GatherRowsArgs {
  Tensor x;    // [tokens, hidden]
  Tensor row;  // i32 [rows], each in [0, tokens)
  Tensor out;  // [rows, hidden]

  auto tensors() const { return std::array{x, row, out}; }
};

// x = factor * x, and where soft_cap > 0 then x = soft_cap * tanh(x / soft_cap): the embeddings and
// logits of Gemma 2 (arXiv 2408.00118).
struct ScaleArgs {
  Tensor x;  // [rows, columns]; f32 whatever activations are where it is logits
  float factor = 1;
  float soft_cap = 0;

  auto tensors() const { return std::array{x}; }
};

// What a step reads that the host has not seen: out[t] = token[t] where source[t] is negative, else
// drawn[source[t]], or 0 where that is negative (Sample's -1). out may be token.
struct SelectTokensArgs {
  Tensor token;   // i32 [tokens]
  Tensor source;  // i32 [tokens], each below n
  Tensor drawn;   // i32 [n]
  Tensor out;     // i32 [tokens]

  auto tensors() const { return std::array{token, source, drawn, out}; }
};

enum class Pooling { kMean, kFirst, kLast };

// One vector a sequence, of its tokens (sentence encoders): their mean, which is summed by
// ascending tokens, the first or the last. normalize: divided by max(its Euclidean norm, 1e-12). A
// sequence without tokens gives zeros.
struct PoolArgs {
  Tensor x;            // [tokens, hidden]
  Tensor query_start;  // i32 [seqs + 1]: of sequence s, the tokens [start[s], start[s + 1])
  Tensor out;          // [seqs, hidden]
  Pooling pooling;
  bool normalize = false;

  auto tensors() const { return std::array{x, query_start, out}; }
};

// A mixture of experts, of which every token takes `slots`. Scores are a softmax in f32 over all
// experts' logits, or a sigmoid of each. The `slots` best experts are chosen, best first, by score
// + bias, with their scores alone as weights; with normalize divided by their sum, for which a sum
// of sigmoids counts 1e-20 more, then times scale (DeepSeek-V3, arXiv 2412.19437).
// With groups, runs of as many experts each, only experts of the chosen_groups best groups are
// chosen (V2 takes the others' scores for 0, which differs only in who gets a weight of 0). A group
// is as good as the sum of its group_scores best experts' scores + bias (V2, arXiv 2405.04434: its
// best one's; V3: of two). Ties go to the lower id, of groups, too. Scores are compared in f32, but
// where neither biases nor several scores are added up their logits are, which does not round.
// A row with a NaN or +infinity, or with nothing above -infinity, among its logits or among what is
// compared gives the experts 0 to slots - 1 with weights NaN.
struct RouteArgs {
  static constexpr int kMaxExperts = 1024, kMaxSlots = 32, kMaxGroups = 32;
  enum class Scores { kSoftmax, kSigmoid };

  Tensor logits;  // [tokens, experts]
  Tensor expert;  // i32 [tokens, slots], slots <= chosen_groups * experts / groups
  Tensor weight;  // f32 [tokens, slots]
  bool normalize;
  Scores scores = Scores::kSoftmax;
  Tensor bias = {};       // f32 [experts]; absent: none
  int groups = 1;         // divides experts
  int chosen_groups = 1;  // <= groups
  int group_scores = 1;   // <= experts / groups
  float scale = 1;

  auto tensors() const { return std::array{logits, expert, weight, bias}; }
};

// out[t * slots + j] = x[t] (or x[t * slots + j]) . w^T (+ bias[e]), where e is expert[t, j] and w
// the e-th matrix of the weight: the bits that Matmul gives for that row and that matrix alone.
struct GroupedMatmulArgs {
  Tensor x;                    // [tokens or tokens * slots, k]
  Tensor expert;               // i32 [tokens, slots], each in [0, weight->groups())
  const PackedWeight* weight;  // [groups * n, k]
  Tensor out;                  // [tokens * slots, n]
  Tensor bias = {};            // f32 [groups, n]

  auto tensors() const { return std::array{x, expert, out, bias}; }
};

// out[t] = sum_j weight[t, j] * x[t * slots + j], ascending j; with accumulate the sum is added to
// what is there.
struct CombineExpertsArgs {
  Tensor x;       // [tokens * slots, hidden]
  Tensor weight;  // f32 [tokens, slots]
  Tensor out;     // [tokens, hidden]
  bool accumulate = false;

  auto tensors() const { return std::array{x, weight, out}; }
};

// Sparse changes to one row's logits before sampling: l = (l > 0 ? l / repetition : l * repetition)
// + add. The entries of row r are [start[r], start[r + 1]); a token appears at most once a row. add
// may be -infinity.
struct LogitEdits {
  Tensor start = {};       // i32 [rows + 1]; absent: no edits
  Tensor token = {};       // i32 [entries]
  Tensor repetition = {};  // f32 [entries]
  Tensor add = {};         // f32 [entries]
};

// Picks one token a row. temperature 0: the largest logit, lowest id on a tie. Otherwise: logits /
// temperature, then top_k, then min_p (keeps p >= min_p * the largest), then top_p (the fewest most
// likely tokens whose share of what is left reaches top_p, at least one); ties in favour of the
// lower id. Then a draw by inverse CDF in id order: the first token whose running sum exceeds
// UniformFor(seed, position) (sampling_rng.h) * the sum of all that are left. A token that the
// row's mask does not allow counts as -infinity, whatever its edited logit is. A row whose logits
// are then not all finite or -infinity, or all -infinity, gives -1.
struct SampleArgs {
  Tensor logits;       // f32 [rows, vocab], not changed
  Tensor temperature;  // f32 [rows]
  Tensor top_k;        // i32 [rows], 0 = off
  Tensor top_p;        // f32 [rows], 1 = off
  Tensor min_p;        // f32 [rows], 0 = off
  Tensor seed;         // i32 [rows, 2]: low and high half
  Tensor position;     // i32 [rows]: position of the token that is drawn
  LogitEdits edits = {};
  // Masks of a grammar: bit b of word w says that token 32 * w + b may be drawn. Both are given, or
  // neither.
  Tensor allowed = {};      // i32 [masks, (vocab + 31) / 32]
  Tensor allowed_row = {};  // i32 [rows]: the row's mask, or -1: all tokens
  Tensor out;               // i32 [rows]

  auto tensors() const {
    return std::array{logits,    temperature, top_k,       top_p,       min_p,
                      seed,      position,    edits.start, edits.token, edits.repetition,
                      edits.add, allowed,     allowed_row, out};
  }
};

// Log-softmax in f32 of raw logits (no edits, no temperature): of the target, its rank (1 = the
// most likely; ties by lower id), and the best n tokens of the row, best first. A target outside
// [0, vocab) gives logprob 0 and rank 0.
struct LogprobsArgs {
  Tensor logits;            // f32 [rows, vocab]
  Tensor target;            // i32 [rows]
  Tensor out_logprob;       // f32 [rows]
  Tensor out_rank;          // i32 [rows]
  Tensor top_token = {};    // i32 [rows, n]; absent: n = 0
  Tensor top_logprob = {};  // f32 [rows, n]

  auto tensors() const {
    return std::array{logits, target, out_logprob, out_rank, top_token, top_logprob};
  }
};

// All ops. Op NAME takes a NAMEArgs, whose tensors() are the memory that it touches besides
// weights.
#define FAIRLEAD_OPS(OP) \
  OP(Embed)              \
  OP(RmsNorm)            \
  OP(LayerNorm)          \
  OP(Matmul)             \
  OP(RopeAndWriteKv)     \
  OP(Attention)          \
  OP(ActivateAndMul)     \
  OP(GatherRows)         \
  OP(Scale)              \
  OP(SelectTokens)       \
  OP(Pool)               \
  OP(Route)              \
  OP(GroupedMatmul)      \
  OP(CombineExperts)     \
  OP(Sample)             \
  OP(Logprobs)

class Ops {
 public:
  virtual ~Ops() = default;
#define FAIRLEAD_PURE_OP(name) virtual void name(Stream&, const name##Args&) const = 0;
  FAIRLEAD_OPS(FAIRLEAD_PURE_OP)
#undef FAIRLEAD_PURE_OP
};

// For a backend's class: declares all ops, which it then defines.
#define FAIRLEAD_OVERRIDE_OP(name) void name(Stream&, const name##Args&) const override;
#define FAIRLEAD_OVERRIDE_OPS FAIRLEAD_OPS(FAIRLEAD_OVERRIDE_OP)

// Decorator: every shape and dtype checked, once, for all backends; a violation CHECK-fails with
// the op's and field's name. Reads no device memory. `target` must outlive it.
std::unique_ptr<Ops> MakeCheckedOps(const Ops& target);

}  // namespace fairlead

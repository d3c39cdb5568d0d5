// SPDX-License-Identifier: Apache-2.0
// MakeCheckedOps: what every backend may take for granted about its arguments, checked in one place
// before the op is enqueued. Host-side facts only (shapes, dtypes, pointers, scalars); the contents
// of tensors are the engine's promise. Allocates nothing unless a check fails, so that it may stay
// on in the step loop.
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"  // Hex
#include "kernels/check.h"
#include "kernels/ops.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

constexpr int64_t kAnySize = -1;

std::string ShapeText(DType dtype, const int64_t* dim, int rank) {
  std::string text = StrCat(Info(dtype).name, " [");
  for (int i = 0; i < rank; ++i) {
    StrAppend(&text, i == 0 ? "" : ", ", dim[i] == kAnySize ? "any" : StrCat(dim[i]));
  }
  return text + "]";
}

std::string ShapeText(const Tensor& t) { return ShapeText(t.dtype, t.dim.data(), t.rank); }

// The checks of one call of one op: `op` is its name.
class Checker {
 public:
  explicit Checker(const char* op) : op_(op) {}

  void Require(bool condition, const char* field, const char* rule) const {
    FAIRLEAD_CHECK_MSG(condition, StrCat(op_, ".", field, " ", rule));
  }
  void Require(bool condition, const char* field, const char* rule, double value) const {
    FAIRLEAD_CHECK_MSG(condition, StrCat(op_, ".", field, " ", rule, ", got ", value));
  }

  // `t` has this dtype and these sizes (kAnySize: not fixed), and data where it has elements.
  void Shape(const char* field, const Tensor& t, DType dtype,
             std::initializer_list<int64_t> dims) const {
    bool same = t.dtype == dtype && t.rank == static_cast<int>(dims.size());
    for (int i = 0; same && i < t.rank; ++i) {
      const int64_t want = dims.begin()[i];
      same = t.dim[i] >= 0 && (want == kAnySize || want == t.dim[i]);
    }
    FAIRLEAD_CHECK_MSG(same, StrCat(op_, ".", field, " must be ",
                                    ShapeText(dtype, dims.begin(), static_cast<int>(dims.size())),
                                    ", got ", ShapeText(t)));
    FAIRLEAD_CHECK_MSG(t.elements() == 0 || t.data != nullptr,
                       StrCat(op_, ".", field, " ", ShapeText(t), " has no data"));
    FAIRLEAD_CHECK_MSG(
        reinterpret_cast<uintptr_t>(t.data) % static_cast<size_t>(Info(dtype).block_bytes) == 0,
        absl::StrCat(op_, ".", field, " is not aligned to its elements: 0x",
                     absl::Hex(reinterpret_cast<uintptr_t>(t.data))));
  }

  void ActivationType(const char* field, const Tensor& t) const {
    FAIRLEAD_CHECK_MSG(t.dtype == DType::kF32 || t.dtype == DType::kF16 || t.dtype == DType::kBF16,
                       StrCat(op_, ".", field, " must be f32, f16 or bf16, got ", ShapeText(t)));
  }

  void Weight(const char* field, const PackedWeight* weight, int max_groups = 1) const {
    Require(weight != nullptr, field, "must be set");
    FAIRLEAD_CHECK_MSG(
        IsWeightType(weight->dtype()) && weight->rows() > 0 && weight->cols() > 0,
        StrCat(op_, ".", field, " must be a matrix of numbers, got ", Info(weight->dtype()).name,
               " [", weight->rows(), ", ", weight->cols(), "]"));
    FAIRLEAD_CHECK_MSG(weight->groups() <= max_groups,
                       StrCat(op_, ".", field, " must have at most ", max_groups, " groups, got ",
                              weight->groups()));
  }

  void Apart(const char* out_field, const Tensor& out, const char* in_field,
             const Tensor& in) const {
    const uintptr_t out_begin = reinterpret_cast<uintptr_t>(out.data);
    const uintptr_t in_begin = reinterpret_cast<uintptr_t>(in.data);
    FAIRLEAD_CHECK_MSG(out.elements() == 0 || in.elements() == 0 ||
                           out_begin + out.bytes() <= in_begin ||
                           in_begin + in.bytes() <= out_begin,
                       StrCat(op_, ".", out_field, " ", ShapeText(out), " overlaps ", in_field, " ",
                              ShapeText(in)));
  }

  void Kv(const PagedKv& kv, int heads, int64_t qkv_heads, int64_t head_dim) const {
    const KvShape& shape = kv.shape;
    FAIRLEAD_CHECK_MSG(
        kv.data != nullptr && kv.num_blocks > 0 && shape.kv_heads > 0 && shape.head_dim > 0 &&
            shape.block_tokens > 0,
        StrCat(op_, ".kv must have data and positive sizes, got ", kv.num_blocks, " blocks of ",
               shape.block_tokens, " tokens, ", shape.kv_heads, " kv_heads of ", shape.head_dim));
    FAIRLEAD_CHECK_MSG(
        shape.head_dim <= KvShape::kMaxHeadDim && shape.block_tokens % KvShape::kTokenGroup == 0,
        StrCat(op_, ".kv must have head_dim at most ", KvShape::kMaxHeadDim,
               " and block_tokens in multiples of ", KvShape::kTokenGroup, ", got ", shape.head_dim,
               " and ", shape.block_tokens));
    FAIRLEAD_CHECK_MSG(heads > 0 && heads % shape.kv_heads == 0,
                       StrCat(op_, ".heads must be a positive multiple of kv_heads ",
                              shape.kv_heads, ", got ", heads));
    FAIRLEAD_CHECK_MSG(
        qkv_heads == int64_t{heads} + 2 * shape.kv_heads && head_dim == shape.head_dim,
        StrCat(op_, ".qkv must be [tokens, ", heads + 2 * shape.kv_heads, ", ", shape.head_dim,
               "], got [tokens, ", qkv_heads, ", ", head_dim, "]"));
  }

 private:
  const char* op_;
};

// A tensor that was left out; one with elements but no data is a mistake, which Shape reports.
bool Absent(const Tensor& t) { return t.rank == 0 && t.data == nullptr; }

// What of RouteArgs is no tensor.
void CheckRouteChoice(const Checker& check, const RouteArgs& args) {
  const int64_t experts = args.logits.dim[1], slots = args.expert.dim[1];
  check.Require(
      args.scores == RouteArgs::Scores::kSoftmax || args.scores == RouteArgs::Scores::kSigmoid,
      "scores", "must be kSoftmax or kSigmoid", static_cast<int>(args.scores));
  check.Require(
      args.groups >= 1 && args.groups <= RouteArgs::kMaxGroups && experts % args.groups == 0,
      "groups", "must be 1 to 32 and divide the experts", args.groups);
  check.Require(args.chosen_groups >= 1 && args.chosen_groups <= args.groups, "chosen_groups",
                "must be 1 to groups", args.chosen_groups);
  check.Require(args.group_scores >= 1 && args.group_scores <= experts / args.groups,
                "group_scores", "must be 1 to experts / groups", args.group_scores);
  check.Require(slots <= experts / args.groups * args.chosen_groups, "expert",
                "must have no more slots than the chosen groups have experts",
                static_cast<double>(slots));
  check.Require(std::isfinite(args.scale), "scale", "must be finite", args.scale);
}

class CheckedOps : public Ops {
 public:
  explicit CheckedOps(const Ops& target) : target_(target) {}

  FAIRLEAD_OVERRIDE_OPS

 private:
  const Ops& target_;
};

void CheckedOps::Embed(Stream& stream, const EmbedArgs& args) const {
  const Checker check("Embed");
  check.Weight("table", args.table);
  check.ActivationType("out", args.out);
  check.Shape("token", args.token, DType::kI32, {kAnySize});
  check.Shape("out", args.out, args.out.dtype, {args.token.dim[0], args.table->cols()});
  check.Apart("out", args.out, "token", args.token);
  target_.Embed(stream, args);
}

void CheckedOps::RmsNorm(Stream& stream, const RmsNormArgs& args) const {
  const Checker check("RmsNorm");
  check.ActivationType("x", args.x);
  check.Shape("x", args.x, args.x.dtype, {kAnySize, kAnySize});
  const int64_t columns = args.x.dim[1];
  check.Shape("weight", args.weight, DType::kF32, {kAnySize});
  const int64_t hidden = args.weight.dim[0];
  FAIRLEAD_CHECK_MSG(hidden > 0 && args.column >= 0 && args.column <= columns - hidden,
                     StrCat("RmsNorm.weight must be of 1 to ", columns,
                            " columns of x from column ", args.column, " on, got ", hidden));
  check.Shape("out", args.out, args.x.dtype, {args.x.dim[0], columns});
  if (args.accumulate || args.out.data != args.x.data) check.Apart("out", args.out, "x", args.x);
  check.Apart("out", args.out, "weight", args.weight);
  check.Require(std::isfinite(args.epsilon) && args.epsilon >= 0, "epsilon",
                "must be finite and not negative", args.epsilon);
  target_.RmsNorm(stream, args);
}

void CheckedOps::LayerNorm(Stream& stream, const LayerNormArgs& args) const {
  const Checker check("LayerNorm");
  check.ActivationType("x", args.x);
  check.Shape("x", args.x, args.x.dtype, {kAnySize, kAnySize});
  const int64_t hidden = args.x.dim[1];
  check.Require(hidden > 0, "x", "must have columns");
  check.Shape("out", args.out, args.x.dtype, {args.x.dim[0], hidden});
  if (args.out.data != args.x.data) check.Apart("out", args.out, "x", args.x);
  const std::pair<const char*, const Tensor*> factors[] = {{"weight", &args.weight},
                                                           {"bias", &args.bias}};
  for (const auto& [field, tensor] : factors) {
    if (Absent(*tensor)) continue;
    check.Shape(field, *tensor, DType::kF32, {hidden});
    check.Apart("out", args.out, field, *tensor);
  }
  check.Require(std::isfinite(args.epsilon) && args.epsilon >= 0, "epsilon",
                "must be finite and not negative", args.epsilon);
  target_.LayerNorm(stream, args);
}

void CheckedOps::Matmul(Stream& stream, const MatmulArgs& args) const {
  const Checker check("Matmul");
  check.Weight("weight", args.weight);
  check.ActivationType("x", args.x);
  check.Shape("x", args.x, args.x.dtype, {kAnySize, args.weight->cols()});
  const DType out_dtype = args.out.dtype == DType::kF32 ? DType::kF32 : args.x.dtype;
  check.Shape("out", args.out, out_dtype, {args.x.dim[0], kAnySize});
  const int64_t columns = args.out.dim[1];
  const int64_t n = args.weight->rows();
  FAIRLEAD_CHECK_MSG(args.out_column >= 0 && args.out_column <= columns - n,
                     StrCat("Matmul.out_column ", args.out_column, " + ", n,
                            " weight rows do not fit in the ", columns, " columns of out"));
  check.Apart("out", args.out, "x", args.x);
  if (!Absent(args.bias)) {
    check.Shape("bias", args.bias, DType::kF32, {n});
    check.Apart("out", args.out, "bias", args.bias);
  }
  target_.Matmul(stream, args);
}

void CheckedOps::RopeAndWriteKv(Stream& stream, const RopeAndWriteKvArgs& args) const {
  const Checker check("RopeAndWriteKv");
  check.ActivationType("qkv", args.qkv);
  check.Shape("qkv", args.qkv, args.qkv.dtype, {kAnySize, kAnySize, kAnySize});
  check.Kv(args.kv, args.heads, args.qkv.dim[1], args.qkv.dim[2]);
  const int64_t tokens = args.qkv.dim[0];
  check.Shape("position", args.position, DType::kI32, {tokens});
  check.Shape("kv_slot", args.kv_slot, DType::kI32, {tokens});
  check.Shape("cos_sin", args.cos_sin, DType::kF32, {kAnySize, kAnySize});
  check.Require(args.cos_sin.dim[0] > 0, "cos_sin", "must have positions");
  const int64_t rotary_dim = args.cos_sin.dim[1];
  FAIRLEAD_CHECK_MSG(
      rotary_dim % 2 == 0 && rotary_dim <= args.kv.shape.head_dim,
      StrCat("RopeAndWriteKv.cos_sin must have an even number of columns in [0, head_dim ",
             args.kv.shape.head_dim, "], got ", rotary_dim));
  check.Require(args.pairing == RopePairing::kHalves || args.pairing == RopePairing::kAdjacent,
                "pairing", "must be kHalves or kAdjacent", static_cast<int>(args.pairing));
  check.Require(Absent(args.q_norm) == Absent(args.k_norm), "k_norm",
                "and q_norm must both be set or both be absent");
  if (!Absent(args.q_norm)) {
    check.Shape("q_norm", args.q_norm, DType::kF32, {args.kv.shape.head_dim});
    check.Shape("k_norm", args.k_norm, DType::kF32, {args.kv.shape.head_dim});
    check.Require(std::isfinite(args.norm_epsilon) && args.norm_epsilon >= 0, "norm_epsilon",
                  "must be finite and not negative", args.norm_epsilon);
    check.Apart("qkv", args.qkv, "q_norm", args.q_norm);
    check.Apart("qkv", args.qkv, "k_norm", args.k_norm);
  }
  check.Apart("qkv", args.qkv, "position", args.position);
  check.Apart("qkv", args.qkv, "kv_slot", args.kv_slot);
  check.Apart("qkv", args.qkv, "cos_sin", args.cos_sin);
  target_.RopeAndWriteKv(stream, args);
}

void CheckedOps::Attention(Stream& stream, const AttentionArgs& args) const {
  const Checker check("Attention");
  check.ActivationType("qkv", args.qkv);
  check.Shape("qkv", args.qkv, args.qkv.dtype, {kAnySize, kAnySize, kAnySize});
  check.Kv(args.kv, args.heads, args.qkv.dim[1], args.qkv.dim[2]);
  check.Shape("out", args.out, args.qkv.dtype,
              {args.qkv.dim[0], int64_t{args.heads} * args.kv.shape.head_dim});
  check.Shape("context_tokens", args.context_tokens, DType::kI32, {kAnySize});
  const int64_t seqs = args.context_tokens.dim[0];
  check.Shape("query_start", args.query_start, DType::kI32, {seqs + 1});
  check.Shape("block_table", args.block_table, DType::kI32, {seqs, kAnySize});
  check.Require(std::isfinite(args.scale), "scale", "must be finite", args.scale);
  check.Require(args.window >= 0, "window", "must not be negative", args.window);
  check.Require(args.causal || args.window == 0, "window", "must be 0 without causal", args.window);
  check.Require(std::isfinite(args.soft_cap) && args.soft_cap >= 0, "soft_cap",
                "must be finite and not negative", args.soft_cap);
  if (!Absent(args.sinks)) {
    check.Shape("sinks", args.sinks, DType::kF32, {args.heads});
    check.Apart("out", args.out, "sinks", args.sinks);
  }
  check.Apart("out", args.out, "qkv", args.qkv);
  check.Apart("out", args.out, "query_start", args.query_start);
  check.Apart("out", args.out, "context_tokens", args.context_tokens);
  check.Apart("out", args.out, "block_table", args.block_table);
  target_.Attention(stream, args);
}

void CheckedOps::ActivateAndMul(Stream& stream, const ActivateAndMulArgs& args) const {
  const Checker check("ActivateAndMul");
  check.ActivationType("out", args.out);
  check.Shape("out", args.out, args.out.dtype, {kAnySize, kAnySize});
  const int64_t ffn = args.out.dim[1];
  check.Shape("x", args.x, args.out.dtype, {args.out.dim[0], args.gated ? 2 * ffn : ffn});
  if (args.gated || args.out.data != args.x.data) check.Apart("out", args.out, "x", args.x);
  check.Require(args.activation == Activation::kSilu || args.activation == Activation::kGeluTanh ||
                    args.activation == Activation::kGelu ||
                    args.activation == Activation::kClampedSilu,
                "activation", "must be kSilu, kGeluTanh, kGelu or kClampedSilu",
                static_cast<int>(args.activation));
  if (args.activation == Activation::kClampedSilu) {
    check.Require(std::isfinite(args.limit) && args.limit > 0, "limit",
                  "must be finite and above 0", args.limit);
    check.Require(args.gated, "gated", "must be true for kClampedSilu");
  }
  target_.ActivateAndMul(stream, args);
}

void CheckedOps::GatherRows(Stream& stream, const GatherRowsArgs& args) const {
  const Checker check("GatherRows");
  check.ActivationType("x", args.x);
  check.Shape("x", args.x, args.x.dtype, {kAnySize, kAnySize});
  check.Shape("row", args.row, DType::kI32, {kAnySize});
  check.Shape("out", args.out, args.x.dtype, {args.row.dim[0], args.x.dim[1]});
  check.Apart("out", args.out, "x", args.x);
  check.Apart("out", args.out, "row", args.row);
  target_.GatherRows(stream, args);
}

void CheckedOps::Scale(Stream& stream, const ScaleArgs& args) const {
  const Checker check("Scale");
  check.ActivationType("x", args.x);
  check.Shape("x", args.x, args.x.dtype, {kAnySize, kAnySize});
  check.Require(std::isfinite(args.factor), "factor", "must be finite", args.factor);
  check.Require(std::isfinite(args.soft_cap) && args.soft_cap >= 0, "soft_cap",
                "must be finite and not negative", args.soft_cap);
  target_.Scale(stream, args);
}

void CheckedOps::SelectTokens(Stream& stream, const SelectTokensArgs& args) const {
  const Checker check("SelectTokens");
  check.Shape("token", args.token, DType::kI32, {kAnySize});
  const int64_t tokens = args.token.dim[0];
  check.Shape("source", args.source, DType::kI32, {tokens});
  check.Shape("drawn", args.drawn, DType::kI32, {kAnySize});
  check.Shape("out", args.out, DType::kI32, {tokens});
  check.Apart("out", args.out, "source", args.source);
  check.Apart("out", args.out, "drawn", args.drawn);
  if (args.out.data != args.token.data) check.Apart("out", args.out, "token", args.token);
  target_.SelectTokens(stream, args);
}

void CheckedOps::Pool(Stream& stream, const PoolArgs& args) const {
  const Checker check("Pool");
  check.ActivationType("x", args.x);
  check.Shape("x", args.x, args.x.dtype, {kAnySize, kAnySize});
  check.Shape("out", args.out, args.x.dtype, {kAnySize, args.x.dim[1]});
  check.Shape("query_start", args.query_start, DType::kI32, {args.out.dim[0] + 1});
  check.Require(args.pooling == Pooling::kMean || args.pooling == Pooling::kFirst ||
                    args.pooling == Pooling::kLast,
                "pooling", "must be kMean, kFirst or kLast", static_cast<int>(args.pooling));
  check.Apart("out", args.out, "x", args.x);
  check.Apart("out", args.out, "query_start", args.query_start);
  target_.Pool(stream, args);
}

void CheckedOps::Route(Stream& stream, const RouteArgs& args) const {
  const Checker check("Route");
  check.ActivationType("logits", args.logits);
  check.Shape("logits", args.logits, args.logits.dtype, {kAnySize, kAnySize});
  const int64_t tokens = args.logits.dim[0], experts = args.logits.dim[1];
  check.Require(experts >= 1 && experts <= RouteArgs::kMaxExperts, "logits",
                "must have 1 to 1024 columns", static_cast<double>(experts));
  check.Shape("expert", args.expert, DType::kI32, {tokens, kAnySize});
  const int64_t slots = args.expert.dim[1];
  check.Require(slots >= 1 && slots <= RouteArgs::kMaxSlots && slots <= experts, "expert",
                "must have 1 to 32 slots, of no more than the experts", static_cast<double>(slots));
  check.Shape("weight", args.weight, DType::kF32, {tokens, slots});
  check.Apart("expert", args.expert, "logits", args.logits);
  check.Apart("weight", args.weight, "logits", args.logits);
  check.Apart("weight", args.weight, "expert", args.expert);
  if (!Absent(args.bias)) {
    check.Shape("bias", args.bias, DType::kF32, {experts});
    check.Apart("expert", args.expert, "bias", args.bias);
    check.Apart("weight", args.weight, "bias", args.bias);
  }
  CheckRouteChoice(check, args);
  target_.Route(stream, args);
}

void CheckedOps::GroupedMatmul(Stream& stream, const GroupedMatmulArgs& args) const {
  const Checker check("GroupedMatmul");
  check.Weight("weight", args.weight, RouteArgs::kMaxExperts);
  const int64_t n = args.weight->group_rows();
  check.Shape("expert", args.expert, DType::kI32, {kAnySize, kAnySize});
  const int64_t tokens = args.expert.dim[0], slots = args.expert.dim[1];
  check.Require(slots >= 1 && slots <= RouteArgs::kMaxSlots, "expert", "must have 1 to 32 slots",
                static_cast<double>(slots));
  check.ActivationType("x", args.x);
  check.Shape("x", args.x, args.x.dtype, {kAnySize, args.weight->cols()});
  check.Require(args.x.dim[0] == tokens || args.x.dim[0] == tokens * slots, "x",
                "must have a row a token, or a row a token and slot",
                static_cast<double>(args.x.dim[0]));
  check.Shape("out", args.out, args.x.dtype, {tokens * slots, n});
  check.Apart("out", args.out, "x", args.x);
  check.Apart("out", args.out, "expert", args.expert);
  if (!Absent(args.bias)) {
    check.Shape("bias", args.bias, DType::kF32, {args.weight->groups(), n});
    check.Apart("out", args.out, "bias", args.bias);
  }
  target_.GroupedMatmul(stream, args);
}

void CheckedOps::CombineExperts(Stream& stream, const CombineExpertsArgs& args) const {
  const Checker check("CombineExperts");
  check.ActivationType("out", args.out);
  check.Shape("out", args.out, args.out.dtype, {kAnySize, kAnySize});
  const int64_t tokens = args.out.dim[0];
  check.Shape("weight", args.weight, DType::kF32, {tokens, kAnySize});
  const int64_t slots = args.weight.dim[1];
  check.Require(slots >= 1, "weight", "must have slots");
  check.Shape("x", args.x, args.out.dtype, {tokens * slots, args.out.dim[1]});
  check.Apart("out", args.out, "x", args.x);
  check.Apart("out", args.out, "weight", args.weight);
  target_.CombineExperts(stream, args);
}

void CheckedOps::Sample(Stream& stream, const SampleArgs& args) const {
  const Checker check("Sample");
  check.Shape("logits", args.logits, DType::kF32, {kAnySize, kAnySize});
  const int64_t rows = args.logits.dim[0];
  check.Require(args.logits.dim[1] > 0, "logits", "must have columns");
  check.Shape("temperature", args.temperature, DType::kF32, {rows});
  check.Shape("top_k", args.top_k, DType::kI32, {rows});
  check.Shape("top_p", args.top_p, DType::kF32, {rows});
  check.Shape("min_p", args.min_p, DType::kF32, {rows});
  check.Shape("seed", args.seed, DType::kI32, {rows, 2});
  check.Shape("position", args.position, DType::kI32, {rows});
  check.Shape("out", args.out, DType::kI32, {rows});
  const LogitEdits& edits = args.edits;
  if (Absent(edits.start)) {
    check.Require(Absent(edits.token) && Absent(edits.repetition) && Absent(edits.add), "edits",
                  "must have start when it has entries");
  } else {
    check.Shape("edits.start", edits.start, DType::kI32, {rows + 1});
    check.Shape("edits.token", edits.token, DType::kI32, {kAnySize});
    check.Shape("edits.repetition", edits.repetition, DType::kF32, {edits.token.dim[0]});
    check.Shape("edits.add", edits.add, DType::kF32, {edits.token.dim[0]});
  }
  check.Require(Absent(args.allowed) == Absent(args.allowed_row), "allowed_row",
                "and allowed must both be set or both be absent");
  if (!Absent(args.allowed)) {
    check.Shape("allowed", args.allowed, DType::kI32, {kAnySize, (args.logits.dim[1] + 31) / 32});
    check.Shape("allowed_row", args.allowed_row, DType::kI32, {rows});
  }
  const std::pair<const char*, const Tensor*> inputs[] = {
      {"logits", &args.logits},
      {"temperature", &args.temperature},
      {"top_k", &args.top_k},
      {"top_p", &args.top_p},
      {"min_p", &args.min_p},
      {"seed", &args.seed},
      {"position", &args.position},
      {"edits.start", &edits.start},
      {"edits.token", &edits.token},
      {"edits.repetition", &edits.repetition},
      {"edits.add", &edits.add},
      {"allowed", &args.allowed},
      {"allowed_row", &args.allowed_row},
  };
  for (const auto& [field, tensor] : inputs) {
    if (!Absent(*tensor)) check.Apart("out", args.out, field, *tensor);
  }
  target_.Sample(stream, args);
}

void CheckedOps::Logprobs(Stream& stream, const LogprobsArgs& args) const {
  const Checker check("Logprobs");
  check.Shape("logits", args.logits, DType::kF32, {kAnySize, kAnySize});
  const int64_t rows = args.logits.dim[0], vocab = args.logits.dim[1];
  check.Require(vocab > 0, "logits", "must have columns");
  check.Shape("target", args.target, DType::kI32, {rows});
  check.Shape("out_logprob", args.out_logprob, DType::kF32, {rows});
  check.Shape("out_rank", args.out_rank, DType::kI32, {rows});
  check.Require(Absent(args.top_token) == Absent(args.top_logprob), "top_logprob",
                "and top_token must both be set or both be absent");
  if (!Absent(args.top_token)) {
    check.Shape("top_token", args.top_token, DType::kI32, {rows, kAnySize});
    const int64_t n = args.top_token.dim[1];
    FAIRLEAD_CHECK_MSG(n <= vocab, StrCat("Logprobs.top_token has ", n,
                                          " columns, more than the vocabulary of ", vocab));
    check.Shape("top_logprob", args.top_logprob, DType::kF32, {rows, n});
  }
  const std::pair<const char*, const Tensor*> outputs[] = {
      {"out_logprob", &args.out_logprob},
      {"out_rank", &args.out_rank},
      {"top_token", &args.top_token},
      {"top_logprob", &args.top_logprob},
  };
  for (const auto& [field, tensor] : outputs) {
    if (Absent(*tensor)) continue;
    check.Apart(field, *tensor, "logits", args.logits);
    check.Apart(field, *tensor, "target", args.target);
  }
  target_.Logprobs(stream, args);
}

}  // namespace

std::unique_ptr<Ops> MakeCheckedOps(const Ops& target) {
  return std::make_unique<CheckedOps>(target);
}

}  // namespace fairlead

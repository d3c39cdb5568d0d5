// SPDX-License-Identifier: Apache-2.0
#include "bench/roofline/work_of_model.h"

namespace fairlead::bench {
namespace {

// Fractions of a block count: a prediction asks how much, not whether a file can hold it.
double BytesOf(DType dtype, double elements) {
  const DTypeInfo& info = Info(dtype);
  return elements * info.block_bytes / info.block_elements;
}

struct Matrix {
  const char* name;
  double n, k;
  bool accumulates;  // onto the residual stream, which it reads
};

std::vector<Matrix> LayerMatrices(const ModelConfig& m) {
  const double q = double{1} * m.heads * m.head_dim, kv = double{1} * m.kv_heads * m.head_dim;
  return {{"Matmul qkv", q + 2 * kv, double(m.hidden), false},
          {"Matmul attention_out", double(m.hidden), q, true},
          {"Matmul gate_up", 2.0 * m.ffn, double(m.hidden), false},
          {"Matmul down", double(m.hidden), double(m.ffn), true}};
}

double HeadParameters(const ModelConfig& m) { return double{1} * m.vocab * m.hidden; }

double LayerParameters(const ModelConfig& m) {
  double total = 0;
  for (const Matrix& matrix : LayerMatrices(m)) total += matrix.n * matrix.k;
  return total * m.layers;
}

class Step {
 public:
  Step(const ModelConfig& model, const ModelDTypes& dtypes, const StepShape& shape)
      : m_(model),
        dtypes_(dtypes),
        shape_(shape),
        tokens_(static_cast<double>(shape.sequences * shape.queries)),
        rows_(static_cast<double>(shape.sequences)) {}

  std::vector<KernelWork> Kernels() {
    const double q = double{1} * m_.heads * m_.head_dim;
    Other("Embed", 1,
          Activations(tokens_ * m_.hidden) + BytesOf(dtypes_.weights, tokens_ * m_.hidden));
    Other("RmsNorm", 2 * m_.layers, Activations(2 * tokens_ * m_.hidden) + VectorBytes());
    for (const Matrix& matrix : LayerMatrices(m_)) Matmul(matrix, m_.layers, tokens_, true);
    // Reads q, k and v, writes q; the cache below.
    KernelWork rope{.name = "RopeAndWriteKv", .count = m_.layers};
    const double kv = 2.0 * m_.kv_heads * m_.head_dim;
    rope.activation_bytes = m_.layers * Activations(tokens_ * (2 * q + kv));
    rope.stored_bytes = tokens_ * KvBytesPerToken(m_, dtypes_.kv);
    kernels_.push_back(rope);
    Attention(q);
    Other("ActivateAndMul", m_.layers, Activations(3 * tokens_ * m_.ffn));
    Other("GatherRows", 1, Activations(2 * rows_ * m_.hidden));
    Other("RmsNorm, last", 1, Activations(2 * rows_ * m_.hidden) + VectorBytes());
    Matmul({"Matmul head", double(m_.vocab), double(m_.hidden), false}, 1, rows_, false);
    Other("Sample", 1, BytesOf(DType::kF32, rows_ * m_.vocab));
    return std::move(kernels_);
  }

 private:
  double Activations(double elements) const { return BytesOf(dtypes_.activations, elements); }
  double VectorBytes() const { return BytesOf(DType::kF32, m_.hidden); }

  void Other(const char* name, int64_t count, double bytes) {
    kernels_.push_back(
        {.name = name, .count = count, .activation_bytes = static_cast<double>(count) * bytes});
  }

  // The head's output, logits, is f32.
  void Matmul(const Matrix& matrix, int64_t count, double tokens, bool is_layer) {
    const double times = static_cast<double>(count);
    const double out = tokens * matrix.n * (matrix.accumulates ? 2 : 1);
    kernels_.push_back(
        {.name = matrix.name,
         .kind = KernelKind::kMatmul,
         .count = count,
         .operations = times * 2 * tokens * matrix.n * matrix.k,
         .stored_bytes = times * BytesOf(dtypes_.weights, matrix.n * matrix.k),
         .activation_bytes = times * (Activations(tokens * matrix.k) +
                                      (is_layer ? Activations(out) : BytesOf(DType::kF32, out)))});
  }

  void Attention(double q) {
    const auto queries = static_cast<double>(shape_.queries);
    const auto context = static_cast<double>(shape_.context);
    // Query j of a sequence sees context - queries + j + 1 keys.
    const double keys = rows_ * queries * (context - queries + (queries + 1) / 2);
    kernels_.push_back({.name = "Attention",
                        .kind = KernelKind::kAttention,
                        .count = m_.layers,
                        .operations = m_.layers * 4 * keys * q,
                        .stored_bytes = rows_ * context * KvBytesPerToken(m_, dtypes_.kv),
                        .activation_bytes = m_.layers * Activations(2 * tokens_ * q)});
  }

  const ModelConfig& m_;
  const ModelDTypes dtypes_;
  const StepShape shape_;
  const double tokens_, rows_;
  std::vector<KernelWork> kernels_;
};

}  // namespace

std::vector<KernelWork> StepKernels(const ModelConfig& model, const ModelDTypes& dtypes,
                                    const StepShape& step) {
  return Step(model, dtypes, step).Kernels();
}

double WeightBytes(const ModelConfig& model, DType dtype) {
  return BytesOf(dtype, LayerParameters(model) + HeadParameters(model));
}

double StoredWeightBytes(const ModelConfig& model, DType dtype) {
  const int tables = model.tied_head ? 1 : 2;
  return BytesOf(dtype, LayerParameters(model) + tables * HeadParameters(model));
}

double KvBytesPerToken(const ModelConfig& model, DType dtype) {
  return BytesOf(dtype, 2.0 * model.layers * model.kv_heads * model.head_dim);
}

}  // namespace fairlead::bench

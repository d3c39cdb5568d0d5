// SPDX-License-Identifier: Apache-2.0
#include "tests/reference/reference_ops.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "tests/reference/dequantize.h"

namespace fairlead::reference {

float ReferenceWeight::At(int64_t row, int64_t col) const {
  return DequantizeElement(dtype(), data_.data(), row * cols() + col);
}

void ReferenceOps::Embed(Stream&, const EmbedArgs& args) const {
  const auto& table = static_cast<const ReferenceWeight&>(*args.table);
  const int64_t tokens = args.token.dim[0], hidden = table.cols();
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < hidden; ++i) {
      float& out = args.out.As<float>()[t * hidden + i];
      const float value = table.At(args.token.As<int32_t>()[t], i);
      out = args.accumulate ? out + value : value;
    }
  }
}

void ReferenceOps::RmsNorm(Stream&, const RmsNormArgs& args) const {
  const int64_t tokens = args.x.dim[0], columns = args.x.dim[1], hidden = args.weight.dim[0];
  for (int64_t t = 0; t < tokens; ++t) {
    const float* x = args.x.As<float>() + t * columns + args.column;
    float* out = args.out.As<float>() + t * columns + args.column;
    double sum_of_squares = 0;
    for (int64_t i = 0; i < hidden; ++i) sum_of_squares += double{x[i]} * x[i];
    const double rms = std::sqrt(sum_of_squares / static_cast<double>(hidden) + args.epsilon);
    for (int64_t i = 0; i < hidden; ++i) {
      const double y = x[i] / rms * args.weight.As<float>()[i];
      out[i] = static_cast<float>(args.accumulate ? out[i] + y : y);
    }
  }
}

void ReferenceOps::LayerNorm(Stream&, const LayerNormArgs& args) const {
  const int64_t tokens = args.x.dim[0], hidden = args.x.dim[1];
  for (int64_t t = 0; t < tokens; ++t) {
    const float* x = args.x.As<float>() + t * hidden;
    float* out = args.out.As<float>() + t * hidden;
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < hidden; ++i) mean += x[i] / static_cast<double>(hidden);
    for (int64_t i = 0; i < hidden; ++i) {
      variance += (x[i] - mean) * (x[i] - mean) / static_cast<double>(hidden);
    }
    for (int64_t i = 0; i < hidden; ++i) {
      double y = (x[i] - mean) / std::sqrt(variance + args.epsilon);
      if (args.weight) y *= args.weight.As<float>()[i];
      if (args.bias) y += args.bias.As<float>()[i];
      out[i] = static_cast<float>(y);
    }
  }
}

void ReferenceOps::Matmul(Stream&, const MatmulArgs& args) const {
  const auto& weight = static_cast<const ReferenceWeight&>(*args.weight);
  const int64_t tokens = args.x.dim[0], columns = args.out.dim[1];
  const int64_t cols = weight.cols();
  std::vector<float> row(static_cast<size_t>(cols));
  for (int64_t n = 0; n < weight.rows(); ++n) {
    for (int64_t k = 0; k < cols; ++k) row[k] = weight.At(n, k);
    for (int64_t t = 0; t < tokens; ++t) {
      const float* x = args.x.As<float>() + t * cols;
      float* out = args.out.As<float>() + t * columns + args.out_column + n;
      double sum = 0;
      for (int64_t k = 0; k < cols; ++k) sum += double{x[k]} * row[k];
      if (args.bias) sum += args.bias.As<float>()[n];
      if (args.accumulate) sum += *out;
      *out = static_cast<float>(sum);
    }
  }
}

double Activated(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGeluTanh:  // (1 + tanh(u)) / 2 without its cancellation
      return x / (1 + std::exp(-2 * std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::kGelu:  // 1 + erf(y) is erfc(-y)
      return x / 2 * std::erfc(-x / std::numbers::sqrt2);
    case Activation::kClampedSilu:
      return x / (1 + std::exp(-1.702 * x));
  }
  return 0;
}

void ReferenceOps::ActivateAndMul(Stream&, const ActivateAndMulArgs& args) const {
  const int64_t tokens = args.out.dim[0], ffn = args.out.dim[1];
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < ffn; ++i) {
      const float* x = args.x.As<float>() + t * (args.gated ? 2 * ffn : ffn) + i;
      double gate = x[0], up = args.gated ? x[ffn] : 1;
      if (args.activation == Activation::kClampedSilu) {
        // A NaN is neither smaller nor larger, so it stays.
        if (gate > args.limit) gate = args.limit;
        up = std::clamp<double>(up, -args.limit, args.limit) + 1;
      }
      args.out.As<float>()[t * ffn + i] = static_cast<float>(Activated(args.activation, gate) * up);
    }
  }
}

void ReferenceOps::GatherRows(Stream&, const GatherRowsArgs& args) const {
  const int64_t rows = args.row.dim[0], hidden = args.x.dim[1];
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < hidden; ++i) {
      args.out.As<float>()[r * hidden + i] =
          args.x.As<float>()[args.row.As<int32_t>()[r] * hidden + i];
    }
  }
}

void ReferenceOps::Scale(Stream&, const ScaleArgs& args) const {
  for (int64_t i = 0; i < args.x.elements(); ++i) {
    float& x = args.x.As<float>()[i];
    double y = double{x} * args.factor;
    if (args.soft_cap > 0) y = args.soft_cap * std::tanh(y / args.soft_cap);
    x = static_cast<float>(y);
  }
}

void ReferenceOps::SelectTokens(Stream&, const SelectTokensArgs& args) const {
  for (int64_t t = 0; t < args.token.dim[0]; ++t) {
    const int32_t source = args.source.As<int32_t>()[t];
    int32_t token = args.token.As<int32_t>()[t];
    if (source >= 0) token = std::max(args.drawn.As<int32_t>()[source], 0);
    args.out.As<int32_t>()[t] = token;
  }
}

void ReferenceOps::Pool(Stream&, const PoolArgs& args) const {
  const int64_t seqs = args.out.dim[0], hidden = args.out.dim[1];
  for (int64_t s = 0; s < seqs; ++s) {
    const int32_t* start = args.query_start.As<int32_t>() + s;
    int32_t begin = start[0], end = start[1];
    if (args.pooling == Pooling::kFirst) end = std::min(end, begin + 1);
    if (args.pooling == Pooling::kLast) begin = std::max(begin, end - 1);
    std::vector<double> pooled(static_cast<size_t>(hidden));
    double squares = 0;
    for (int64_t i = 0; i < hidden; ++i) {
      for (int32_t t = begin; t < end; ++t) pooled[i] += args.x.As<float>()[t * hidden + i];
      if (begin < end) pooled[i] /= end - begin;
      squares += pooled[i] * pooled[i];
    }
    const double norm = std::sqrt(squares) < 1e-12 ? 1e-12 : std::sqrt(squares);
    for (int64_t i = 0; i < hidden; ++i) {
      args.out.As<float>()[s * hidden + i] =
          static_cast<float>(args.normalize ? pooled[i] / norm : pooled[i]);
    }
  }
}

}  // namespace fairlead::reference

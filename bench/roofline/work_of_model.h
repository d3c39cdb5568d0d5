// SPDX-License-Identifier: Apache-2.0
// The bytes and operations of one step of a decoder, kernel by kernel, as models/decoder.cc
// launches them. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "models/config.h"

namespace fairlead::bench {

struct ModelDTypes {
  DType weights = DType::kBF16;
  DType kv = DType::kF16;
  DType activations = DType::kF32;
};

// `sequences` of which each brings `queries` new tokens and then has `context`, those included: a
// decode has one query, a prefill as many as the prompt. A token is drawn of each sequence.
struct StepShape {
  int64_t sequences = 1, queries = 1, context = 1;
};

enum class KernelKind { kMatmul, kAttention, kOther };

// A kernel, launched `count` times a step. Bytes and operations are of all of its launches.
struct KernelWork {
  std::string name = {};
  KernelKind kind = KernelKind::kOther;
  int64_t count = 1;
  double operations = 0;        // a multiply and an add are two; of matmuls and attention alone
  double stored_bytes = 0;      // weights and the KV cache: no cache of a chip holds them
  double activation_bytes = 0;  // read and written otherwise
};

// Linear layers: 2 tokens n k operations. Attention: 4 operations for each query, visible key and
// element of all heads; it reads the keys and values of the context once for each sequence.
std::vector<KernelWork> StepKernels(const ModelConfig& model, const ModelDTypes& dtypes,
                                    const StepShape& step);

// What one step reads of the weights: layers and head, no rows of the embedding table.
double WeightBytes(const ModelConfig& model, DType dtype);
// All matrices, as they lie in memory: with an embedding table of its own.
double StoredWeightBytes(const ModelConfig& model, DType dtype);
// Keys and values of one position in all layers.
double KvBytesPerToken(const ModelConfig& model, DType dtype);

}  // namespace fairlead::bench

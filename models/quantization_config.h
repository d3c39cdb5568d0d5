// SPDX-License-Identifier: Apache-2.0
// What config.json's "quantization_config" says about the weights of a Hugging Face folder.
// Sources: transformers' utils/quantization_config.py; compressed_tensors' quantization/*.py; the
// configs that GPTQModel and AutoAWQ write. Any thread.
//
// Weights only: activations are never quantised here, whatever "activation_scheme" or
// "input_activations" say. Their quantisation is a choice of speed, whose rounding no checkpoint
// relies on; vLLM, too, computes such checkpoints as 16-bit activations times quantised weights
// where the hardware has no product of the two. The same goes for "kv_cache_scheme":
// --kv-cache-dtype decides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/json.h"
#include "models/regex.h"

namespace fairlead {

enum class QuantMethod {
  kGptq,         // qweight, qzeros, scales, g_idx
  kAwq,          // qweight, qzeros, scales
  kFp8,          // weight and weight_scale_inv or weight_scale
  kPacked,       // compressed-tensors: weight_packed, weight_scale, weight_shape
  kPlainTensor,  // compressed-tensors: weight, of F8_E4M3 or I8, and weight_scale
};

// How some of the linear layers are quantised.
struct QuantScheme {
  QuantMethod method = QuantMethod::kGptq;
  int bits = 8;
  bool is_float = false;
  bool symmetric = true;
  // One scale for block_rows x block_cols weights; 0: for all rows, or all columns.
  int64_t block_rows = 1, block_cols = 0;
  bool blocks_known = true;     // FP8: the file's scales say whether there are blocks
  bool zeros_less_one = false;  // GPTQ: what is stored is the zero point less one
  bool act_order = false;
};

struct QuantizationConfig {
  std::string method;                // "gptq"
  std::vector<QuantScheme> schemes;  // none: all weights are plain
  // Which of several schemes a layer has, in the order of the groups and their targets; none where
  // there is one scheme.
  struct Pattern {
    std::string target;  // "re:" and a regular expression
    Regex regex;         // at the start of a name, as Python's re.match
    size_t scheme = 0;
  };
  std::vector<Pattern> patterns;
  absl::flat_hash_map<std::string, size_t> names;  // of layers, or their class, "Linear"
};

// `config` is a whole config.json. Nothing where it names no quantisation, or one that is not of
// linear layers (mxfp4, of experts). kInvalidArgument: malformed, or more groups, names or patterns
// than a config can need; says how many there are and may be. kUnimplemented: a method, a
// format or a parameter that we do not know; key, value and what is known.
absl::StatusOr<std::optional<QuantizationConfig>> ReadQuantizationConfig(const Json& config);

// Finds the schemes of a checkpoint's layers, in time linear in their names' bytes. One thread.
class SchemeFinder {
 public:
  // `config` must outlive it. `name_bytes`: of all layers that will be asked for.
  SchemeFinder(const QuantizationConfig& config, size_t name_bytes);

  // The scheme that `module` ("model.layers.0.mlp.up_proj") has; as compressed_tensors' match.py:
  // exact names first, then regular expressions, then the class. Null if none matches.
  // kInvalidArgument names a pattern that backtracks without end, and says if there are too many
  // layers for so many patterns.
  absl::StatusOr<const QuantScheme*> Find(std::string_view module);

 private:
  absl::Status Count(std::string_view module);

  const QuantizationConfig& config_;
  std::deque<Regex::Search> searches_;  // of config_.patterns
  size_t layers_ = 0, matched_bytes_ = 0;
};

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "models/quantized_tensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "kernels/strings.h"
#include "models/quantization_config.h"
#include "models/quantized_matrix.h"

namespace fairlead {
namespace {

// A tensor as the file has it, of any dtype.
struct FileTensor {
  std::string_view type;  // "I32", as safetensors names it
  absl::Span<const int64_t> dim;
  const std::byte* data;
  size_t bytes;

  int64_t elements() const {
    int64_t count = 1;
    for (const int64_t d : dim) count *= d;  // fits: the reader has checked it
    return count;
  }
};

// Parts of quantised weights, which must not be left over. ".g_idx" alone has no meaning either.
constexpr std::array<std::string_view, 11> kParts = {".qweight",
                                                     ".qzeros",
                                                     ".scales",
                                                     ".g_idx",
                                                     ".weight_packed",
                                                     ".weight_scale",
                                                     ".weight_shape",
                                                     ".weight_scale_inv",
                                                     ".weight_zero_point",
                                                     ".weight_g_idx",
                                                     ".weight_global_scale"};
// How activations or the KV cache are quantised: see quantization_config.h.
constexpr std::array<std::string_view, 10> kOfActivations = {
    ".input_scale", ".input_zero_point", ".input_global_scale", ".activation_scale",
    ".q_scale",     ".output_scale",     ".output_zero_point",  ".k_scale",
    ".v_scale",     ".prob_scale"};

template <size_t N>
bool EndsWithAny(std::string_view name, const std::array<std::string_view, N>& suffixes) {
  return std::any_of(suffixes.begin(), suffixes.end(),
                     [&](std::string_view suffix) { return name.ends_with(suffix); });
}

std::string_view TypeName(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
    default:
      return "I32";
  }
}

std::optional<ScaleType> ScaleTypeOf(std::string_view type) {
  if (type == "F32") return ScaleType::kF32;
  if (type == "F16") return ScaleType::kF16;
  if (type == "BF16") return ScaleType::kBF16;
  if (type == "F8_E8M0") return ScaleType::kE8M0;
  return std::nullopt;
}

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The dtype that the model was made for: what its quantised weights become when they are
// dequantised.
DType ModelDType(const CheckpointContents& contents) {
  const Json* config = &contents.config;
  for (int depth = 0; depth < 2 && config->is_object(); ++depth) {
    for (const char* key : {"dtype", "torch_dtype"}) {
      const auto found = config->find(key);
      if (found == config->end() || !found->is_string()) continue;
      const absl::string_view name =
          absl::StripPrefix(found->get_ref<const std::string&>(), "torch.");
      if (name == "float32") return DType::kF32;
      if (name == "float16") return DType::kF16;
      if (name == "bfloat16") return DType::kBF16;
    }
    const auto text = config->find("text_config");
    if (text == config->end()) break;
    config = &*text;
  }
  return DType::kBF16;
}

class Resolver {
 public:
  Resolver(CheckpointContents& contents, const QuantizationConfig& config)
      : contents_(contents), config_(config), model_dtype_(ModelDType(contents)) {
    for (const WeightInfo& t : contents.tensors)
      Index(t.name, {TypeName(t.dtype), t.dim, t.data, t.bytes});
    for (const SkippedTensor& t : contents.skipped)
      Index(t.name, {t.dtype, t.dim, t.data, t.bytes});
  }

  absl::Status Run() {
    if (!duplicate_.empty()) return Error(duplicate_, "comes twice");
    const std::vector<std::string> names = Names();
    size_t module_bytes = 0;
    for (const std::string& name : names) module_bytes += ModuleOf(name).size();
    SchemeFinder schemes(config_, module_bytes);
    for (const std::string& name : names) {
      if (absl::Status status = ResolveIfCodes(name, schemes); !status.ok()) return status;
    }
    const auto is_used = [&](const auto& tensor) {
      return used_.contains(tensor.name) || EndsWithAny(tensor.name, kOfActivations);
    };
    std::erase_if(contents_.tensors, is_used);
    std::erase_if(contents_.skipped, is_used);
    for (const std::string& name : Names()) {
      if (EndsWithAny(name, kParts))
        return Error(name, "belongs to no quantised weight of this folder");
    }
    std::move(made_.begin(), made_.end(), std::back_inserter(contents_.tensors));
    return absl::OkStatus();
  }

 private:
  void Index(const std::string& name, FileTensor tensor) {
    if (!files_.emplace(name, tensor).second) duplicate_ = name;
  }

  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const WeightInfo& tensor : contents_.tensors) names.push_back(tensor.name);
    for (const SkippedTensor& tensor : contents_.skipped) names.push_back(tensor.name);
    return names;
  }

  absl::Status InFile(const absl::Status& status) const {
    return absl::Status(status.code(), StrCat(contents_.path, ": ", std::string(status.message())));
  }

  absl::Status Error(std::string_view tensor, std::string_view what) const {
    return absl::InvalidArgumentError(
        StrCat(contents_.path, ": tensor ", Quoted(tensor), " ", what));
  }

  bool Has(QuantMethod method) const {
    return std::any_of(config_.schemes.begin(), config_.schemes.end(),
                       [&](const QuantScheme& scheme) { return scheme.method == method; });
  }

  // The layer whose codes `name` holds: "" if it holds none.
  std::string ModuleOf(const std::string& name) const {
    const bool words = Has(QuantMethod::kGptq) || Has(QuantMethod::kAwq);
    if (words && absl::EndsWith(name, ".qweight")) return name.substr(0, name.size() - 8);
    if (Has(QuantMethod::kPacked) && absl::EndsWith(name, ".weight_packed"))
      return name.substr(0, name.size() - 14);
    const bool bytes = Has(QuantMethod::kFp8) || Has(QuantMethod::kPlainTensor);
    if (!bytes || !absl::EndsWith(name, ".weight")) return "";
    const std::string_view type = files_.at(name).type;
    const bool is_codes = type == "F8_E4M3" || (type == "I8" && Has(QuantMethod::kPlainTensor));
    return is_codes ? name.substr(0, name.size() - 7) : "";
  }

  absl::Status ResolveIfCodes(const std::string& name, SchemeFinder& schemes) {
    const std::string module = ModuleOf(name);
    if (module.empty()) return absl::OkStatus();
    const absl::StatusOr<const QuantScheme*> found = schemes.Find(module);
    if (!found.ok()) return InFile(found.status());
    if (*found == nullptr)
      return Error(name, "is quantised, but is no target of quantization_config's groups");
    const QuantScheme& scheme = **found;
    const bool is_packed = absl::EndsWith(name, ".weight_packed");
    if (is_packed != (scheme.method == QuantMethod::kPacked))
      return Error(name, "is not of the format that quantization_config gives its layer");
    QuantizedMatrix matrix;
    absl::Status status = absl::OkStatus();
    switch (scheme.method) {
      case QuantMethod::kGptq:
      case QuantMethod::kAwq:
        status = ReadWords(module, scheme, matrix);
        break;
      case QuantMethod::kPacked:
        status = ReadPacked(module, scheme, matrix);
        break;
      case QuantMethod::kFp8:
      case QuantMethod::kPlainTensor:
        status = ReadBytes(module, scheme, matrix);
        break;
    }
    if (!status.ok()) return status;
    Add(module, name, scheme, matrix);
    return absl::OkStatus();
  }

  void Add(const std::string& module, const std::string& name, const QuantScheme& scheme,
           const QuantizedMatrix& matrix) {
    const DType dtype = ChooseDType(matrix, Otherwise(matrix.scale_type));
    made_.push_back(
        {.name = module + ".weight",
         .file_name = name,
         .dtype = dtype,
         .dim = {matrix.rows, matrix.cols},
         .data = nullptr,
         .bytes = RowBytes(dtype, matrix.cols) * static_cast<size_t>(matrix.rows),
         .make = [matrix, dtype](int64_t first, int64_t rows,
                                 std::byte* out) { MakeValues(matrix, dtype, first, rows, out); },
         .file_dtype = Describe(matrix, scheme)});
  }

  DType Otherwise(ScaleType scales) const {
    if (model_dtype_ == DType::kF32) return DType::kF32;
    if (scales == ScaleType::kF16) return DType::kF16;
    return scales == ScaleType::kBF16 ? DType::kBF16 : model_dtype_;
  }

  std::string Describe(const QuantizedMatrix& m, const QuantScheme& scheme) const {
    std::string text = StrCat(config_.method, m.code_layout == CodeLayout::kF8E4M3 ? " e4m3 "
                                              : m.bits == 4                        ? " int4 "
                                                                                   : " int8 ");
    if (scheme.block_rows == 1 && scheme.block_cols > 0) {
      StrAppend(&text, "g", scheme.block_cols);
    } else if (m.block_rows == scheme.block_rows && m.block_cols == scheme.block_cols) {
      StrAppend(&text, m.block_rows, "x", m.block_cols);
    } else {
      StrAppend(&text, m.block_rows >= m.rows ? "per tensor" : "per channel");
    }
    return m.group_of ? text + " act-order" : text;
  }

  // Null if there is none.
  const FileTensor* Take(const std::string& name) {
    const auto found = files_.find(name);
    if (found == files_.end()) return nullptr;
    used_.insert(name);
    return &found->second;
  }

  // A part that must be there: its dtype is `type`, its shape `dim`.
  absl::StatusOr<FileTensor> Require(const std::string& name, std::string_view type,
                                     std::optional<std::vector<int64_t>> dim, size_t rank = 2) {
    const FileTensor* tensor = Take(name);
    if (tensor == nullptr) return Error(name, "is missing");
    if (tensor->type != type)
      return Error(name, StrCat("has dtype ", tensor->type, "; it must be ", type));
    if (dim && tensor->dim != absl::MakeConstSpan(*dim)) {
      return Error(
          name, StrCat("has the shape ", ShapeText(tensor->dim), "; it must be ", ShapeText(*dim)));
    }
    if (tensor->dim.size() != rank || tensor->elements() == 0) {
      return Error(name, StrCat("has the shape ", ShapeText(tensor->dim), "; it must have ", rank,
                                " dimensions and elements"));
    }
    return *tensor;
  }

  // Sets the blocks that the scheme gives the matrix, whose rows and cols are known.
  static void SetBlocks(const QuantScheme& scheme, QuantizedMatrix& m) {
    m.block_rows = scheme.block_rows == 0 ? m.rows : scheme.block_rows;
    m.block_cols = scheme.block_cols == 0 ? m.cols : scheme.block_cols;
    m.groups = CeilDiv(m.cols, m.block_cols);
  }

  absl::Status SetScaleType(const std::string& name, const FileTensor& tensor,
                            QuantizedMatrix& m) const {
    const std::optional<ScaleType> type = ScaleTypeOf(tensor.type);
    if (!type || (*type == ScaleType::kE8M0 && m.code_layout != CodeLayout::kF8E4M3)) {
      return Error(name, StrCat("has dtype ", tensor.type, "; it must be F32, F16 or BF16",
                                m.code_layout == CodeLayout::kF8E4M3 ? " or F8_E8M0" : ""));
    }
    m.scale_type = *type;
    m.scales = tensor.data;
    ReadSoon(tensor.data, tensor.bytes);
    return absl::OkStatus();
  }

  // GPTQ and AWQ: everything is [groups or inputs, outputs], codes and zero points in words.
  absl::Status ReadWords(const std::string& module, const QuantScheme& scheme, QuantizedMatrix& m) {
    const bool awq = scheme.method == QuantMethod::kAwq;
    const int64_t per_word = 32 / scheme.bits;
    const auto codes = Require(module + ".qweight", "I32", std::nullopt);
    if (!codes.ok()) return codes.status();
    m.bits = scheme.bits;
    m.code_layout = awq ? CodeLayout::kAwq : CodeLayout::kPackedColumns;
    m.zero_layout = awq ? ZeroLayout::kAwq : ZeroLayout::kPackedColumns;
    m.codes = codes->data;
    m.cols = codes->dim[0] * (awq ? 1 : per_word);
    m.rows = codes->dim[1] * (awq ? per_word : 1);
    if (m.rows % per_word != 0) {
      return Error(module + ".qweight",
                   StrCat("has ", m.rows, " outputs; they must be a multiple ", "of ", per_word));
    }
    SetBlocks(scheme, m);
    const std::string scales_name = module + ".scales";
    const FileTensor* scales = Take(scales_name);
    if (scales == nullptr) return Error(scales_name, "is missing");
    if (absl::Status status = SetScaleType(scales_name, *scales, m); !status.ok()) return status;
    if (const int64_t dim[] = {m.groups, m.rows}; scales->dim != absl::MakeConstSpan(dim)) {
      return Error(scales_name, StrCat("has the shape ", ShapeText(scales->dim), "; it must be ",
                                       ShapeText(dim)));
    }
    m.scale_row_step = 1;
    m.scale_group_step = m.rows;
    const auto zeros = Require(module + ".qzeros", "I32", {{m.groups, m.rows / per_word}});
    if (!zeros.ok()) return zeros.status();
    m.zeros = zeros->data;
    ReadSoon(zeros->data, zeros->bytes);
    // A one in each field of a word. The whole word is added to, carries included, as GPTQModel
    // does when it reads the first format and undoes when it writes it.
    if (scheme.zeros_less_one) m.zero_word_offset = ~uint32_t{0} / ((1u << m.bits) - 1);
    return awq ? absl::OkStatus() : ReadGroupIndex(module + ".g_idx", scheme, m);
  }

  // The group of each input. Without act-order it says what the group size says.
  absl::Status ReadGroupIndex(const std::string& name, const QuantScheme& scheme,
                              QuantizedMatrix& m) {
    const FileTensor* tensor = Take(name);
    if (tensor == nullptr) {
      return scheme.act_order && m.groups > 1 ? Error(name, "is missing; the layer has act-order")
                                              : absl::OkStatus();
    }
    if (tensor->type != "I32" || tensor->dim.size() != 1 || tensor->dim[0] != m.cols) {
      return Error(name, StrCat("is ", tensor->type, ShapeText(tensor->dim), "; it must be I32[",
                                m.cols, "]"));
    }
    auto groups = std::make_shared<std::vector<int32_t>>(static_cast<size_t>(m.cols));
    std::memcpy(groups->data(), tensor->data, tensor->bytes);
    // As compressed-tensors has it where nothing is reordered.
    if (std::all_of(groups->begin(), groups->end(), [](int32_t g) { return g == -1; }))
      return absl::OkStatus();
    bool in_order = true;
    for (int64_t col = 0; col < m.cols; ++col) {
      const int32_t group = (*groups)[static_cast<size_t>(col)];
      if (group < 0 || group >= m.groups) {
        return Error(name, StrCat("holds the group ", group, " at ", col, "; there are ", m.groups,
                                  " groups"));
      }
      in_order = in_order && group == col / m.block_cols;
    }
    if (!in_order) m.group_of = std::move(groups);
    return absl::OkStatus();
  }

  // Scales [row blocks, groups]; [row blocks] where there is one group, any shape of one element
  // where there is one scale.
  absl::Status ReadScales(const std::string& name, QuantizedMatrix& m) {
    const FileTensor* scales = Take(name);
    if (scales == nullptr) return Error(name, "is missing");
    if (absl::Status status = SetScaleType(name, *scales, m); !status.ok()) return status;
    const int64_t row_blocks = CeilDiv(m.rows, m.block_rows);
    const int64_t dim[] = {row_blocks, m.groups};
    const auto want = absl::MakeConstSpan(dim);
    const bool one = row_blocks * m.groups == 1 && scales->elements() == 1;
    if (!one && scales->dim != want && !(m.groups == 1 && scales->dim == want.first(1))) {
      return Error(
          name, StrCat("has the shape ", ShapeText(scales->dim), "; it must be ", ShapeText(want)));
    }
    m.scale_row_step = m.block_rows >= m.rows ? 0 : m.groups;
    m.scale_group_step = 1;
    return absl::OkStatus();
  }

  // What a scheme without zero points may have in the file: zeros, or, packed, what stands for
  // them.
  absl::Status CheckOfZeros(const std::string& name, const FileTensor* zeros, int bits) const {
    if (zeros == nullptr || zeros->bytes == 0) return absl::OkStatus();
    const std::byte first = zeros->data[0];
    const std::byte packed{static_cast<uint8_t>(bits == 4 ? 0x88 : 0x80)};
    const bool stands_for_zero = first == std::byte{0} || (zeros->type == "I32" && first == packed);
    const bool uniform = std::all_of(zeros->data, zeros->data + zeros->bytes,
                                     [first](std::byte b) { return b == first; });
    if (uniform && stands_for_zero) return absl::OkStatus();
    return Error(name, "holds zero points; the config's scheme has none (it is symmetric)");
  }

  // Packed along the rows, or bytes of the scales' shape.
  absl::Status ReadZeros(const std::string& name, const QuantScheme& scheme, QuantizedMatrix& m) {
    const FileTensor* zeros = Take(name);
    if (scheme.symmetric || scheme.is_float) return CheckOfZeros(name, zeros, m.bits);
    if (zeros == nullptr) return Error(name, "is missing");
    const int64_t per_word = 32 / m.bits;
    const int64_t row_blocks = CeilDiv(m.rows, m.block_rows);
    if (zeros->type == "I8" && zeros->elements() == row_blocks * m.groups) {
      m.zero_layout = ZeroLayout::kInt8;
    } else if (const int64_t dim[] = {CeilDiv(m.rows, per_word), m.groups};
               m.code_layout == CodeLayout::kPackedRows && m.block_rows == 1 &&
               zeros->type == "I32" && zeros->dim == absl::MakeConstSpan(dim)) {
      m.zero_layout = ZeroLayout::kPackedRows;
    } else {
      return Error(name, StrCat("is ", zeros->type, ShapeText(zeros->dim),
                                "; it must be a byte for each scale, or packed along the rows"));
    }
    m.zeros = zeros->data;
    ReadSoon(zeros->data, zeros->bytes);
    return absl::OkStatus();
  }

  absl::Status ReadPacked(const std::string& module, const QuantScheme& scheme,
                          QuantizedMatrix& m) {
    const std::string name = module + ".weight_packed";
    const auto codes = Require(name, "I32", std::nullopt);
    if (!codes.ok()) return codes.status();
    const FileTensor* shape = Take(module + ".weight_shape");
    if (shape == nullptr) return Error(module + ".weight_shape", "is missing");
    const bool is_long = shape->type == "I64";
    if ((!is_long && shape->type != "I32") || shape->elements() != 2)
      return Error(module + ".weight_shape", "must be two integers");
    int64_t dim[2];
    for (int i = 0; i < 2; ++i) {
      int32_t small = 0;
      if (is_long) std::memcpy(&dim[i], shape->data + 8 * i, sizeof(dim[i]));
      if (!is_long) std::memcpy(&small, shape->data + 4 * i, sizeof(small));
      if (!is_long) dim[i] = small;
    }
    m.bits = scheme.bits;
    m.code_layout = CodeLayout::kPackedRows;
    m.codes = codes->data;
    const int64_t per_word = 32 / m.bits;
    const int64_t most = codes->dim[1] * per_word;
    if (dim[0] != codes->dim[0] || dim[1] > most || dim[1] <= most - per_word) {
      return Error(module + ".weight_shape", StrCat("is ", ShapeText(dim), ", but ", Quoted(name),
                                                    " has the shape ", ShapeText(codes->dim)));
    }
    m.rows = dim[0];
    m.cols = dim[1];
    m.zero_point = 1 << (m.bits - 1);
    return ReadCompressedParts(module, scheme, m);
  }

  absl::Status ReadCompressedParts(const std::string& module, const QuantScheme& scheme,
                                   QuantizedMatrix& m) {
    SetBlocks(scheme, m);
    absl::Status status = ReadScales(module + ".weight_scale", m);
    if (status.ok()) status = ReadZeros(module + ".weight_zero_point", scheme, m);
    if (status.ok()) status = ReadGroupIndex(module + ".weight_g_idx", scheme, m);
    return status;
  }

  // Codes of a byte each, as the weight's own tensor.
  absl::Status ReadBytes(const std::string& module, const QuantScheme& scheme, QuantizedMatrix& m) {
    const auto codes =
        Require(module + ".weight", scheme.is_float ? "F8_E4M3" : "I8", std::nullopt);
    if (!codes.ok()) return codes.status();
    m.code_layout = scheme.is_float ? CodeLayout::kF8E4M3 : CodeLayout::kInt8;
    m.codes = codes->data;
    m.rows = codes->dim[0];
    m.cols = codes->dim[1];
    if (scheme.method == QuantMethod::kPlainTensor) return ReadCompressedParts(module, scheme, m);
    const bool inverse = files_.contains(module + ".weight_scale_inv");
    const std::string name = module + (inverse ? ".weight_scale_inv" : ".weight_scale");
    QuantScheme blocks = scheme;
    if (const auto found = files_.find(name); found != files_.end() && !scheme.blocks_known) {
      // One scale for all, or one for each row, where the config does not say.
      const int64_t count = found->second.elements();
      if (count == 1) blocks.block_rows = blocks.block_cols = 0;
      if (count == m.rows && scheme.block_rows == 0) blocks.block_rows = 1;
    }
    SetBlocks(blocks, m);
    return ReadScales(name, m);
  }

  CheckpointContents& contents_;
  const QuantizationConfig& config_;
  const DType model_dtype_;
  absl::flat_hash_map<std::string, FileTensor> files_;
  std::string duplicate_;
  absl::flat_hash_set<std::string> used_;
  std::vector<WeightInfo> made_;
};

}  // namespace

absl::Status ResolveQuantizedTensors(CheckpointContents& contents) {
  const absl::StatusOr<std::optional<QuantizationConfig>> config =
      ReadQuantizationConfig(contents.config);
  if (!config.ok()) {
    return absl::Status(
        config.status().code(),
        StrCat(contents.path, "/config.json: ", std::string(config.status().message())));
  }
  if (!*config || (*config)->schemes.empty()) return absl::OkStatus();
  return Resolver(contents, **config).Run();
}

}  // namespace fairlead

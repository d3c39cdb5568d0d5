// SPDX-License-Identifier: Apache-2.0
#include "models/dummy_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <random>
#include <utility>

#include "kernels/half.h"
#include "kernels/strings.h"
#include "models/decoder_parts.h"
#include "models/json_file.h"
#include "models/latent_attention.h"
#include "models/mmap_file.h"
#include "models/registry.h"
#include "models/tokenizer_configs.h"

namespace fairlead {
namespace {

class DummyWeights final : public WeightSource {
 public:
  DummyWeights(std::string path, Json config)
      : path_(std::move(path)), config_(std::move(config)) {}

  WeightFormat format() const override { return WeightFormat::kSafetensors; }
  const std::string& path() const override { return path_; }
  const WeightInfo* Find(std::string_view name) const override {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &tensors_[found->second];
  }
  absl::Span<const WeightInfo> tensors() const override { return tensors_; }
  const Json& config() const override { return config_; }
  const Json& metadata() const override { return metadata_; }

  // The bytes live as long as this; tensors may share them.
  const std::byte* Keep(std::vector<std::byte> bytes) {
    return buffers_.emplace_back(std::move(bytes)).data();
  }
  void Add(std::string name, DType dtype, std::vector<int64_t> dim, const std::byte* data) {
    int64_t elements = 1;
    for (const int64_t d : dim) elements *= d;
    index_[name] = tensors_.size();
    tensors_.push_back({.name = name,
                        .file_name = name,
                        .dtype = dtype,
                        .dim = std::move(dim),
                        .data = data,
                        .bytes = RowBytes(dtype, elements)});
  }

 private:
  const std::string path_;
  const Json config_;
  const Json metadata_;
  std::vector<std::vector<std::byte>> buffers_;
  std::vector<WeightInfo> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
};

template <typename T>
void Put(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof(value));
}

// The scales of a q4_k or q5_k block: random ones of 6 bits, the root mean square of d * scale
// being `scale`, and minimums that centre the values: equal 6 bits with a dmin that is larger by
// `centre`.
void FillKBlock(float scale, float centre, std::mt19937_64& random, std::byte* block) {
  const float d = scale / 36.5f;  // sqrt(63 * 127 / 6), 0 to 63 being equally likely
  Put(block, F32ToF16(d));
  Put(block + 2, F32ToF16(d * centre));
  // The layout of the 12 bytes has the bits of scales and minimums apart but alike.
  const auto first = static_cast<uint32_t>(random());
  const auto nibbles = static_cast<uint32_t>(random()) & 0x0f0f0f0fu;
  Put(block + 4, first);
  Put(block + 8, first);
  Put(block + 12, nibbles | nibbles << 4);
}

// count: a multiple of 8.
void FillBytes(std::mt19937_64& random, std::byte* at, int count) {
  for (int i = 0; i < count; i += 8) Put(at + i, static_cast<uint64_t>(random()));
}

// Of iq4_nl, iq4_xs or mxfp4.
void FillIndices(DType dtype, float deviation, std::mt19937_64& random, std::byte* block) {
  constexpr float kIq4 = 67.4f, kFp4 = 5.85f;  // root mean squares of the tables
  if (dtype == DType::kMXFP4) {                // the power of two below or above, in proportion
    const float scale = deviation / kFp4;
    const int exponent = std::ilogb(scale);
    const float above = (scale * scale / std::ldexp(1.0f, 2 * exponent) - 1) / 3;
    const bool is_above = static_cast<float>(random() >> 40) * 0x1p-24f < above;
    Put(block, static_cast<uint8_t>(std::clamp(exponent + (is_above ? 1 : 0) + 128, 0, 254)));
    return FillBytes(random, block + 1, 16);
  }
  if (dtype == DType::kIQ4_NL) {  // the table's mean is not 0
    Put(block, F32ToF16(random() % 2 == 0 ? deviation / kIq4 : -deviation / kIq4));
    return FillBytes(random, block + 2, 16);
  }
  // 8 scales of 6 bits with a root mean square of 18.5.
  Put(block, F32ToF16(deviation / kIq4 / 18.5f));
  Put(block + 2, static_cast<uint16_t>(random()));
  Put(block + 4, static_cast<uint32_t>(random()));
  FillBytes(random, block + 8, 128);
}

// Of q3_k or q2_k.
void FillTwoBits(DType dtype, float deviation, std::mt19937_64& random, std::byte* block) {
  if (dtype == DType::kQ3_K) {  // -4 to 3, 16 scales as those of iq4_xs
    FillBytes(random, block, 104);
    Put(block + 104, static_cast<uint32_t>(random()));
    return Put(block + 108, F32ToF16(deviation / std::sqrt(5.5f) / 18.5f));
  }
  // 16 scales of 4 bits, and minimums that are the same and centre 0 to 3.
  for (int i = 0; i < 16; ++i) {
    const auto scale = static_cast<uint8_t>(random() & 15);
    block[i] = static_cast<std::byte>(scale | scale << 4);
  }
  FillBytes(random, block + 16, 64);
  const float d = deviation / std::sqrt(1.25f * 77.5f);  // variance of q, mean square of the scales
  Put(block + 80, F32ToF16(d));
  Put(block + 82, F32ToF16(1.5f * d));
}

// One block of random values whose standard deviation is `deviation`: uniform, so that every bit
// pattern of a quantised block comes up.
void FillBlock(DType dtype, float deviation, std::mt19937_64& random, std::byte* block) {
  // A uniform variable on [-1, 1] deviates by 1 / sqrt(3), one on 2n + 1 whole numbers by n /
  // sqrt(3) (n + 1/2 for an even number of them).
  const float reach = deviation * std::sqrt(3.0f);
  const auto uniform = [&] {
    return reach * (static_cast<float>(random() >> 40) * 0x1p-23f - 1.0f);
  };
  const auto fill_bytes = [&](std::byte* at, int count) { FillBytes(random, at, count); };
  switch (dtype) {
    case DType::kF32:
      return Put(block, uniform());
    case DType::kF16:
      return Put(block, F32ToF16(uniform()));
    case DType::kBF16:
      return Put(block, F32ToBF16(uniform()));
    case DType::kQ8_0:  // scale, 32 x int8
      Put(block, F32ToF16(reach / 128));
      return fill_bytes(block + 2, 32);
    case DType::kQ4_0:  // scale, 32 x (nibble - 8)
      Put(block, F32ToF16(reach / 8));
      return fill_bytes(block + 2, 16);
    case DType::kQ4_1:  // scale, least value, 32 x nibble
      Put(block, F32ToF16(reach / 8));
      Put(block + 2, F32ToF16(-reach / 8 * 7.5f));
      return fill_bytes(block + 4, 16);
    case DType::kQ5_0:  // scale, 32 fifth bits, 32 x (nibble - 16)
      Put(block, F32ToF16(reach / 16));
      Put(block + 2, static_cast<uint32_t>(random()));
      return fill_bytes(block + 6, 16);
    case DType::kQ5_1:  // scale, least value, 32 fifth bits, 32 x nibble
      Put(block, F32ToF16(reach / 16));
      Put(block + 2, F32ToF16(-reach / 16 * 15.5f));
      Put(block + 4, static_cast<uint32_t>(random()));
      return fill_bytes(block + 8, 16);
    case DType::kQ4_K:
      FillKBlock(reach / 8, 7.5f, random, block);
      return fill_bytes(block + 16, 128);
    case DType::kQ5_K:
      FillKBlock(reach / 16, 15.5f, random, block);
      return fill_bytes(block + 16, 160);
    case DType::kQ6_K:  // 256 x 6 bits, 16 x int8 with a root mean square of 73.9, scale
      fill_bytes(block, 208);
      return Put(block + 208, F32ToF16(reach / 32 / 73.9f));
    case DType::kIQ4_NL:
    case DType::kMXFP4:
    case DType::kIQ4_XS:
      return FillIndices(dtype, deviation, random, block);
    case DType::kQ3_K:
    case DType::kQ2_K:
      return FillTwoBits(dtype, deviation, random, block);
    case DType::kI32:
    case DType::kF8_E4M3:
      break;
  }
}

class DummyMaker {
 public:
  DummyMaker(DummyWeights& weights, const ModelConfig& config, DType dtype, uint64_t seed)
      : weights_(weights), config_(config), dtype_(dtype), random_(seed) {}

  absl::Status Make() {
    const int64_t hidden = config_.hidden;
    absl::Status status = Matrix("model.embed_tokens", {config_.vocab, hidden}, /*bias=*/false);
    if (!config_.tied_head) {
      status.Update(Matrix("lm_head", {config_.vocab, hidden}, /*bias=*/false));
    }
    AddVector(FinalNormOf(config_));
    for (int i = 0; i < config_.layers; ++i) status.Update(AddLayer(i));
    return status;
  }

 private:
  absl::Status AddLayer(int index) {
    absl::Status status;
    LayerLinears linears = LinearsOf(config_, index, weights_);
    if (config_.is_latent()) {  // as files have them
      for (const LatentMatrix& matrix : LatentMatricesOf(config_, index)) {
        status.Update(Matrix(matrix.module, {matrix.rows, matrix.cols}, /*bias=*/false));
      }
      linears.qkv = linears.attention_out = linears.q_down = linears.kv_down = linears.kv = {};
    }
    for (const auto* spec : linears.all()) {
      for (size_t m = 0; m < spec->modules.size(); ++m) {
        status.Update(Matrix(spec->modules[m], {spec->rows[m], spec->cols}, spec->bias));
      }
    }
    const LayerVectors vectors = VectorsOf(config_, index);
    for (const VectorSpec* spec : vectors.all()) AddVector(*spec);
    if (config_.layer[index].experts) {
      status.Update(AddExperts(GateUpExpertsOf(config_, index)));
      status.Update(AddExperts(DownExpertsOf(config_, index)));
    }
    return status;
  }

  absl::Status AddExperts(const ParameterLoader::ExpertsSpec& spec) {
    absl::Status status;
    for (const std::vector<std::string>& modules : spec.modules) {
      for (const std::string& module : modules) {
        std::vector<int64_t> dim = {spec.rows, spec.cols};
        if (spec.stacked) dim.insert(dim.begin(), spec.count);
        status.Update(Matrix(module, dim, spec.bias));
      }
    }
    return status;
  }

  // What the module is called without its layer's number: its tensors are the same in all layers,
  // and have their bytes once.
  static std::string Role(const std::string& name) {
    constexpr std::string_view kLayers = "model.layers.";
    if (!name.starts_with(kLayers)) return name;
    return name.substr(name.find('.', kLayers.size()));
  }

  absl::Status Matrix(const std::string& module, std::vector<int64_t> dim, bool bias) {
    const DTypeInfo& info = Info(dtype_);
    const int64_t cols = dim.back();
    if (cols % info.block_elements != 0) {
      return absl::InvalidArgumentError(StrCat(module, ": a row has ", cols,
                                               " values, no multiple of the ", info.block_elements,
                                               " of a ", info.name, " block"));
    }
    const std::byte*& data = made_[Role(module)];
    if (data == nullptr) {
      size_t bytes = RowBytes(dtype_, cols);
      for (size_t i = 0; i + 1 < dim.size(); ++i) bytes *= static_cast<size_t>(dim[i]);
      data = RandomBytes(bytes, cols);
    }
    weights_.Add(module + ".weight", dtype_, dim, data);
    dim.pop_back();
    if (bias) AddVector(module + ".bias", dim, 0);
    return absl::OkStatus();
  }

  const std::byte* RandomBytes(size_t count, int64_t cols) {
    std::vector<std::byte> bytes(count);
    const float deviation = 1 / std::sqrt(static_cast<float>(cols));
    for (size_t at = 0; at < count; at += static_cast<size_t>(Info(dtype_).block_bytes)) {
      FillBlock(dtype_, deviation, random_, bytes.data() + at);
    }
    return weights_.Keep(std::move(bytes));
  }

  // None without a name.
  void AddVector(const VectorSpec& spec) {
    if (spec.name.empty()) return;
    AddVector(spec.name, {spec.size}, spec.norm ? 1 - config_.norm_offset : 0);
  }

  void AddVector(const std::string& name, std::vector<int64_t> dim, float value) {
    const std::byte*& data = made_[Role(name)];
    if (data == nullptr) {
      size_t count = sizeof(float);
      for (const int64_t size : dim) count *= static_cast<size_t>(size);
      std::vector<std::byte> bytes(count);
      for (size_t at = 0; at < count; at += sizeof(float)) Put(bytes.data() + at, value);
      data = weights_.Keep(std::move(bytes));
    }
    weights_.Add(name, DType::kF32, std::move(dim), data);
  }

  DummyWeights& weights_;
  const ModelConfig& config_;
  const DType dtype_;
  std::mt19937_64 random_;
  std::map<std::string, const std::byte*> made_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WeightSource>> MakeDummyWeights(const std::string& path, DType dtype,
                                                               uint64_t seed) {
  if (!IsWeightType(dtype)) {
    return absl::InvalidArgumentError(StrCat(Info(dtype).name, " is not a dtype of weights"));
  }
  const std::string file_name = (std::filesystem::path(path) / "config.json").string();
  const absl::StatusOr<MmapFile> file = MmapFile::Open(file_name, kMaxConfigBytes);
  if (!file.ok()) return file.status();
  absl::StatusOr<Json> json = ParseJson(TextOf(*file));
  if (!json.ok()) {
    return absl::Status(json.status().code(),
                        StrCat(file_name, ": ", std::string(json.status().message())));
  }
  auto weights = std::make_unique<DummyWeights>(path, *std::move(json));
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(*weights);
  if (!config.ok()) return config.status();
  if (absl::Status status = DummyMaker(*weights, *config, dtype, seed).Make(); !status.ok())
    return status;
  return weights;
}

}  // namespace fairlead

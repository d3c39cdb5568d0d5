// SPDX-License-Identifier: Apache-2.0
#include "models/rope.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <string>
#include <string_view>

#include "absl/strings/str_join.h"
#include "kernels/check.h"
#include "kernels/strings.h"
#include "models/config_reader.h"

namespace fairlead {
namespace {

constexpr double kMaxTheta = 1e12;
constexpr double kMaxFactor = 1e6;
constexpr int kMaxPositions = 1 << 28;
constexpr std::array<absl::string_view, 6> kScalingTypes = {"default", "linear",   "llama3",
                                                            "yarn",    "longrope", "su"};
// What a scaling object may hold. rope_theta and partial_rotary_factor stand there in the newer
// form.
constexpr std::array<absl::string_view, 16> kScalingKeys = {
    "rope_type",        "type",
    "factor",           "low_freq_factor",
    "rope_theta",       "partial_rotary_factor",
    "high_freq_factor", "original_max_position_embeddings",
    "beta_fast",        "beta_slow",
    "truncate",         "attention_factor",
    "mscale",           "mscale_all_dim",
    "short_factor",     "long_factor"};
constexpr std::string_view kFullAttention = "full_attention";
constexpr std::string_view kSlidingAttention = "sliding_attention";

// The object that holds the scaling's parameters, null if the config has none. Files from the time
// of the change have both, alike.
absl::StatusOr<const Json*> FindScaling(const ConfigReader& reader) {
  const Json* older = reader.Find("rope_scaling");
  const Json* newer = reader.Find("rope_parameters");
  if (older != nullptr && newer != nullptr && *older != *newer) {
    return absl::InvalidArgumentError(StrCat("config keys \"rope_scaling\" (", ShortDump(*older),
                                             ") and \"rope_parameters\" (", ShortDump(*newer),
                                             ") contradict each other"));
  }
  return newer != nullptr ? newer : older;
}

absl::Status CheckScalingKeys(const Json& scaling) {
  for (const auto& [key, value] : scaling.items()) {
    if (value.is_null()) continue;
    if (std::find(kScalingKeys.begin(), kScalingKeys.end(), key) == kScalingKeys.end()) {
      return absl::UnimplementedError(
          StrCat("RoPE parameter ", ShortDump(Json(key)),
                 " is not supported; known: ", absl::StrJoin(kScalingKeys, ", ")));
    }
  }
  return absl::OkStatus();
}

// 0.1 m ln(factor) + 1 of YaRN (Peng et al., arXiv 2309.00071, equation 22), m being DeepSeek's.
double YarnScale(double factor, double m) {
  return factor <= 1 ? 1 : 0.1 * m * std::log(factor) + 1;
}

void ReadYarn(RopeConfig& rope, ConfigReader& parameters, ConfigReader& reader) {
  rope.scaling = RopeScaling::kYarn;
  const int longest = reader.Int("max_position_embeddings", 1, kMaxPositions, 2048);
  rope.original_positions =
      parameters.Int("original_max_position_embeddings", 1, kMaxPositions, longest);
  rope.factor = parameters.Real("factor", 1, kMaxFactor);
  rope.beta_fast = parameters.Real("beta_fast", 1e-3, kMaxFactor, 32);
  rope.beta_slow = parameters.Real("beta_slow", 1e-3, kMaxFactor, 1);
  rope.truncate = parameters.Bool("truncate", true);
  const double mscale = parameters.Real("mscale", 0, kMaxFactor, 0);
  const double all_dim = parameters.Real("mscale_all_dim", 0, kMaxFactor, 0);
  const double fallback = mscale > 0 && all_dim > 0
                              ? YarnScale(rope.factor, mscale) / YarnScale(rope.factor, all_dim)
                              : YarnScale(rope.factor, 1);
  rope.attention_factor = parameters.Real("attention_factor", 1e-3, kMaxFactor, fallback);
  if (all_dim > 0) {
    const double scale = YarnScale(rope.factor, all_dim);
    rope.softmax_factor = scale * scale;
  }
}

std::vector<float> ReadFactors(std::string_view key, ConfigReader& parameters) {
  std::vector<float> factors;
  const Json* list = parameters.Find(key);
  if (list == nullptr || !list->is_array()) list = nullptr;
  for (size_t i = 0; list != nullptr && i < list->size(); ++i) {
    const double value = (*list)[i].is_number() ? (*list)[i].get<double>() : 0;
    if (!(value >= 1e-6 && value <= kMaxFactor)) list = nullptr;
    factors.push_back(static_cast<float>(value));
  }
  if (list == nullptr) {
    parameters.Fail(absl::InvalidArgumentError(StrCat("config key \"rope_scaling.", key,
                                                      "\" must be a list of numbers from 1e-06 to ",
                                                      kMaxFactor)));
  }
  return factors;
}

void ReadLongRope(RopeConfig& rope, ConfigReader& parameters, ConfigReader& reader) {
  rope.scaling = RopeScaling::kLongRope;
  const int longest = reader.Int("max_position_embeddings", 1, kMaxPositions, 2048);
  const int outer = reader.Int("original_max_position_embeddings", 1, kMaxPositions, longest);
  rope.original_positions =
      parameters.Int("original_max_position_embeddings", 1, kMaxPositions, outer);
  rope.short_factors = ReadFactors("short_factor", parameters);
  rope.long_factors = ReadFactors("long_factor", parameters);
  const double original = rope.original_positions;
  const double factor = parameters.Real("factor", 1e-6, kMaxFactor, longest / original);
  const double fallback =
      factor <= 1 || original <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(original));
  rope.attention_factor = parameters.Real("attention_factor", 1e-3, kMaxFactor, fallback);
}

void ReadScaling(const Json& scaling, RopeConfig& rope, ConfigReader& reader) {
  ConfigReader parameters(scaling, "rope_scaling.");
  // A file with both keys means rope_type; "type" then says "mrope" where "rope_type" says
  // "default".
  const std::string type = parameters.String("rope_type", parameters.String("type", "default"));
  const std::string older_type = parameters.String("type", type);
  for (const std::string& name : {type, older_type}) {
    if (std::find(kScalingTypes.begin(), kScalingTypes.end(), name) == kScalingTypes.end()) {
      parameters.Fail(absl::UnimplementedError(
          StrCat("RoPE scaling type ", ShortDump(Json(name)),
                 " is not supported; known: ", absl::StrJoin(kScalingTypes, ", "))));
    }
  }
  if (parameters.ok()) parameters.Fail(CheckScalingKeys(scaling));
  if (type == "linear" || type == "llama3") {
    rope.scaling = type == "linear" ? RopeScaling::kLinear : RopeScaling::kLlama3;
    rope.factor = parameters.Real("factor", 1, kMaxFactor);
  }
  if (type == "yarn") ReadYarn(rope, parameters, reader);
  if (type == "longrope" || type == "su") ReadLongRope(rope, parameters, reader);
  if (type == "llama3") {
    rope.low_frequency_factor = parameters.Real("low_freq_factor", 1e-6, kMaxFactor);
    rope.high_frequency_factor = parameters.Real("high_freq_factor", 1e-6, kMaxFactor);
    rope.original_positions = parameters.Int("original_max_position_embeddings", 1, kMaxPositions);
    if (parameters.ok() && rope.low_frequency_factor >= rope.high_frequency_factor) {
      parameters.Fail(absl::InvalidArgumentError(
          StrCat("config key \"rope_scaling.low_freq_factor\" is ", rope.low_frequency_factor,
                 "; it must be below high_freq_factor (", rope.high_frequency_factor, ")")));
    }
  }
  reader.Fail(parameters.status());
}

// A number that may stand at the top, among the scaling's parameters, or at both if equal.
double ReadShared(std::string_view key, double min, double max, double fallback,
                  const Json* scaling, ConfigReader& reader) {
  const double outer = reader.Real(key, min, max, fallback);
  if (scaling == nullptr) return outer;
  ConfigReader parameters(*scaling, "rope_parameters.");
  const double inner = parameters.Real(key, min, max, outer);
  reader.Fail(parameters.status());
  if (reader.Find(key) != nullptr && inner != outer) {
    reader.Fail(absl::InvalidArgumentError(
        StrCat("config key \"", key, "\" is ", outer, ", but ", inner, " in rope_parameters")));
  }
  return inner;
}

int ReadRotaryDim(int head_dim, const Json* scaling, ConfigReader& reader) {
  const double fraction = ReadShared("partial_rotary_factor", 1e-6, 1, 1, scaling, reader);
  const int fallback = static_cast<int>(head_dim * fraction);
  const int rotary_dim = reader.Int("rotary_dim", 2, head_dim, fallback);
  if (rotary_dim < 2 || rotary_dim % 2 != 0) {
    reader.Fail(absl::InvalidArgumentError(
        StrCat("RoPE rotates ", rotary_dim, " of ", head_dim,
               " elements of a head; the number must be even and at least 2")));
  }
  return rotary_dim;
}

RopePairing ReadPairing(ConfigReader& reader) {
  const bool interleaved = reader.Bool("rope_interleave", false);
  const std::string pairing = reader.String("rope_pairing", interleaved ? "adjacent" : "halves");
  if (pairing == "adjacent") return RopePairing::kAdjacent;
  if (pairing != "halves") {
    reader.Fail(absl::InvalidArgumentError(StrCat("config key \"rope_pairing\" is ",
                                                  ShortDump(Json(pairing)),
                                                  "; it must be halves or adjacent")));
  }
  return RopePairing::kHalves;
}

void ReadDivisors(RopeConfig& rope, ConfigReader& reader) {
  const Json* divisors = reader.Find("rope_frequency_divisors");
  if (divisors == nullptr) return;
  const size_t expected = static_cast<size_t>(rope.rotary_dim / 2);
  if (!divisors->is_array() || divisors->size() != expected) {
    reader.Fail(absl::InvalidArgumentError(
        StrCat("RoPE frequency divisors (rope_freqs.weight): ", ShortDump(*divisors), "; ",
               expected, " numbers are needed, one for each pair that rotates")));
    return;
  }
  for (const Json& divisor : *divisors) {
    const double value = divisor.is_number() ? divisor.get<double>() : 0;
    if (!(value >= 1e-6 && value <= kMaxFactor)) {
      reader.Fail(absl::InvalidArgumentError(
          StrCat("RoPE frequency divisor (rope_freqs.weight) ", ShortDump(divisor),
                 "; it must be a number from 1e-06 to ", kMaxFactor)));
      return;
    }
    rope.divisors.push_back(static_cast<float>(value));
  }
  if (rope.scaling == RopeScaling::kLlama3 || rope.scaling == RopeScaling::kLongRope) {
    reader.Fail(absl::InvalidArgumentError(
        StrCat("RoPE scaling \"", rope.scaling == RopeScaling::kLlama3 ? "llama3" : "longrope",
               "\" and frequency divisors (rope_freqs.weight) together scale twice")));
  }
}

void CheckLongRope(const RopeConfig& rope, ConfigReader& reader) {
  if (rope.scaling != RopeScaling::kLongRope) return;
  const size_t pairs = static_cast<size_t>(rope.rotary_dim / 2);
  for (const std::vector<float>* factors : {&rope.short_factors, &rope.long_factors}) {
    if (factors->size() == pairs) continue;
    reader.Fail(absl::InvalidArgumentError(StrCat("RoPE scaling \"longrope\" has ", factors->size(),
                                                  " factors; ", pairs,
                                                  " are needed, one for each pair that rotates")));
  }
}

// Where the pairs that make so many rotations over the original context would stand (YaRN,
// "Find dimension by number of rotations" of the authors' code).
double YarnPair(const RopeConfig& rope, double rotations) {
  return rope.rotary_dim * std::log(rope.original_positions / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(rope.theta));
}

// How much of pair i is interpolated, 0 to 1: a ramp from the last pair that turns beta_fast times
// to the first that turns beta_slow times.
float YarnInterpolation(const RopeConfig& rope, size_t i) {
  double low = YarnPair(rope, rope.beta_fast), high = YarnPair(rope, rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, rope.rotary_dim - 1.0);
  if (low == high) high += 0.001;
  const float ramp =
      (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
  return std::clamp(ramp, 0.0f, 1.0f);
}

// The llama3 rule of transformers' modeling_rope_utils.py (after Meta's llama-models
// apply_scaling): wavelengths beyond original / low are stretched by `factor`, those under original
// / high stay, and between them the two are mixed linearly in original / wavelength. Reciprocals
// stand where torch evaluates scalar / tensor as one.
float ScaleLlama3(float frequency, const RopeConfig& rope) {
  const double original = rope.original_positions;
  const float longest = static_cast<float>(original / rope.low_frequency_factor);
  const float shortest = static_cast<float>(original / rope.high_frequency_factor);
  const float factor = static_cast<float>(rope.factor);
  const float wavelength = (1.0f / frequency) * static_cast<float>(2 * std::numbers::pi);
  if (wavelength > longest) return frequency / factor;
  if (wavelength < shortest) return frequency;
  const float range = static_cast<float>(rope.high_frequency_factor - rope.low_frequency_factor);
  const float smooth = ((1.0f / wavelength) * static_cast<float>(original) -
                        static_cast<float>(rope.low_frequency_factor)) /
                       range;
  return (1.0f - smooth) * frequency / factor + smooth * frequency;
}

}  // namespace

absl::StatusOr<RopeConfig> ParseRope(const Json& config, int head_dim) {
  ConfigReader reader(config);
  if (!reader.ok()) return reader.status();
  const absl::StatusOr<const Json*> scaling = FindScaling(reader);
  if (!scaling.ok()) return scaling.status();
  RopeConfig rope;
  if (*scaling != nullptr) ReadScaling(**scaling, rope, reader);
  if (!reader.ok()) return reader.status();
  const double theta = reader.Real("default_rope_theta", 1, kMaxTheta, 10000);  // Architecture's
  rope.theta = ReadShared("rope_theta", 1, kMaxTheta, theta, *scaling, reader);
  if (rope.scaling == RopeScaling::kYarn && rope.theta <= 1) {
    reader.Fail(absl::InvalidArgumentError(
        StrCat("config key \"rope_theta\" is ", rope.theta, "; YaRN needs one above 1")));
  }
  rope.rotary_dim = ReadRotaryDim(head_dim, *scaling, reader);
  rope.pairing = ReadPairing(reader);
  ReadDivisors(rope, reader);
  CheckLongRope(rope, reader);
  if (!reader.ok()) return reader.status();
  return rope;
}

absl::StatusOr<std::vector<RopeConfig>> ParseRopes(const Json& config, int head_dim) {
  std::vector<Json> each = {config};
  const ConfigReader reader(config);
  if (!reader.ok()) return reader.status();
  const Json* parameters = reader.Find("rope_parameters");
  if (parameters != nullptr && parameters->is_object() && parameters->contains(kFullAttention) &&
      parameters->contains(kSlidingAttention)) {
    each = {config, config};
    each[0]["rope_parameters"] = (*parameters)[kFullAttention];
    each[1]["rope_parameters"] = (*parameters)[kSlidingAttention];
  } else if (const Json* base = reader.Find("rope_local_base_freq"); base != nullptr) {
    each.push_back(config);
    each[1]["rope_theta"] = *base;
    each[1]["rope_scaling"] = each[1]["rope_parameters"] = nullptr;
  }
  std::vector<RopeConfig> ropes;
  for (const Json& one : each) {
    absl::StatusOr<RopeConfig> rope = ParseRope(one, head_dim);
    if (!rope.ok()) return rope.status();
    ropes.push_back(*std::move(rope));
  }
  return ropes;
}

std::vector<float> RopeInverseFrequencies(const RopeConfig& rope, int max_positions) {
  const std::vector<float>& factors =
      max_positions > rope.original_positions ? rope.long_factors : rope.short_factors;
  const size_t pairs = static_cast<size_t>(rope.rotary_dim / 2);
  FAIRLEAD_CHECK(rope.divisors.empty() || rope.divisors.size() == pairs);
  std::vector<float> frequencies(pairs);
  for (size_t i = 0; i < pairs; ++i) {
    // theta^(-2i / rotary_dim), Su et al., arXiv 2104.09864, section 3.4.2.
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rope.rotary_dim);
    const float power = std::pow(static_cast<float>(rope.theta), exponent);
    float frequency = 1.0f / power;
    if (rope.scaling == RopeScaling::kLinear) frequency /= static_cast<float>(rope.factor);
    if (rope.scaling == RopeScaling::kLlama3) frequency = ScaleLlama3(frequency, rope);
    if (rope.scaling == RopeScaling::kLongRope) frequency = 1.0f / (factors[i] * power);
    if (rope.scaling == RopeScaling::kYarn) {
      const float interpolated = 1.0f / (static_cast<float>(rope.factor) * power);
      const float kept = 1.0f - YarnInterpolation(rope, i);
      frequency = interpolated * (1.0f - kept) + frequency * kept;
    }
    if (!rope.divisors.empty()) frequency /= rope.divisors[i];
    frequencies[i] = frequency;
  }
  return frequencies;
}

// cos and sin of position * frequency, the product rounded to f32 as transformers does
// (modeling_llama.py, LlamaRotaryEmbedding.forward).
std::vector<float> RopeTable(const RopeConfig& rope, int max_positions) {
  const std::vector<float> frequency = RopeInverseFrequencies(rope, max_positions);
  const size_t half = frequency.size();
  std::vector<float> table(static_cast<size_t>(max_positions) * 2 * half);
  for (int position = 0; position < max_positions; ++position) {
    float* row = table.data() + static_cast<size_t>(position) * 2 * half;
    for (size_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(position) * frequency[i];
      const double factor = rope.attention_factor;
      row[i] = static_cast<float>(std::cos(static_cast<double>(angle)) * factor);
      row[half + i] = static_cast<float>(std::sin(static_cast<double>(angle)) * factor);
    }
  }
  return table;
}

}  // namespace fairlead

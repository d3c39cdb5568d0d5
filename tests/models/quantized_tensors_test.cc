// SPDX-License-Identifier: Apache-2.0
// Quantised folders: what their weights become, and folders whose metadata lies. Values are
// compared with the formats' own packages in decoder_test.cc.
#include "models/quantized_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <map>
#include <random>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "kernels/half.h"
#include "tests/models/checkpoint_bytes.h"
#include "tests/models/weight_rows.h"

namespace fairlead {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr auto kMalformed = absl::StatusCode::kInvalidArgument;
constexpr auto kUnknown = absl::StatusCode::kUnimplemented;

struct Form {
  const char* golden;
  const char* module;
  DType dtype;
  const char* file_dtype;
};

class GoldenForm : public ::testing::TestWithParam<Form> {};

TEST_P(GoldenForm, BecomesADTypeThatWeCompute) {
  const auto source = OpenWeights(absl::StrCat(FAIRLEAD_GOLDEN_DIR, "/models/", GetParam().golden));
  ASSERT_TRUE(source.ok()) << source.status();
  const std::string module = absl::StrCat("model.layers.", GetParam().module, "_proj");
  const WeightInfo* info = (*source)->Find(module + ".weight");
  ASSERT_NE(info, nullptr);
  EXPECT_EQ(info->dtype, GetParam().dtype);
  EXPECT_EQ(info->file_dtype, GetParam().file_dtype);
  EXPECT_EQ(info->bytes, RowBytes(info->dtype, info->dim[1]) * static_cast<size_t>(info->dim[0]));
  // Two layers of 7 matrices and 2 norms, the embedding, the head and the last norm.
  EXPECT_EQ((*source)->tensors().size(), 21u);
  EXPECT_TRUE((*source)->skipped().empty());
}

INSTANTIATE_TEST_SUITE_P(
    All, GoldenForm,
    ::testing::Values(
        Form{"fp8-block", "0.mlp.up", DType::kBF16, "fp8 e4m3 128x128"},
        Form{"fp8-tensor", "0.mlp.up", DType::kF32, "fp8 e4m3 per tensor"},
        Form{"gptq-int4", "0.mlp.up", DType::kQ4_0, "gptq int4 g32"},
        Form{"gptq-int4-asym", "0.mlp.up", DType::kQ5_0, "gptq int4 g64"},
        Form{"gptq-int4-act-order", "0.mlp.up", DType::kF16, "gptq int4 g32 act-order"},
        Form{"gptq-int8", "0.mlp.up", DType::kQ8_0, "gptq int8 g32"},
        Form{"awq-int4", "0.mlp.up", DType::kQ5_0, "awq int4 g64"},
        Form{"ct-int4", "0.mlp.down", DType::kQ4_0, "compressed-tensors int4 g128"},
        Form{"ct-int4-asym", "0.mlp.up", DType::kQ5_0, "compressed-tensors int4 g32"},
        Form{"ct-int8-packed", "0.mlp.up", DType::kF32, "compressed-tensors int8 per channel"},
        Form{"ct-int8", "0.mlp.up", DType::kQ8_0, "compressed-tensors int8 per channel"},
        Form{"ct-fp8-block", "0.mlp.down", DType::kBF16, "compressed-tensors e4m3 64x64"},
        Form{"ct-mixed", "1.self_attn.q", DType::kBF16, "compressed-tensors e4m3 per channel"},
        Form{"ct-mixed", "1.mlp.down", DType::kBF16, "compressed-tensors e4m3 per tensor"},
        Form{"ct-mixed", "1.mlp.gate", DType::kQ4_0, "compressed-tensors int4 g64"},
        Form{"ct-mixed", "0.mlp.down", DType::kBF16, ""}),
    [](const auto& info) {
      std::string name = absl::StrCat(info.param.golden, "_", info.param.module);
      std::replace_if(
          name.begin(), name.end(), [](char c) { return c == '-' || c == '.'; }, '_');
      return name;
    });

struct Part {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string data;
};
using Parts = std::map<std::string, Part>;

std::string Repeated(size_t count, std::string_view bytes) {
  std::string data;
  for (size_t i = 0; i < count; ++i) data += bytes;
  return data;
}

Part Words(std::vector<int64_t> shape, uint32_t word) {
  std::string bytes;
  Put(bytes, word);
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return {"I32", std::move(shape), Repeated(static_cast<size_t>(count), bytes)};
}

Part Halves(std::vector<int64_t> shape, float value, const std::string& dtype = "F16") {
  std::string bytes;
  Put(bytes, dtype == "F16" ? F32ToF16(value) : F32ToBF16(value));
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return {dtype, std::move(shape), Repeated(static_cast<size_t>(count), bytes)};
}

Part Floats(std::vector<int64_t> shape, float value) {
  std::string bytes;
  Put(bytes, value);
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return {"F32", std::move(shape), Repeated(static_cast<size_t>(count), bytes)};
}

Part OneByte(const std::string& dtype, std::vector<int64_t> shape, uint8_t byte) {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return {dtype, std::move(shape),
          std::string(static_cast<size_t>(count), static_cast<char>(byte))};
}

Part Longs(const std::vector<int64_t>& values) {
  std::string data;
  for (const int64_t value : values) Put(data, value);
  return {"I64", {static_cast<int64_t>(values.size())}, data};
}

class QuantizedFolder : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<WeightSource>> Open(const std::string& quantization,
                                                     const Parts& parts,
                                                     const std::string& dtype = "float16") {
    Json header = Json::object();
    std::string data;
    for (const auto& [name, part] : parts) {
      const size_t begin = data.size();
      data += part.data;
      header[name] = {
          {"dtype", part.dtype}, {"shape", part.shape}, {"data_offsets", {begin, data.size()}}};
    }
    folder_.Write("config.json", absl::StrCat("{\"torch_dtype\":\"", dtype,
                                              "\",\"quantization_config\":", quantization, "}"));
    folder_.Write("model.safetensors", SafetensorsFile(DumpJson(header), data));
    return OpenWeights(folder_.path());
  }

  void Refused(const std::string& quantization, const Parts& parts, absl::StatusCode code,
               const ::testing::Matcher<std::string>& message) {
    const auto source = Open(quantization, parts);
    ASSERT_FALSE(source.ok()) << quantization;
    EXPECT_EQ(source.status().code(), code) << source.status();
    EXPECT_THAT(std::string(source.status().message()), AllOf(StartsWith(folder_.path()), message));
  }

  // All values of m.weight, which is of floats.
  std::vector<float> Values(const std::string& quantization, const Parts& parts) {
    const auto source = Open(quantization, parts, "float32");
    EXPECT_TRUE(source.ok()) << source.status();
    if (!source.ok()) return {};
    const WeightInfo* info = (*source)->Find("m.weight");
    EXPECT_TRUE(info != nullptr && info->dtype == DType::kF32);
    std::vector<float> values(info->bytes / sizeof(float));
    const std::vector<std::byte> bytes = BytesByRows(*info);
    EXPECT_EQ(bytes.size(), info->bytes);
    std::memcpy(values.data(), bytes.data(), std::min(bytes.size(), info->bytes));
    return values;
  }

  TemporaryFolder folder_;
};

// 32 inputs, 8 outputs, two groups of 16: small enough that nothing but floats holds it.
constexpr char kGptq[] =
    R"({"quant_method":"gptq","bits":4,"group_size":16,"desc_act":false,"sym":false})";
Parts GptqParts() {
  return {{"m.qweight", Words({4, 8}, 0x76543210)},
          {"m.qzeros", Words({2, 1}, 0x76543210)},
          {"m.scales", Halves({2, 8}, 0.5f)}};
}
constexpr char kAwq[] = R"({"quant_method":"awq","bits":4,"group_size":16,"version":"GEMM"})";
Parts AwqParts() {
  return {{"m.qweight", Words({32, 1}, 0x76543210)},
          {"m.qzeros", Words({2, 1}, 0)},
          {"m.scales", Halves({2, 8}, 0.5f)}};
}
constexpr char kFp8[] = R"({"quant_method":"fp8","weight_block_size":[4,32]})";
Parts Fp8Parts() {
  return {{"m.weight", OneByte("F8_E4M3", {8, 48}, 0xc1)},
          {"m.weight_scale_inv", Floats({2, 2}, 0.5f)}};
}
std::string Compressed(const std::string& format, const std::string& weights) {
  return absl::StrCat(R"({"quant_method":"compressed-tensors","format":")", format,
                      R"(","config_groups":{"group_0":{"targets":["Linear"],"weights":)", weights,
                      "}}}");
}
const std::string kPacked =
    Compressed("pack-quantized", R"({"num_bits":4,"strategy":"group","group_size":16})");
Parts PackedParts() {
  return {{"m.weight_packed", Words({3, 4}, 0x76543210)},
          {"m.weight_scale", Halves({3, 2}, 0.5f)},
          {"m.weight_shape", Longs({3, 30})}};
}

// The first format's zero points are stored less one, of the whole word: GPTQModel's conversion.
TEST_F(QuantizedFolder, GptqZeroPoints) {
  const std::vector<float> first = Values(kGptq, GptqParts());
  ASSERT_EQ(first.size(), 8u * 32);
  for (int row = 0; row < 8; ++row) {
    for (int col = 0; col < 32; ++col) {
      const int code = col % 8;
      EXPECT_EQ(first[row * 32 + col], 0.5f * static_cast<float>(code - (row + 1)));
    }
  }
  std::string second = kGptq;
  second.insert(1, R"("checkpoint_format":"gptq_v2",)");
  const std::vector<float> plain = Values(second, GptqParts());
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(plain[i], first[i] + 0.5f);
  // Of zero points 0 and 5 the package writes 0x50 - 0x11 = 0x3f in the low byte: it borrows.
  Parts borrowed = GptqParts();
  borrowed["m.qzeros"] = Words({2, 1}, 0x5550 - 0x11111111u);
  const std::vector<float> zero = Values(kGptq, borrowed);
  EXPECT_EQ(zero[7], 0.5f * 7);
  EXPECT_EQ(zero[32 + 7], 0.5f * (7 - 5));
}

TEST_F(QuantizedFolder, AwqOrderOfOutputs) {
  const std::vector<float> values = Values(kAwq, AwqParts());
  ASSERT_EQ(values.size(), 8u * 32);
  const int order[8] = {0, 2, 4, 6, 1, 3, 5, 7};  // the outputs in a word, from its low end
  for (int place = 0; place < 8; ++place)
    EXPECT_EQ(values[order[place] * 32 + 5], 0.5f * static_cast<float>(place));
}

TEST_F(QuantizedFolder, Fp8BlocksAtTheEdge) {
  Parts parts = Fp8Parts();
  std::string scales;
  for (const float scale : {1.0f, 2.0f, 4.0f, 8.0f}) Put(scales, scale);
  parts["m.weight_scale_inv"].data = scales;
  const std::vector<float> values = Values(kFp8, parts);
  ASSERT_EQ(values.size(), 8u * 48);
  const float code = -2.25f;  // 0xc1: sign, exponent 8 - 7, 1 + 1/8
  EXPECT_EQ(values[0], code);
  EXPECT_EQ(values[3 * 48 + 31], code);
  EXPECT_EQ(values[3 * 48 + 32], 2 * code);
  EXPECT_EQ(values[4 * 48 + 31], 4 * code);
  EXPECT_EQ(values[7 * 48 + 47], 8 * code);
  parts["m.weight_scale_inv"] = OneByte("F8_E8M0", {2, 2}, 126);
  EXPECT_EQ(Values(kFp8, parts)[0], code / 2);
}

TEST_F(QuantizedFolder, EveryE4M3Value) {
  Parts parts = {{"m.weight", OneByte("F8_E4M3", {8, 32}, 0)},
                 {"m.weight_scale", Floats({}, 1.0f)}};
  for (int i = 0; i < 256; ++i) parts["m.weight"].data[i] = static_cast<char>(i);
  const std::vector<float> values = Values(R"({"quant_method":"fp8"})", parts);
  for (int i = 0; i < 256; ++i) {
    if (i % 128 == 127) {
      EXPECT_TRUE(std::isnan(values[i]));
    } else {
      EXPECT_EQ(F32ToF8E4M3(values[i]), i);
    }
  }
}

TEST_F(QuantizedFolder, ScalesThatHalfDoesNotHold) {
  const std::string config = Compressed("pack-quantized", R"({"num_bits":4,"strategy":"channel"})");
  for (const auto& [scale, dtype] :
       {std::pair{0.5f, DType::kQ4_0}, {0x1p-24f, DType::kQ4_0}, {0x1p-25f, DType::kBF16}}) {
    const Parts parts = {{"m.weight_packed", Words({8, 4}, 0)},
                         {"m.weight_scale", Halves({8, 1}, scale, "BF16")},
                         {"m.weight_shape", Longs({8, 32})}};
    const auto source = Open(config, parts);
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_EQ((*source)->Find("m.weight")->dtype, dtype) << scale;
  }
}

TEST_F(QuantizedFolder, PlainWeightsAreTakenAsTheyAre) {
  Parts parts = GptqParts();
  parts["lm_head.weight"] = Halves({8, 32}, 1);
  const auto source = Open(kGptq, parts);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_FALSE((*source)->Find("lm_head.weight")->make);
  EXPECT_EQ((*source)->tensors().size(), 2u);
}

// Without act-order in the config a group index may still be there, in order or not.
TEST_F(QuantizedFolder, GroupIndices) {
  Parts parts = GptqParts();
  Part index = Words({32}, 0);
  for (int i = 16; i < 32; ++i) index.data[4 * i] = 1;
  parts["m.g_idx"] = index;
  EXPECT_EQ(Values(kGptq, parts), Values(kGptq, GptqParts()));
  for (const int32_t bad : {2, -1, INT32_MIN, INT32_MAX}) {
    std::memcpy(index.data.data() + 4 * 7, &bad, sizeof(bad));
    parts["m.g_idx"] = index;
    Refused(kGptq, parts, kMalformed,
            AllOf(HasSubstr("\"m.g_idx\""), HasSubstr(absl::StrCat(bad, " at 7")),
                  HasSubstr("2 groups")));
  }
  parts["m.g_idx"] = Words({31}, 0);
  Refused(kGptq, parts, kMalformed, AllOf(HasSubstr("I32[31]"), HasSubstr("I32[32]")));
  parts.erase("m.g_idx");
  Refused(R"({"quant_method":"gptq","bits":4,"group_size":16,"desc_act":true})", parts, kMalformed,
          HasSubstr("\"m.g_idx\" is missing"));
}

TEST_F(QuantizedFolder, MissingParts) {
  const std::tuple<std::string, Parts> all[] = {
      {kGptq, GptqParts()}, {kAwq, AwqParts()}, {kFp8, Fp8Parts()}, {kPacked, PackedParts()}};
  for (const auto& [config, parts] : all) {
    ASSERT_TRUE(Open(config, parts).ok()) << Open(config, parts).status();
    for (const auto& [name, part] : parts) {
      Parts without = parts;
      without.erase(name);
      if (name == "m.weight_scale_inv") continue;  // then the other name is asked for
      const bool codes = name == "m.weight" || name == "m.qweight" || name == "m.weight_packed";
      Refused(config, without, kMalformed,
              HasSubstr(codes ? "belongs to no quantised weight"
                              : absl::StrCat("\"", name, "\" is missing")));
    }
  }
}

TEST_F(QuantizedFolder, WrongShapesAndDtypes) {
  struct Lie {
    std::string config, name;
    Parts parts;
    Part part;
  };
  const std::vector<Lie> lies = {
      {kGptq, "m.qweight", GptqParts(), Words({32}, 0)},
      {kGptq, "m.qweight", GptqParts(), Words({0, 8}, 0)},
      {kGptq, "m.qweight", GptqParts(), Words({4, 9}, 0)},
      {kGptq, "m.qweight", GptqParts(), Floats({4, 8}, 0)},
      {kGptq, "m.qzeros", GptqParts(), Words({1, 1}, 0)},
      {kGptq, "m.qzeros", GptqParts(), Words({2}, 0)},
      {kGptq, "m.scales", GptqParts(), Halves({8, 2}, 1)},
      {kGptq, "m.scales", GptqParts(), Halves({1, 8}, 1)},
      {kGptq, "m.scales", GptqParts(), OneByte("U8", {2, 8}, 1)},
      {kGptq, "m.scales", GptqParts(), OneByte("F8_E8M0", {2, 8}, 1)},
      {kAwq, "m.qzeros", AwqParts(), Words({1, 2}, 0)},
      {kAwq, "m.scales", AwqParts(), Halves({2, 7}, 1)},
      {kFp8, "m.weight", Fp8Parts(), OneByte("F8_E4M3", {8, 6, 8}, 1)},
      {kFp8, "m.weight_scale_inv", Fp8Parts(), Floats({2, 1}, 1)},
      {kFp8, "m.weight_scale_inv", Fp8Parts(), Floats({1}, 1)},
      {kFp8, "m.weight_scale_inv", Fp8Parts(), OneByte("U8", {2, 2}, 1)},
      {kPacked, "m.weight_shape", PackedParts(), Longs({3, 33})},
      {kPacked, "m.weight_shape", PackedParts(), Longs({3, 24})},
      {kPacked, "m.weight_shape", PackedParts(), Longs({4, 30})},
      {kPacked, "m.weight_shape", PackedParts(), Longs({3, -1})},
      {kPacked, "m.weight_shape", PackedParts(), Longs({INT64_MIN, INT64_MAX})},
      {kPacked, "m.weight_shape", PackedParts(), Longs({3, 30, 1})},
      {kPacked, "m.weight_shape", PackedParts(), Floats({2}, 3)},
      {kPacked, "m.weight_scale", PackedParts(), Halves({3}, 1)},
      {kPacked, "m.weight_packed", PackedParts(), Words({12}, 0)}};
  for (const Lie& lie : lies) {
    Parts parts = lie.parts;
    parts[lie.name] = lie.part;
    Refused(lie.config, parts, kMalformed, HasSubstr(absl::StrCat("\"", lie.name, "\"")));
  }
}

TEST_F(QuantizedFolder, ZeroPointsOfCompressedTensors) {
  const std::string config = Compressed(
      "pack-quantized", R"({"num_bits":4,"strategy":"group","group_size":16,"symmetric":false})");
  Refused(config, PackedParts(), kMalformed, HasSubstr("\"m.weight_zero_point\" is missing"));
  Parts parts = PackedParts();
  parts["m.weight_zero_point"] = Words({1, 1}, 0);
  Refused(config, parts, kMalformed, HasSubstr("\"m.weight_zero_point\" is I32[1, 1]"));
  parts["m.weight_zero_point"] = Words({1, 2}, 0x210);
  const std::vector<float> packed = Values(config, parts);
  for (int row = 0; row < 3; ++row) EXPECT_EQ(packed[row * 30], 0.5f * static_cast<float>(-row));
  parts["m.weight_zero_point"] = OneByte("I8", {3, 2}, 0xff);  // -1, so 7 of the unsigned codes
  EXPECT_EQ(Values(config, parts)[0], -3.5f);
}

TEST_F(QuantizedFolder, ZeroPointsOfSymmetricSchemes) {
  const std::string config = Compressed(
      "pack-quantized", R"({"num_bits":4,"strategy":"group","group_size":16,"symmetric":true})");
  Parts parts = PackedParts();
  const std::vector<float> want = Values(config, parts);
  for (const Part& zeros :
       {Words({1, 2}, 0), Words({1, 2}, 0x88888888), OneByte("I8", {3, 2}, 0)}) {
    parts["m.weight_zero_point"] = zeros;
    EXPECT_EQ(Values(config, parts), want);
  }
  parts["m.weight_zero_point"] = Words({1, 2}, 0x210);
  Refused(config, parts, kMalformed,
          AllOf(HasSubstr("\"m.weight_zero_point\""), HasSubstr("symmetric")));
  parts["m.weight_zero_point"] = OneByte("I8", {3, 2}, 1);
  Refused(config, parts, kMalformed, HasSubstr("symmetric"));
}

TEST_F(QuantizedFolder, BothPlainAndQuantised) {
  Parts parts = GptqParts();
  parts["m.weight"] = Halves({8, 32}, 1);
  Refused(kGptq, parts, kMalformed, HasSubstr("duplicate tensor name \"m.weight\""));
  Parts scaled = GptqParts();
  scaled["n.weight"] = Halves({8, 32}, 1);
  scaled["n.weight_scale"] = Floats({1}, 1);
  Refused(kGptq, scaled, kMalformed, HasSubstr("\"n.weight_scale\" belongs to no quantised"));
}

TEST_F(QuantizedFolder, GroupsAreChosenByTheirTargets) {
  const std::string weights = R"({"num_bits":4,"strategy":"group","group_size":16})";
  const auto config = [&](const std::string& first, const std::string& second) {
    return absl::StrCat(
        R"({"quant_method":"compressed-tensors","format":"mixed-precision","config_groups":{)",
        R"("a":{"format":"pack-quantized","targets":[")", first, R"("],"weights":)", weights,
        R"(},"b":{"format":"float-quantized","targets":[")", second,
        R"("],"weights":{"num_bits":8,"type":"float","strategy":"channel"}}}})");
  };
  EXPECT_TRUE(Open(config("m", "Linear"), PackedParts()).ok());
  EXPECT_TRUE(Open(config("re:m$", "Linear"), PackedParts()).ok());
  Refused(config("other", "re:.*n"), PackedParts(), kMalformed,
          AllOf(HasSubstr("\"m.weight_packed\""), HasSubstr("no target")));
  Refused(config("re:.*n", "m"), PackedParts(), kMalformed, HasSubstr("is not of the format"));
  Refused(config("re:(", "re:n"), PackedParts(), kMalformed, HasSubstr("re:("));
}

std::string TwoGroups(const Json& targets) {
  const Json weights = {{"num_bits", 4}, {"strategy", "group"}, {"group_size", 16}};
  return DumpJson({{"quant_method", "compressed-tensors"},
                   {"format", "pack-quantized"},
                   {"config_groups",
                    {{"a", {{"targets", targets}, {"weights", weights}}},
                     {"b", {{"targets", {"Linear"}}, {"weights", weights}}}}}});
}

Json Targets(size_t count, const std::string& before, const std::string& after = "") {
  Json targets = Json::array();
  for (size_t i = 0; i < count; ++i) targets.push_back(absl::StrCat(before, i, after));
  return targets;
}

TEST_F(QuantizedFolder, TooManyTargets) {
  const Parts parts = PackedParts();
  const auto refused = [&](const std::string& config, const char* count, const char* most) {
    Refused(config, parts, kMalformed, AllOf(HasSubstr(count), HasSubstr(most)));
  };
  ASSERT_TRUE(Open(TwoGroups(Targets(256, "re:x")), parts).ok());
  refused(TwoGroups(Targets(257, "re:x")), "config_groups\" has 257 \"re:\" targets",
          "at most 256");
  refused(TwoGroups(Targets(131'073, "x")), "a.targets\" has 131073 entries", "at most 131072");
  refused(TwoGroups({"re:" + std::string(1025, 'x')}), "has 1025 bytes", "at most 1024");
  Json config = Json::parse(TwoGroups({"x"}));
  config["ignore"] = Targets(131'073, "x");
  refused(DumpJson(config), "ignore\" has 131073 entries", "at most 131072");
  config.erase("ignore");
  for (int i = 0; i < 255; ++i)
    config["config_groups"][absl::StrCat("c", i)] = config["config_groups"]["a"];
  refused(DumpJson(config), "config_groups\" has 257 groups", "at most 256");
}

// Layers named by `before`, a number and `after`.
Parts PackedLayers(int count, const std::string& before, const std::string& after) {
  Parts parts;
  for (int i = 0; i < count; ++i) {
    for (const auto& [name, part] : PackedParts())
      parts[absl::StrCat(before, i, after, name.substr(1))] = part;
  }
  return parts;
}

// Seconds of the processor's, not of a clock: other work does not count.
double ProcessorSeconds(const auto& work) {
  const std::clock_t start = std::clock();
  work();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

TEST_F(QuantizedFolder, ManyPatternsForManyLayers) {
  const Json targets = Targets(256, "re:.*self_attn.*layers\\.", "\\..*(q|k|v)_proj");
  const Parts parts = PackedLayers(2000, "model.layers.", ".self_attn.q_proj");
  EXPECT_LT(ProcessorSeconds([&] { EXPECT_TRUE(Open(TwoGroups(targets), parts).ok()); }), 15);
  const Parts more = PackedLayers(3000, "model.layers.", ".self_attn.q_proj");
  Refused(TwoGroups(targets), more, kMalformed,
          AllOf(HasSubstr("256 \"re:\" targets for at least 2"), HasSubstr("67108864")));
  Refused(TwoGroups({"re:x"}), PackedLayers(1, std::string(600, 'm'), ""), kMalformed,
          AllOf(HasSubstr("601 bytes"), HasSubstr("at most 512")));
}

TEST_F(QuantizedFolder, PatternsThatBacktrackWithoutEnd) {
  const Parts parts = PackedLayers(1, std::string(400, 'a'), "");
  // The name holds each of their letters: PCRE2 cannot see at once that there is no match.
  for (const char* pattern :
       {"re:(a|aa)+$", "re:(a+)+0a", "re:.*.*.*.*.*.*.*.*0a", "re:a*a*a*a*a*a*0a"}) {
    const double seconds = ProcessorSeconds([&] {
      const auto source = Open(TwoGroups({pattern}), parts);
      EXPECT_THAT(std::string(source.status().message()),
                  AllOf(HasSubstr(pattern), HasSubstr("too many steps")));
    });
    EXPECT_LT(seconds, 10) << pattern;
  }
}

struct Refusal {
  const char* config;
  absl::StatusCode code;
  const char* said;
};

TEST_F(QuantizedFolder, ConfigsThatWeDoNotKnow) {
  const Refusal refusals[] = {
      {R"({"quant_method":"bitsandbytes","load_in_4bit":true})", kUnknown,
       "\"quantization_config.quant_method\" is \"bitsandbytes\": not supported; known: fp8, gptq, "
       "awq, compressed-tensors, mxfp4"},
      {R"({"bits":4})", kUnknown, "quant_method\" is \"\""},
      {R"({"quant_method":7})", kMalformed, "quant_method\" is 7"},
      {R"([1])", kMalformed, "it must be an object"},
      {R"({"quant_method":"gptq"})", kMalformed, "bits\" is missing"},
      {R"({"quant_method":"gptq","bits":3})", kUnknown, "bits\" is 3: not supported; known: 4, 8"},
      {R"({"quant_method":"gptq","bits":4,"group_size":0})", kMalformed, "group_size\" is 0"},
      {R"({"quant_method":"gptq","bits":4,"group_size":1e9})", kMalformed, "group_size\" is 1"},
      {R"({"quant_method":"gptq","bits":4,"checkpoint_format":"marlin"})", kUnknown,
       "checkpoint_format\" is \"marlin\": not supported; known: gptq, gptq_v2"},
      {R"({"quant_method":"gptq","bits":4,"pack_dtype":"int16"})", kUnknown, "\"int16\""},
      {R"({"quant_method":"gptq","bits":4,"is_marlin_format":true})", kUnknown,
       "is_marlin_format\" is true"},
      {R"({"quant_method":"gptq","bits":4,"rotation":"hadamard"})", kUnknown,
       "rotation\" is \"hadamard\": not supported"},
      {R"({"quant_method":"gptq","bits":4,"dynamic":{"+:.*down.*":{"bits":8}}})", kUnknown,
       "dynamic.+:.*down.*\" is {\"bits\":8}"},
      {R"({"quant_method":"gptq","bits":4,"desc_act":"yes"})", kMalformed, "desc_act\" is \"yes\""},
      {R"({"quant_method":"awq","bits":8})", kUnknown, "bits\" is 8: not supported; known: 4"},
      {R"({"quant_method":"awq","bits":4,"version":"gemv"})", kUnknown,
       "version\" is \"gemv\": not supported; known: gemm"},
      {R"({"quant_method":"fp8","fmt":"e5m2"})", kUnknown, "fmt\" is \"e5m2\""},
      {R"({"quant_method":"fp8","expert_dtype":"fp4"})", kUnknown, "expert_dtype\" is \"fp4\""},
      {R"({"quant_method":"fp8","weight_block_size":[128]})", kMalformed, "weight_block_size"},
      {R"({"quant_method":"fp8","weight_block_size":[0,128]})", kMalformed, "weight_block_size"},
      {R"({"quant_method":"fp8","modules_to_not_convert":"lm_head"})", kMalformed,
       "modules_to_not_convert\" is \"lm_head\"; it must be an array of strings"},
      {R"({"quant_method":"compressed-tensors","format":"marlin-24"})", kUnknown,
       "format\" is \"marlin-24\""},
      {R"({"quant_method":"compressed-tensors","format":"nvfp4-pack-quantized"})", kUnknown,
       "nvfp4-pack-quantized"},
      {R"({"quant_method":"compressed-tensors","format":"pack-quantized"})", kMalformed,
       "config_groups\" must be an object"},
      {R"({"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"W4A16":["Linear"]}})",
       kMalformed, "config_groups.W4A16. is [\"Linear\"]"},
      {R"({"quant_method":"compressed-tensors","format":"dense","sparsity_config":{"format":"sparse-24-bitmask"}})",
       kUnknown, "sparsity_config.format\" is \"sparse-24-bitmask\""},
      {R"({"quant_method":"compressed-tensors","format":"dense","transform_config":{"config_groups":{"R1":{"type":"hadamard"}}}})",
       kUnknown, "transform_config"}};
  for (const Refusal& refusal : refusals)
    Refused(refusal.config, GptqParts(), refusal.code, HasSubstr(refusal.said));
  const Refusal weights[] = {
      {R"({"num_bits":2})", kUnknown, "weights.num_bits\" is 2"},
      {R"({"num_bits":4,"type":"float"})", kUnknown, "weights.type\" is \"float\""},
      {R"({"num_bits":4,"strategy":"tensor_group"})", kUnknown, "\"tensor_group\""},
      {R"({"num_bits":4,"strategy":"group"})", kMalformed, "group_size\" must be at least 1"},
      {R"({"num_bits":4,"strategy":"block"})", kMalformed, "block_structure\" is missing"},
      {R"({"num_bits":4,"dynamic":true})", kUnknown, "dynamic\" is true"},
      {R"({"num_bits":4,"actorder":"sideways"})", kUnknown, "actorder\" is \"sideways\""},
      {R"({"num_bits":4,"codebook":[1]})", kUnknown, "codebook\" is [1]: not supported"}};
  for (const Refusal& refusal : weights) {
    Refused(Compressed("pack-quantized", refusal.config), PackedParts(), refusal.code,
            HasSubstr(refusal.said));
  }
}

// MXFP4 is of experts and has its own reader; what is switched off is no reason to refuse.
TEST_F(QuantizedFolder, ConfigsThatMeanNothingHere) {
  const Parts plain = {{"a.weight", Halves({8, 32}, 1)}};
  for (
      const char* config :
      {"null", R"({"quant_method":"mxfp4","modules_to_not_convert":["lm_head"]})",
       R"({"quant_method":"gptq","bits":4,"rotation":null,"adapter":{},"is_marlin_format":false})",
       R"({"quant_method":"gptq","bits":4,"dynamic":{"-:.*down.*":{}}})",
       R"({"quant_method":"compressed-tensors","format":"dense","config_groups":{},"transform_config":{"config_groups":{}}})"}) {
    const auto source = Open(config, plain);
    EXPECT_TRUE(source.ok()) << config << source.status();
  }
}

// Bytes of the header and of the config at random: what still opens can be read to its end.
TEST(QuantizedFuzzTest, MutatedMetadata) {
  std::mt19937_64 random(1);
  for (const char* name : {"gptq-int4-act-order", "awq-int4", "ct-mixed", "fp8-tensor"}) {
    const std::string golden = absl::StrCat(FAIRLEAD_GOLDEN_DIR, "/models/", name);
    const std::string config = ReadWholeFile(golden + "/config.json");
    const std::string model = ReadWholeFile(golden + "/model.safetensors");
    uint64_t header;
    std::memcpy(&header, model.data(), sizeof(header));
    const TemporaryFolder folder;
    int opened = 0;
    for (int i = 0; i < 150; ++i) {
      std::string changed_config = config, changed = model;
      std::string& target = i % 3 == 0 ? changed_config : changed;
      const size_t begin = i % 3 == 0 ? config.find("quantization_config") : 8;
      const size_t end = i % 3 == 0 ? config.size() : 8 + header;
      for (uint64_t n = random() % 3 + 1; n > 0; --n) {
        char& byte = target[begin + random() % (end - begin)];
        byte = byte >= '0' && byte <= '9' ? static_cast<char>('0' + random() % 10)
                                          : static_cast<char>(byte ^ (1 << random() % 6));
      }
      folder.Write("config.json", changed_config);
      folder.Write("model.safetensors", changed);
      const auto source = OpenWeights(folder.path());
      if (!source.ok()) continue;
      ++opened;
      for (const WeightInfo& info : (*source)->tensors()) {
        if (info.make) WeightBytes{info};
      }
    }
    EXPECT_GT(opened, 0) << name;
  }
}

}  // namespace
}  // namespace fairlead

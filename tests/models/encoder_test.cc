// SPDX-License-Identifier: Apache-2.0
// The tiny encoders of golden/models against transformers, on every device at hand, and the GGUF
// files that hold the same, which gguf_twins_files.py writes with the gguf package. Tolerance:
// golden README, section "models" (float32: 1e-4).
#include "models/encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "models/embedder.h"
#include "models/json.h"
#include "tests/guarded_device.h"
#include "tests/models/checkpoint_bytes.h"
#include "tests/reference/reference_device.h"

namespace fairlead {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr double kTolerance = 1e-4;

std::string GoldenFolder(const std::string& name) {
  return absl::StrCat(FAIRLEAD_GOLDEN_DIR, "/models/", name);
}
std::string GgufFile(const std::string& name) {
  return absl::StrCat(FAIRLEAD_TWINS_DIR, "/", name, ".gguf");
}

std::unique_ptr<Device> Open(std::string_view name, Numerics numerics) {
  auto device = OpenDevice(name, {.threads = 2, .numerics = numerics});
  EXPECT_TRUE(device.ok()) << device.status();
  return *std::move(device);
}

// An embedder and the device that it runs on.
struct Loaded {
  std::unique_ptr<Device> device;
  std::unique_ptr<Embedder> embedder;
  Embedder* operator->() const { return embedder.get(); }
};

absl::StatusOr<Loaded> TryLoad(const std::string& path, std::unique_ptr<Device> device,
                               const EmbedderLimits& limits = {}) {
  auto source = OpenWeights(path);
  if (!source.ok()) return source.status();
  auto model = LoadEmbeddingModel(**source, *device, limits.tokens);
  if (!model.ok()) return model.status();
  auto embedder = Embedder::Create(*std::move(model), *device, limits);
  if (!embedder.ok()) return embedder.status();
  return Loaded{std::move(device), *std::move(embedder)};
}

Loaded Load(const std::string& path, std::unique_ptr<Device> device,
            const EmbedderLimits& limits = {}) {
  auto loaded = TryLoad(path, std::move(device), limits);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  return *std::move(loaded);
}

using Vectors = std::vector<float>;

struct GoldenPooling {
  const char* key;
  PoolingConfig pooling;
};
// Those of all goldens; a golden may lack some.
constexpr GoldenPooling kPoolings[] = {
    {"cls", {.pooling = Pooling::kFirst}},
    {"mean", {.pooling = Pooling::kMean}},
    {"mean_normalized", {.pooling = Pooling::kMean, .normalize = true}},
    {"last", {.pooling = Pooling::kLast}},
    {"last_normalized", {.pooling = Pooling::kLast, .normalize = true}}};

class EncoderTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto golden = ParseJson(ReadWholeFile(GoldenFolder(GetParam()) + "/golden.json"));
    ASSERT_TRUE(golden.ok()) << golden.status();
    golden_ = *std::move(golden);
    const std::string bytes = ReadWholeFile(GoldenFolder(GetParam()) + "/golden.f32");
    values_.resize(bytes.size() / sizeof(float));
    std::memcpy(values_.data(), bytes.data(), bytes.size());
    for (const Json& sequence : golden_["sequences"]) {
      sequences_.push_back(sequence["ids"].get<std::vector<Token>>());
    }
    ASSERT_EQ(sequences_.size(), 3u);
  }

  // All sequences' values of this key, one after another; empty if the golden lacks it.
  Vectors Want(const std::string& key) const {
    Vectors all;
    for (const Json& sequence : golden_["sequences"]) {
      if (!sequence.contains(key)) return {};
      size_t count = 1;
      for (const Json& size : sequence[key]["shape"]) count *= size.get<size_t>();
      const auto begin = values_.begin() + sequence[key]["offset"].get<int64_t>();
      all.insert(all.end(), begin, begin + static_cast<int64_t>(count));
    }
    return all;
  }

  // The largest difference, and the sum of their squares.
  struct Difference {
    double largest = 0, squares = 0;
    size_t count = 0;
    void Add(const Difference& other) {
      largest = std::max(largest, other.largest);
      squares += other.squares;
      count += other.count;
    }
  };
  static Difference ExpectNear(const absl::StatusOr<Vectors>& got, const Vectors& want,
                               double tolerance, const std::string& what) {
    EXPECT_TRUE(got.ok()) << got.status();
    if (!got.ok()) return {};
    EXPECT_EQ(got->size(), want.size()) << what;
    Difference difference;
    for (; difference.count < std::min(want.size(), got->size()); ++difference.count) {
      const double d =
          std::abs(static_cast<double>((*got)[difference.count]) - want[difference.count]);
      if (!(d <= difference.largest)) difference.largest = d;  // a NaN stays
      difference.squares += d * d;
    }
    EXPECT_LE(difference.largest, tolerance) << what;
    return difference;
  }

  void ExpectGolden(const std::string& path, std::unique_ptr<Device> device, double tolerance) {
    const Loaded encoder = Load(path, std::move(device));
    Difference difference = ExpectNear(encoder->HiddenStates(sequences_), Want("last_hidden_state"),
                                       tolerance, "last_hidden_state");
    int compared = 0;
    for (const GoldenPooling& golden : kPoolings) {
      const Vectors want = Want(golden.key);
      if (want.empty()) continue;
      ++compared;
      difference.Add(
          ExpectNear(encoder->Embed(sequences_, golden.pooling), want, tolerance, golden.key));
    }
    EXPECT_GE(compared, 3);
    // For fidelity_table.py, which reads it from gtest's report.
    const DeviceInfo& info = encoder.device->info();
    const bool float32 = info.numerics == Numerics::kFloat32;
    RecordProperty(absl::StrCat(std::string(NumericsName(info.numerics)), " ", info.name),
                   absl::StrCat(float32 ? difference.largest
                                        : std::sqrt(difference.squares / difference.count)));
  }
  void ExpectGolden(std::unique_ptr<Device> device, double tolerance = kTolerance) {
    ExpectGolden(GoldenFolder(GetParam()), std::move(device), tolerance);
  }

  void ExpectFilesPooling(const std::string& path, const char* key) {
    const auto source = OpenWeights(path);
    ASSERT_TRUE(source.ok()) << source.status();
    const auto pooling = ReadPooling(**source);
    ASSERT_TRUE(pooling.ok() && pooling->has_value()) << pooling.status();
    const Loaded model = Load(path, Open("cpu", Numerics::kFloat32));
    ExpectNear(model->Embed(sequences_, **pooling), Want(key), kTolerance, key);
  }

  // Eight operands of a layer's four products, K and V among them, are rounded to 11 bits
  // (kernels/README.md). Each moves what is added to the layer's input, and so the normed sum, by
  // at most 2^-11 of its size: 2^-11 * 8 * layers of the largest element.
  double PreciseBound() const {
    double largest = 0;
    for (const float value : Want("last_hidden_state")) {
      largest = std::max(largest, std::abs(double{value}));
    }
    const auto source = OpenWeights(GoldenFolder(GetParam()));
    const auto config = LoadEncoderConfig(**source);
    return std::ldexp(largest * 8 * config->layers, -11);
  }

  Json golden_;
  Vectors values_;
  std::vector<std::vector<Token>> sequences_;
};

TEST_P(EncoderTest, CpuFloat32) { ExpectGolden(Open("cpu", Numerics::kFloat32)); }
TEST_P(EncoderTest, Reference) { ExpectGolden(reference::MakeReferenceDevice()); }
TEST_P(EncoderTest, GuardedDevice) {
  ExpectGolden(MakeGuardedDevice(Open("cpu", Numerics::kFloat32)));
}
TEST_P(EncoderTest, HostSimt32Float32) { ExpectGolden(Open("host-simt:32", Numerics::kFloat32)); }
TEST_P(EncoderTest, HostSimt64Float32) { ExpectGolden(Open("host-simt:64", Numerics::kFloat32)); }

TEST_P(EncoderTest, CpuPrecise) { ExpectGolden(Open("cpu", Numerics::kPrecise), PreciseBound()); }
TEST_P(EncoderTest, HostSimt32Precise) {
  ExpectGolden(Open("host-simt:32", Numerics::kPrecise), PreciseBound());
}
TEST_P(EncoderTest, HostSimt64Precise) {
  ExpectGolden(Open("host-simt:64", Numerics::kPrecise), PreciseBound());
}

TEST_P(EncoderTest, OneByOneOrTogetherGivesTheSameBits) {
  const PoolingConfig pooling = {.pooling = Pooling::kMean, .normalize = true};
  for (const char* name : {"cpu", "host-simt:32", "host-simt:64"}) {
    std::vector<std::vector<Token>> many;
    const int copies = name == std::string_view("cpu") ? 3 : 1;  // the executor is slow
    for (int i = 0; i < copies; ++i) many.insert(many.end(), sequences_.begin(), sequences_.end());
    std::reverse(many.begin(), many.end());
    const Loaded encoder = Load(GoldenFolder(GetParam()), Open(name, Numerics::kPrecise));
    Vectors one_by_one;
    for (const std::vector<Token>& sequence : many) {
      const Vectors vector = *encoder->Embed({sequence}, pooling);
      one_by_one.insert(one_by_one.end(), vector.begin(), vector.end());
    }
    // 58 tokens, or three times as many, in one batch, and cut by the tokens and by the sequences.
    for (const EmbedderLimits& limits :
         {EmbedderLimits{}, EmbedderLimits{.tokens = 57}, EmbedderLimits{.sequences = 2}}) {
      const Loaded other = Load(GoldenFolder(GetParam()), Open(name, Numerics::kPrecise), limits);
      EXPECT_EQ(*other->Embed(many, pooling), one_by_one) << name << ", " << limits.tokens;
    }
  }
}

TEST_P(EncoderTest, PoolsAsItsFilesSay) {
  const std::map<std::string_view, const char*> asked = {{"bert", "mean_normalized"},
                                                         {"bert-head7", "cls"},
                                                         {"nomic-bert", "mean"},
                                                         {"xlm-roberta", "mean_normalized"}};
  ExpectFilesPooling(GoldenFolder(GetParam()), asked.at(GetParam()));
}

std::string TestName(const testing::TestParamInfo<const char*>& info) {
  return absl::StrReplaceAll(info.param, {{"-", "_"}});
}

// bert-head7: heads of an odd size, one token type, GELU's tanh form.
INSTANTIATE_TEST_SUITE_P(Checkpoints, EncoderTest,
                         testing::Values("bert", "bert-head7", "nomic-bert", "xlm-roberta"),
                         TestName);

class EncoderTwinTest : public EncoderTest {};

TEST_P(EncoderTwinTest, GgufGivesTheSame) {
  ExpectGolden(GgufFile(GetParam()), Open("cpu", Numerics::kFloat32), kTolerance);
  ExpectGolden(GgufFile(GetParam()), Open("host-simt:32", Numerics::kFloat32), kTolerance);
  ExpectGolden(GgufFile(GetParam()), Open("host-simt:64", Numerics::kFloat32), kTolerance);
  ExpectFilesPooling(GgufFile(GetParam()), "mean_normalized");
  const Loaded file = Load(GgufFile(GetParam()), Open("cpu", Numerics::kPrecise));
  const Loaded folder = Load(GoldenFolder(GetParam()), Open("cpu", Numerics::kPrecise));
  EXPECT_EQ(*file->HiddenStates(sequences_), *folder->HiddenStates(sequences_));
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, EncoderTwinTest, testing::Values("bert", "nomic-bert"),
                         TestName);

class DecoderTwinEmbeddingTest : public EncoderTest {};

TEST_P(DecoderTwinEmbeddingTest, StatesAfterTheLastNorm) {
  ExpectGolden(GgufFile(GetParam()), Open("cpu", Numerics::kFloat32), kTolerance);
  ExpectGolden(GgufFile(GetParam()), reference::MakeReferenceDevice(), kTolerance);
  ExpectGolden(GgufFile(GetParam()), Open("host-simt:32", Numerics::kFloat32), kTolerance);
  ExpectGolden(GgufFile(GetParam()), Open("host-simt:64", Numerics::kFloat32), kTolerance);
  ExpectFilesPooling(GgufFile(GetParam()), "last_normalized");
}

TEST_P(DecoderTwinEmbeddingTest, OneByOneOrTogetherGivesTheSameBits) {
  const Loaded model = Load(GgufFile(GetParam()), Open("cpu", Numerics::kPrecise));
  Vectors one_by_one;
  for (const std::vector<Token>& sequence : sequences_) {
    const Vectors vector = *model->Embed({sequence}, {.pooling = Pooling::kLast});
    one_by_one.insert(one_by_one.end(), vector.begin(), vector.end());
  }
  EXPECT_EQ(*model->Embed(sequences_, {.pooling = Pooling::kLast}), one_by_one);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, DecoderTwinEmbeddingTest, testing::Values("qwen3-embedding"),
                         TestName);

// A checkpoint of golden/models with changes. A null takes a key away.
class ChangedFolder {
 public:
  ChangedFolder(const std::string& name, const Json& changes) {
    Json config = *ParseJson(ReadWholeFile(GoldenFolder(name) + "/config.json"));
    for (const auto& [key, value] : changes.items()) {
      config.erase(key);
      if (!value.is_null()) config[key] = value;
    }
    folder_.Write("config.json", DumpJson(config));
    const std::string file = ReadWholeFile(GoldenFolder(name) + "/model.safetensors");
    uint64_t length;
    std::memcpy(&length, file.data(), sizeof(length));
    header_ = *ParseJson(file.substr(sizeof(length), length));
    data_ = file.substr(sizeof(length) + length);
    Save();
  }
  // By `rename`, which gives an empty name to what goes away.
  void Rename(const std::function<std::string(const std::string&)>& rename) {
    Json header = Json::object();
    std::string data;
    for (auto& [name, entry] : header_.items()) {
      const std::string renamed = rename(name);
      if (name == "__metadata__" || renamed.empty()) continue;
      const auto begin = entry["data_offsets"][0].get<size_t>();
      const auto end = entry["data_offsets"][1].get<size_t>();
      entry["data_offsets"] = {data.size(), data.size() + end - begin};
      data += data_.substr(begin, end - begin);
      header[renamed] = entry;
    }
    header_ = std::move(header);
    data_ = std::move(data);
    Save();
  }
  void Reshape(const std::string& name, const Json& shape) {
    header_[name]["shape"] = shape;
    Save();
  }
  const std::string& path() const { return folder_.path(); }

 private:
  void Save() const {
    folder_.Write("model.safetensors", SafetensorsFile(DumpJson(header_), data_));
  }

  TemporaryFolder folder_;
  Json header_;
  std::string data_;
};

std::unique_ptr<Device> Reference() { return reference::MakeReferenceDevice(); }

absl::Status LoadStatus(const std::string& path) { return TryLoad(path, Reference()).status(); }

const std::vector<std::vector<Token>> kSomeTokens = {{5, 9, 200}, {7}};

TEST(EncoderNamesTest, OlderAndNestedNamesMeanTheSame) {
  const Vectors want = *Load(GoldenFolder("bert"), Reference())->HiddenStates(kSomeTokens);
  ChangedFolder folder("bert", {{"architectures", {"BertForMaskedLM"}}});
  folder.Rename([](const std::string& name) {
    if (name.starts_with("pooler.")) return std::string();
    return "bert." + absl::StrReplaceAll(name, {{"LayerNorm.weight", "LayerNorm.gamma"},
                                                {"LayerNorm.bias", "LayerNorm.beta"}});
  });
  EXPECT_EQ(*Load(folder.path(), Reference())->HiddenStates(kSomeTokens), want);
}

TEST(EncoderNamesTest, KinOfRoberta) {
  const Vectors want = *Load(GoldenFolder("xlm-roberta"), Reference())->HiddenStates({{5, 1, 9}});
  for (const char* architecture : {"RobertaModel", "RobertaForMaskedLM", "XLMRobertaForMaskedLM",
                                   "CamembertModel", "CamembertForMaskedLM"}) {
    ChangedFolder folder("xlm-roberta", {{"architectures", {architecture}}});
    if (absl::StrContains(architecture, "MaskedLM")) {
      folder.Rename([](const std::string& name) {
        return name.starts_with("pooler.") ? "" : "roberta." + name;
      });
    }
    EXPECT_EQ(*Load(folder.path(), Reference())->HiddenStates({{5, 1, 9}}), want) << architecture;
  }
}

TEST(EncoderNamesTest, WhatIsMissingOrMisshapenIsNamed) {
  for (const char* lost :
       {"embeddings.position_embeddings.weight", "embeddings.LayerNorm.bias",
        "encoder.layer.1.attention.self.key.bias", "encoder.layer.2.output.dense.weight"}) {
    ChangedFolder folder("bert", Json::object());
    folder.Rename([&](const std::string& name) { return name == lost ? "" : name; });
    const absl::Status status = LoadStatus(folder.path());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(lost), HasSubstr("missing")));
  }
  ChangedFolder folder("bert", Json::object());
  folder.Reshape("embeddings.position_embeddings.weight", {64, 128});
  EXPECT_THAT(
      std::string(LoadStatus(folder.path()).message()),
      AllOf(HasSubstr("position_embeddings"), HasSubstr("[64, 128]"), HasSubstr("[128, 64]")));
}

TEST(VectorTest, OneOfBlocksIsNamedWithItsFile) {
  constexpr uint32_t kQ51 = 7;  // enum ggml_type
  GgufWriter writer;
  writer.AddString("general.architecture", "llama");
  writer.AddU32("llama.block_count", 1);
  writer.AddU32("llama.context_length", 64);
  writer.AddU32("llama.embedding_length", 64);
  writer.AddU32("llama.feed_forward_length", 64);
  writer.AddU32("llama.attention.head_count", 2);
  writer.AddF32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  writer.AddU32("llama.vocab_size", 2);
  const auto add = [&](const char* name, std::vector<uint64_t> dims, uint32_t type, size_t bytes) {
    writer.AddTensor({.name = name,
                      .dims = std::move(dims),
                      .type = type,
                      .data = std::string(bytes, '\0'),
                      .offset = {},
                      .n_dims = {}});
  };
  add("token_embd.weight", {64, 2}, kTypeF32, 512);
  add("blk.0.attn_norm.weight", {64}, kQ51, 48);
  const TemporaryFolder folder;
  const std::string path = folder.Write("vector.gguf", writer.Build());
  EXPECT_EQ(LoadStatus(path).message(),
            path + ": tensor blk.0.attn_norm.weight: a vector of type q5_1; known: f32, f16, bf16");
}

struct Refusal {
  const char* checkpoint;
  Json changes;
  absl::StatusCode code;
  std::vector<const char*> said;
};

TEST(EncoderConfigTest, WhatWeLackIsRefusedByName) {
  constexpr auto kLacks = absl::StatusCode::kUnimplemented;
  constexpr auto kWrong = absl::StatusCode::kInvalidArgument;
  const Refusal refusals[] = {
      {"bert", {{"architectures", {"BertForSequenceClassification"}}}, kLacks, {"BertForSequence"}},
      {"bert",
       {{"position_embedding_type", "relative_key"}},
       kLacks,
       {"position_embedding_type", "relative_key"}},
      {"bert", {{"hidden_act", "relu"}}, kLacks, {"hidden_act", "relu", "gelu"}},
      {"bert", {{"is_decoder", true}}, kLacks, {"is_decoder"}},
      {"bert", {{"add_cross_attention", true}}, kLacks, {"add_cross_attention"}},
      {"bert", {{"pruned_heads", {{"0", {1}}}}}, kLacks, {"pruned_heads"}},
      {"bert", {{"num_attention_heads", 7}}, kWrong, {"hidden_size", "64", "7"}},
      {"bert", {{"num_hidden_layers", 0}}, kWrong, {"num_hidden_layers"}},
      {"bert", {{"num_hidden_layers", nullptr}}, kWrong, {"num_hidden_layers"}},
      {"bert", {{"layer_norm_eps", 0}}, kWrong, {"layer_norm_eps"}},
      {"bert", {{"max_position_embeddings", -1}}, kWrong, {"max_position_embeddings"}},
      {"bert", {{"type_vocab_size", "2"}}, kWrong, {"type_vocab_size"}},
      {"xlm-roberta",
       {{"pad_token_id", 29}, {"max_position_embeddings", 30}},
       kWrong,
       {"max_position_embeddings", "30", "29"}},
      {"xlm-roberta", {{"pad_token_id", -1}}, kWrong, {"pad_token_id"}},
      {"xlm-roberta", {{"max_position_embeddings", 43}}, kWrong, {"position_embeddings", "[43, "}},
      {"nomic-bert",
       {{"activation_function", "gelu"}},
       kLacks,
       {"activation_function", "gelu", "swiglu"}},
      {"nomic-bert", {{"rotary_scaling_factor", 2}}, kLacks, {"rotary_scaling_factor"}},
      {"nomic-bert", {{"rotary_emb_interleaved", true}}, kLacks, {"rotary_emb_interleaved"}},
      {"nomic-bert", {{"rotary_emb_scale_base", 512}}, kLacks, {"rotary_emb_scale_base"}},
      {"nomic-bert", {{"rotary_emb_fraction", 0}}, kWrong, {"partial_rotary_factor"}},
      {"nomic-bert", {{"prenorm", true}}, kLacks, {"prenorm"}},
      {"nomic-bert", {{"parallel_block", true}}, kLacks, {"parallel_block"}},
      {"nomic-bert", {{"use_rms_norm", true}}, kLacks, {"use_rms_norm"}},
      {"nomic-bert", {{"causal", true}}, kLacks, {"causal"}},
      {"nomic-bert", {{"scale_attn_weights", false}}, kLacks, {"scale_attn_weights"}},
      {"nomic-bert", {{"moe_every_n_layers", 2}}, kLacks, {"moe_every_n_layers"}},
      {"nomic-bert", {{"qkv_proj_bias", nullptr}}, kWrong, {"Wqkv.bias", "missing"}},
      {"nomic-bert", {{"pad_vocab_size_multiple", 512}}, kWrong, {"word_embeddings", "[512, 32]"}},
  };
  for (const Refusal& refusal : refusals) {
    const ChangedFolder folder(refusal.checkpoint, refusal.changes);
    const absl::Status status = LoadStatus(folder.path());
    EXPECT_EQ(status.code(), refusal.code) << refusal.changes << ": " << status;
    for (const char* said : refusal.said) {
      EXPECT_THAT(std::string(status.message()), HasSubstr(said)) << refusal.changes;
    }
  }
}

TEST(EncoderConfigTest, FeaturesThatAreSwitchedOffAreNoReasonToRefuse) {
  const Vectors want = *Load(GoldenFolder("bert"), Reference())->HiddenStates(kSomeTokens);
  const ChangedFolder folder("bert", {{"is_decoder", false},
                                      {"pruned_heads", Json::object()},
                                      {"layer_norm_eps", nullptr},
                                      {"type_vocab_size", nullptr},
                                      {"hidden_act", nullptr},
                                      {"position_embedding_type", nullptr}});
  EXPECT_EQ(*Load(folder.path(), Reference())->HiddenStates(kSomeTokens), want);
}

// transformers 5's own class writes BERT's keys, without those of biases.
TEST(EncoderConfigTest, NomicBertWithBertsKeysIsTheSame) {
  const Vectors want = *Load(GoldenFolder("nomic-bert"), Reference())->HiddenStates(kSomeTokens);
  const Json changes = {{"n_embd", nullptr},          {"n_head", nullptr},
                        {"n_inner", nullptr},         {"n_layer", nullptr},
                        {"n_positions", nullptr},     {"layer_norm_epsilon", nullptr},
                        {"rotary_emb_base", nullptr}, {"activation_function", nullptr},
                        {"hidden_size", 32},          {"num_attention_heads", 4},
                        {"intermediate_size", 64},    {"num_hidden_layers", 2},
                        {"hidden_act", "silu"},       {"max_position_embeddings", 512}};
  const ChangedFolder implied("nomic-bert", changes);
  EXPECT_EQ(*Load(implied.path(), Reference())->HiddenStates(kSomeTokens), want);
  Json named = changes;
  named["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1000.0}};
  const ChangedFolder said("nomic-bert", named);
  EXPECT_EQ(*Load(said.path(), Reference())->HiddenStates(kSomeTokens), want);
}

TEST(DecoderEmbeddings, NeedNoHead) {
  const Vectors want =
      *Load(GoldenFolder("qwen3-embedding"), Reference())->HiddenStates(kSomeTokens);
  for (const char* architecture : {"Qwen3ForCausalLM", "Qwen3Model"}) {
    const ChangedFolder folder("qwen3-embedding",
                               {{"tie_word_embeddings", false}, {"architectures", {architecture}}});
    EXPECT_EQ(*Load(folder.path(), Reference())->HiddenStates(kSomeTokens), want) << architecture;
    const auto source = OpenWeights(folder.path());
    const absl::Status status = LoadModel(**source, *Reference(), 64).status();
    EXPECT_THAT(std::string(status.message()), HasSubstr("lm_head.weight is missing"));
  }
}

TEST(EncoderConfigTest, DecodersAreNone) {
  for (const char* name : {"bert", "nomic-bert", "llama-gqa", "qwen3-embedding"}) {
    const auto source = OpenWeights(GoldenFolder(name));
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_EQ(IsEncoder(**source), absl::StrContains(name, "bert")) << name;
  }
  const auto source = OpenWeights(GoldenFolder("llama-gqa"));
  const absl::Status status = LoadEncoderConfig(**source).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("LlamaFor"), HasSubstr("BertModel")));
}

TEST(EmbedderTest, SequencesThatDoNotFitAreNamed) {
  const Loaded bert = Load(GoldenFolder("bert"), Reference());
  const Loaded small = Load(GoldenFolder("bert"), Reference(), {.tokens = 100});
  const Loaded nomic = Load(GoldenFolder("nomic-bert"), Reference());
  EXPECT_EQ(bert->max_tokens(), 128);  // its positions
  EXPECT_EQ(small->max_tokens(), 100);
  EXPECT_EQ(nomic->max_tokens(), 2048);
  EXPECT_EQ(bert->dimensions(), 64);
  struct Case {
    const Loaded& encoder;
    std::vector<Token> tokens;
    std::vector<const char*> said;
  };
  const Case cases[] = {{bert, std::vector<Token>(129, 1), {"sequence 1", "129", "1 to 128"}},
                        {small, std::vector<Token>(101, 1), {"sequence 1", "101", "1 to 100"}},
                        {bert, {}, {"sequence 1", "0 tokens"}},
                        {bert, {3, 512}, {"sequence 1", "token 512", "0 to 511"}},
                        {bert, {-1}, {"sequence 1", "token -1"}}};
  for (const Case& each : cases) {
    const auto got = each.encoder->Embed({{1}, each.tokens}, {});
    EXPECT_EQ(got.status().code(), absl::StatusCode::kInvalidArgument);
    for (const char* said : each.said) {
      EXPECT_THAT(std::string(got.status().message()), HasSubstr(said));
    }
    EXPECT_EQ(each.encoder->HiddenStates({{1}, each.tokens}).status(), got.status());
  }
  const std::vector<Token> longest(128, 1);
  EXPECT_TRUE(bert->Embed({longest}, {}).ok());
  EXPECT_TRUE(bert->Embed({}, {})->empty());
}

}  // namespace
}  // namespace fairlead

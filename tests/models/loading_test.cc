// SPDX-License-Identifier: Apache-2.0
// What loading costs, in bytes: a checkpoint of some 100 MB is read from storage once, and the
// process takes no more memory of its own than its packed weights, whatever they are made of.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <iostream>
#include <map>
#include <numeric>
#include <thread>

#include "kernels/half.h"
#include "models/convert_weights.h"
#include "models/model.h"
#include "models/weight_cache.h"
#include "tests/models/checkpoint_bytes.h"
#include "tests/sanitized.h"

namespace fairlead {
namespace {

namespace fs = std::filesystem;

constexpr int kPositions = 256;
// Of what is read, and of memory: the bars of the design.
constexpr double kOver = 1.05;
// Stacks, the allocator's own, code that comes into memory. Of a server's size it is nothing.
constexpr int64_t kSmall = int64_t{8} << 20;

int64_t Number(const char* file, std::string_view key, int64_t unit) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(key)) return std::stoll(line.substr(key.size())) * unit;
  }
  return 0;
}
int64_t AnonymousBytes() { return Number("/proc/self/status", "RssAnon:", 1024); }
int64_t MappedBytes() { return Number("/proc/self/status", "RssFile:", 1024); }
int64_t ReadBytes() { return Number("/proc/self/io", "read_bytes:", 1); }

// The most that the process had while this lived.
class Peaks {
 public:
  Peaks()
      : anonymous_(AnonymousBytes()), mapped_(MappedBytes()), sampler_([this] {
          while (!stop_) {
            Raise(anonymous_, AnonymousBytes());
            Raise(mapped_, MappedBytes());
          }
        }) {}
  ~Peaks() { Stop(); }
  void Stop() {
    stop_ = true;
    if (sampler_.joinable()) sampler_.join();
  }
  int64_t anonymous() const { return anonymous_; }
  int64_t mapped() const { return mapped_; }

 private:
  static void Raise(std::atomic<int64_t>& most, int64_t now) {
    if (now > most) most = now;
  }
  std::atomic<int64_t> anonymous_, mapped_;
  std::atomic<bool> stop_ = false;
  std::thread sampler_;
};

// Puts it on storage and takes it off memory.
void MakeCold(const fs::path& path) {
  if (fs::is_directory(path)) {
    for (const auto& entry : fs::directory_iterator(path)) MakeCold(entry.path());
    return;
  }
  const int fd = open(path.c_str(), O_RDONLY);
  ASSERT_GE(fd, 0) << path;
  EXPECT_EQ(fsync(fd), 0);
  EXPECT_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
  close(fd);
}

int64_t Bytes(const fs::path& path) {
  if (!fs::is_directory(path)) return static_cast<int64_t>(fs::file_size(path));
  int64_t total = 0;
  for (const auto& entry : fs::directory_iterator(path)) total += Bytes(entry.path());
  return total;
}

// Data that repeats, so that it is written fast: values as trained weights have them.
std::string Pattern(std::string_view type) {
  std::string out;
  uint32_t random = 1;
  for (int i = 0; i < 4096; ++i) {
    random = random * 1664525 + 1013904223;
    const float value = (static_cast<float>(random >> 16) / 32768 - 1) / 16;
    if (type == "BF16") {
      Put(out, F32ToBF16(value));
    } else if (type == "F16") {
      Put(out, F32ToF16(value));
    } else if (type == "F32") {
      Put(out, 1.0f / 512);
    } else if (type == "F8_E4M3") {
      Put(out, static_cast<uint8_t>((random >> 24) & 0xbf));  // below 2: no NaN
    } else if (type == "Q4_0") {
      Put(out, F32ToF16(1.0f / 128));
      for (int j = 0; j < 16; ++j) Put(out, static_cast<uint8_t>(random >> j));
    } else {
      Put(out, random);
    }
  }
  return out;
}

void WriteRepeated(std::ofstream& out, const std::string& pattern, uint64_t bytes) {
  for (uint64_t at = 0; at < bytes; at += pattern.size()) {
    out.write(pattern.data(),
              static_cast<std::streamsize>(std::min<uint64_t>(pattern.size(), bytes - at)));
  }
}

class FolderWriter {
 public:
  void Add(const std::string& name, const std::string& type, const std::vector<uint64_t>& dim) {
    static const std::map<std::string, uint64_t> kSizes = {
        {"F8_E4M3", 1}, {"BF16", 2}, {"F16", 2}, {"F32", 4}, {"I32", 4}};
    const uint64_t bytes =
        std::accumulate(dim.begin(), dim.end(), kSizes.at(type), std::multiplies<>());
    header_[name] = {{"dtype", type}, {"shape", dim}, {"data_offsets", {end_, end_ + bytes}}};
    tensors_.emplace_back(type, bytes);
    end_ += bytes;
  }
  void Write(const fs::path& folder, const Json& config) const {
    fs::create_directories(folder);
    std::ofstream(folder / "config.json") << config.dump();
    std::ofstream out(folder / "model.safetensors", std::ios::binary);
    const std::string header = header_.dump();
    const auto length = uint64_t{header.size()};
    out.write(reinterpret_cast<const char*>(&length), sizeof(length));
    out << header;
    for (const auto& [type, bytes] : tensors_) WriteRepeated(out, Pattern(type), bytes);
    ASSERT_TRUE(out.flush()) << folder;
  }

 private:
  Json header_ = Json::object();
  std::vector<std::pair<std::string, uint64_t>> tensors_;
  uint64_t end_ = 0;
};

constexpr uint64_t kHidden = 1024, kFfn = 2816, kVocab = 8192, kKv = 512;
constexpr int kLayers = 6;

Json LlamaConfig() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_size", kHidden},
          {"intermediate_size", kFfn},
          {"num_hidden_layers", kLayers},
          {"num_attention_heads", 16},
          {"num_key_value_heads", 8},
          {"vocab_size", kVocab},
          {"max_position_embeddings", kPositions},
          {"rms_norm_eps", 1e-5},
          {"tie_word_embeddings", false}};
}

// add(module, outputs, inputs) for each linear layer.
template <typename AddLinear>
void WriteLlama(const fs::path& path, const std::string& type, const Json& quantization,
                const AddLinear& add) {
  FolderWriter writer;
  Json config = LlamaConfig();
  config["torch_dtype"] = type == "F16" ? "float16" : "bfloat16";
  if (!quantization.is_null()) config["quantization_config"] = quantization;
  writer.Add("model.embed_tokens.weight", type, {kVocab, kHidden});
  writer.Add("lm_head.weight", type, {kVocab, kHidden});
  for (int i = 0; i < kLayers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    writer.Add(layer + "input_layernorm.weight", type, {kHidden});
    for (const auto& [module, outputs, inputs] : {std::tuple{"self_attn.q_proj", kHidden, kHidden},
                                                  {"self_attn.k_proj", kKv, kHidden},
                                                  {"self_attn.v_proj", kKv, kHidden},
                                                  {"self_attn.o_proj", kHidden, kHidden},
                                                  {"mlp.gate_proj", kFfn, kHidden},
                                                  {"mlp.up_proj", kFfn, kHidden},
                                                  {"mlp.down_proj", kHidden, kFfn}}) {
      add(writer, layer + module, outputs, inputs);
    }
    writer.Add(layer + "post_attention_layernorm.weight", type, {kHidden});
  }
  writer.Add("model.norm.weight", type, {kHidden});
  writer.Write(path, config);
}

void WriteBf16(const fs::path& path) {
  WriteLlama(
      path, "BF16", nullptr,
      [](FolderWriter& writer, const std::string& module, uint64_t outputs, uint64_t inputs) {
        writer.Add(module + ".weight", "BF16", {outputs, inputs});
      });
}

void WriteGptq(const fs::path& path) {
  const Json quantization = {
      {"quant_method", "gptq"}, {"bits", 4},   {"group_size", 128},
      {"desc_act", false},      {"sym", true}, {"checkpoint_format", "gptq"}};
  WriteLlama(
      path, "F16", quantization,
      [](FolderWriter& writer, const std::string& module, uint64_t outputs, uint64_t inputs) {
        writer.Add(module + ".qweight", "I32", {inputs / 8, outputs});
        writer.Add(module + ".qzeros", "I32", {inputs / 128, outputs / 8});
        writer.Add(module + ".scales", "F16", {inputs / 128, outputs});
      });
}

void WriteFp8(const fs::path& path) {
  const Json quantization = {{"quant_method", "fp8"},
                             {"activation_scheme", "dynamic"},
                             {"fmt", "e4m3"},
                             {"weight_block_size", {128, 128}}};
  WriteLlama(
      path, "BF16", quantization,
      [](FolderWriter& writer, const std::string& module, uint64_t outputs, uint64_t inputs) {
        writer.Add(module + ".weight", "F8_E4M3", {outputs, inputs});
        writer.Add(module + ".weight_scale_inv", "F32", {outputs / 128, inputs / 128});
      });
}

// Experts as gpt-oss's folders have them: transposed, gate and up taking turns.
void WriteFusedExperts(const fs::path& path) {
  constexpr uint64_t kExperts = 8, kWidth = 640, kExpertFfn = 1024;
  constexpr int kExpertLayers = 4;
  FolderWriter writer;
  writer.Add("model.embed_tokens.weight", "BF16", {kVocab, kWidth});
  writer.Add("lm_head.weight", "BF16", {kVocab, kWidth});
  Json types = Json::array();
  for (int i = 0; i < kExpertLayers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    const auto add = [&](const std::string& name, const std::vector<uint64_t>& dim) {
      writer.Add(layer + name, "BF16", dim);
    };
    types.push_back(i % 2 == 0 ? "sliding_attention" : "full_attention");
    add("input_layernorm.weight", {kWidth});
    add("post_attention_layernorm.weight", {kWidth});
    for (const char* module : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
      add(std::string("self_attn.") + module + ".weight", {kWidth, kWidth});
      add(std::string("self_attn.") + module + ".bias", {kWidth});
    }
    add("self_attn.sinks", {10});
    add("mlp.router.weight", {kExperts, kWidth});
    add("mlp.router.bias", {kExperts});
    add("mlp.experts.gate_up_proj", {kExperts, kWidth, 2 * kExpertFfn});
    add("mlp.experts.gate_up_proj_bias", {kExperts, 2 * kExpertFfn});
    add("mlp.experts.down_proj", {kExperts, kExpertFfn, kWidth});
    add("mlp.experts.down_proj_bias", {kExperts, kWidth});
  }
  writer.Add("model.norm.weight", "BF16", {kWidth});
  writer.Write(path, {{"architectures", {"GptOssForCausalLM"}},
                      {"model_type", "gpt_oss"},
                      {"hidden_size", kWidth},
                      {"intermediate_size", kExpertFfn},
                      {"num_hidden_layers", kExpertLayers},
                      {"num_attention_heads", 10},
                      {"num_key_value_heads", 10},
                      {"head_dim", 64},
                      {"vocab_size", kVocab},
                      {"max_position_embeddings", kPositions},
                      {"hidden_act", "silu"},
                      {"rms_norm_eps", 1e-5},
                      {"rope_theta", 150000.0},
                      {"tie_word_embeddings", false},
                      {"torch_dtype", "bfloat16"},
                      {"num_local_experts", kExperts},
                      {"num_experts_per_tok", 2},
                      {"sliding_window", 128},
                      {"layer_types", types},
                      {"attention_bias", true},
                      {"swiglu_limit", 7.0}});
}

void WriteGguf(const fs::path& path) {
  GgufWriter writer;
  writer.AddString("general.architecture", "llama");
  writer.AddU32("llama.block_count", kLayers);
  writer.AddU32("llama.context_length", kPositions);
  writer.AddU32("llama.embedding_length", kHidden);
  writer.AddU32("llama.feed_forward_length", kFfn);
  writer.AddU32("llama.attention.head_count", 16);
  writer.AddU32("llama.attention.head_count_kv", 8);
  writer.AddF32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  writer.AddU32("llama.vocab_size", kVocab);
  const std::string blocks = Pattern("Q4_0");
  const auto matrix = [&](const std::string& name, uint64_t outputs, uint64_t inputs) {
    constexpr uint32_t kTypeQ4_0 = 2;
    std::string data;
    for (uint64_t bytes = outputs * inputs / 32 * 18; data.size() < bytes;) {
      data.append(blocks, 0, bytes - data.size());
    }
    writer.AddTensor({.name = name,
                      .dims = {inputs, outputs},
                      .type = kTypeQ4_0,
                      .data = std::move(data),
                      .offset = {},
                      .n_dims = {}});
  };
  const std::vector<float> ones(kHidden, 1.0f);
  matrix("token_embd.weight", kVocab, kHidden);
  matrix("output.weight", kVocab, kHidden);
  for (int i = 0; i < kLayers; ++i) {
    const std::string layer = "blk." + std::to_string(i) + ".";
    writer.AddVector(layer + "attn_norm.weight", ones);
    matrix(layer + "attn_q.weight", kHidden, kHidden);
    matrix(layer + "attn_k.weight", kKv, kHidden);
    matrix(layer + "attn_v.weight", kKv, kHidden);
    matrix(layer + "attn_output.weight", kHidden, kHidden);
    matrix(layer + "ffn_gate.weight", kFfn, kHidden);
    matrix(layer + "ffn_up.weight", kFfn, kHidden);
    matrix(layer + "ffn_down.weight", kHidden, kFfn);
    writer.AddVector(layer + "ffn_norm.weight", ones);
  }
  writer.AddVector("output_norm.weight", ones);
  std::ofstream(path, std::ios::binary) << writer.Build();
}

struct LoadCase {
  const char* name;
  void (*write)(const fs::path& path);
  std::optional<DType> weight_dtype;
};

class LoadingTest : public ::testing::TestWithParam<LoadCase> {
 protected:
  LoadingTest() : folder_(fs::path(testing::TempDir()) / "loading_test") {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    model_ = folder_ / (std::string(GetParam().name).starts_with("Gguf") ? "model.gguf" : "model");
    options_.folder = folder_ / "cache";
    options_.settle = -absl::InfiniteDuration();
    GetParam().write(model_);
  }
  ~LoadingTest() override { fs::remove_all(folder_); }

  struct Cost {
    int64_t read = 0;       // from storage
    int64_t anonymous = 0;  // at most, more than before
    int64_t mapped = 0;     // at most, more than before: pages of files
    int64_t weights = 0;    // packed
    int64_t mapped_weights = 0;
    absl::StatusCode cache = absl::StatusCode::kOk;
  };
  // One start of the program, all of its files cold, in a process of its own: what an allocator
  // keeps of an earlier start would hide what this one takes.
  Cost Load(bool cached) {
    Cost cost;
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      cost = LoadHere(cached);
      const bool written = write(ends[1], &cost, sizeof(cost)) == sizeof(cost);
      std::cout.flush();
      _exit(written && !HasFailure() ? 0 : 1);
    }
    close(ends[1]);
    EXPECT_EQ(read(ends[0], &cost, sizeof(cost)), static_cast<ssize_t>(sizeof(cost)));
    close(ends[0]);
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0) << "the start failed";
    return cost;
  }

  Cost LoadHere(bool cached) {
    MakeCold(folder_);
    Cost cost;
    auto device = OpenDevice("cpu", {.threads = 2});
    EXPECT_TRUE(device.ok()) << device.status();
    const int64_t read = ReadBytes(), anonymous = AnonymousBytes(), mapped = MappedBytes();
    Peaks peaks;
    auto source = OpenWeights(model_);
    EXPECT_TRUE(source.ok()) << source.status();
    if (GetParam().weight_dtype) {
      source = ConvertWeights(*std::move(source), *GetParam().weight_dtype);
      EXPECT_TRUE(source.ok()) << source.status();
    }
    std::shared_ptr<WeightCache> cache;
    if (cached) {
      cache = std::make_shared<WeightCache>(options_, **source, **device);
      cost.cache = cache->status().code();
    }
    auto model = LoadModel(**source, **device, kPositions, cache);
    EXPECT_TRUE(model.ok()) << model.status();
    peaks.Stop();
    cost.read = ReadBytes() - read;
    cost.anonymous = peaks.anonymous() - anonymous;
    cost.mapped = peaks.mapped() - mapped;
    cost.weights = static_cast<int64_t>((*model)->weight_bytes());
    if (cache != nullptr) {
      cost.mapped_weights = static_cast<int64_t>(cache->mapped_bytes());
      std::promise<absl::Status> stored;
      cache->Store([&](const absl::Status& status) { stored.set_value(status); });
      if (cache->storing()) {
        EXPECT_TRUE(stored.get_future().get().ok());
      }
    }
    std::cout << (cached ? "with" : "without") << " a cache: of " << Bytes(model_) << " bytes read "
              << cost.read << ", weights " << cost.weights << ", of them mapped "
              << cost.mapped_weights << ", anonymous " << cost.anonymous << ", pages of files "
              << cost.mapped << "\n";
    return cost;
  }

  // The sanitizers' memory is not the product's.
  static void ExpectMemory(const Cost& cost) {
    if (kSanitized) return;
    EXPECT_LE(static_cast<double>(cost.anonymous),
              kOver * static_cast<double>(cost.weights - cost.mapped_weights) + kSmall);
  }

  const fs::path folder_;
  fs::path model_;
  WeightCacheOptions options_;
};

TEST_P(LoadingTest, ReadsOnceAndKeepsThePackedWeightsAlone) {
  Load(/*cached=*/false);  // the program's own code is read, too
  const Cost cost = Load(/*cached=*/false);
  EXPECT_LE(static_cast<double>(cost.read), kOver * static_cast<double>(Bytes(model_)));
  ExpectMemory(cost);
  // What has been packed is let go: no moment has all of the file.
  if (!kSanitized) {
    EXPECT_LE(cost.mapped, Bytes(model_) / 2);
  }
}

TEST_P(LoadingTest, ASecondStartReadsThePackedWeightsAlone) {
  const Cost first = Load(/*cached=*/true);
  EXPECT_EQ(first.cache, absl::StatusCode::kNotFound);
  EXPECT_LE(static_cast<double>(first.read), kOver * static_cast<double>(Bytes(model_)));
  ExpectMemory(first);
  const Cost second = Load(/*cached=*/true);
  ASSERT_EQ(second.cache, absl::StatusCode::kOk);
  // What oneDNN packs is packed each time, from the file.
  const int64_t again = std::min(Bytes(model_), second.weights - second.mapped_weights);
  const auto whole = static_cast<double>(Bytes(options_.folder) + again);
  EXPECT_LE(static_cast<double>(second.read), kOver * whole);
  ExpectMemory(second);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, LoadingTest,
                         ::testing::Values(LoadCase{"Gguf", WriteGguf, std::nullopt},
                                           LoadCase{"Bf16", WriteBf16, std::nullopt},
                                           LoadCase{"Bf16AsQ8", WriteBf16, DType::kQ8_0},
                                           LoadCase{"Gptq", WriteGptq, std::nullopt},
                                           LoadCase{"Fp8", WriteFp8, std::nullopt},
                                           LoadCase{"FusedExperts", WriteFusedExperts,
                                                    std::nullopt}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace fairlead

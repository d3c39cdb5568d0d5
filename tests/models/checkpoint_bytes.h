// SPDX-License-Identifier: Apache-2.0
// Writers of small checkpoints for tests, which can lie about anything. They share no code with the
// readers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fairlead {

using Bytes = std::vector<std::byte>;  // exactly as long as the file: ASan sees a read beyond it

template <typename T>
void Put(std::string& out, T value) {
  char raw[sizeof(T)];
  std::memcpy(raw, &value, sizeof(T));
  out.append(raw, sizeof(T));
}

inline Bytes ToBytes(std::string_view text) {
  Bytes bytes(text.size());
  if (!text.empty()) std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

inline std::string ReadWholeFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

// A folder of its own that goes away with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "fairlead_test_XXXXXX").string();
    path_ = mkdtemp(pattern.data()) == nullptr ? "" : pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  std::string Write(const std::string& name, std::string_view text) const {
    const std::string file = path_ + "/" + name;
    std::ofstream(file, std::ios::binary)
        .write(text.data(), static_cast<std::streamsize>(text.size()));
    return file;
  }

 private:
  std::string path_;
};

// ggml's numbers, from its specification.
enum GgufValue : uint32_t {
  kGgufU8 = 0,
  kGgufU32 = 4,
  kGgufI32 = 5,
  kGgufF32 = 6,
  kGgufBool = 7,
  kGgufString = 8,
  kGgufArray = 9,
  kGgufU64 = 10
};
enum GgufType : uint32_t {
  kTypeF32 = 0,
  kTypeF16 = 1,
  kTypeQ4_1 = 3,
  kTypeQ8K = 15,
  kTypeIq1S = 19,
  kTypeIq3S = 21,
  kTypeNvfp4 = 40
};

class GgufWriter {
 public:
  uint32_t version = 3;
  std::optional<uint64_t> tensor_count;  // what the header says, if not the truth
  std::optional<uint64_t> metadata_count;
  uint64_t alignment =
      32;  // how the data is laid out; say so with AddU32("general.alignment", ...)

  static std::string String(std::string_view text) {
    std::string out;
    Put(out, uint64_t{text.size()});
    return out.append(text);
  }
  void AddRaw(std::string_view key, uint32_t type, std::string_view value) {
    Put(metadata_.emplace_back(String(key)), type);
    metadata_.back().append(value);
  }
  template <typename T>
  void Add(std::string_view key, uint32_t type, T value) {
    std::string raw;
    Put(raw, value);
    AddRaw(key, type, raw);
  }
  void AddU32(std::string_view key, uint32_t value) { Add(key, kGgufU32, value); }
  void AddF32(std::string_view key, float value) { Add(key, kGgufF32, value); }
  void AddString(std::string_view key, std::string_view value) {
    AddRaw(key, kGgufString, String(value));
  }
  void AddArray(std::string_view key, uint32_t type, uint64_t count, std::string_view items) {
    std::string raw;
    Put(raw, type);
    Put(raw, count);
    AddRaw(key, kGgufArray, raw.append(items));
  }

  struct Tensor {
    std::string name;
    std::vector<uint64_t> dims;  // fastest first
    uint32_t type = kTypeF32;
    std::string data;
    std::optional<uint64_t> offset;  // what the description says, if not the truth
    std::optional<uint32_t> n_dims;
  };
  void AddTensor(Tensor tensor) { tensors_.push_back(std::move(tensor)); }
  // An f32 vector.
  void AddVector(std::string_view name, const std::vector<float>& values) {
    std::string data;
    for (const float value : values) Put(data, value);
    AddTensor({.name = std::string(name),
               .dims = {values.size()},
               .data = std::move(data),
               .offset = {},
               .n_dims = {}});
  }

  std::string Build() const {
    std::string out = "GGUF";
    Put(out, version);
    Put(out, tensor_count.value_or(tensors_.size()));
    Put(out, metadata_count.value_or(metadata_.size()));
    for (const std::string& entry : metadata_) out += entry;
    std::string data;
    for (const Tensor& tensor : tensors_) {
      out += String(tensor.name);
      Put(out, tensor.n_dims.value_or(static_cast<uint32_t>(tensor.dims.size())));
      for (const uint64_t dim : tensor.dims) Put(out, dim);
      Put(out, tensor.type);
      data.resize((data.size() + alignment - 1) / alignment * alignment);
      Put(out, tensor.offset.value_or(data.size()));
      data += tensor.data;
    }
    if (!tensors_.empty()) out.resize((out.size() + alignment - 1) / alignment * alignment);
    return out + data;
  }

 private:
  std::vector<std::string> metadata_;
  std::vector<Tensor> tensors_;
};

// The metadata of a small Llama, which ParseConfig accepts.
inline GgufWriter TinyLlama() {
  GgufWriter writer;
  writer.AddString("general.architecture", "llama");
  writer.AddU32("llama.block_count", 1);
  writer.AddU32("llama.context_length", 64);
  writer.AddU32("llama.embedding_length", 8);
  writer.AddU32("llama.feed_forward_length", 16);
  writer.AddU32("llama.attention.head_count", 2);
  writer.AddU32("llama.attention.head_count_kv", 1);
  writer.AddF32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  writer.AddU32("llama.vocab_size", 3);
  return writer;
}

// u64 length of the header, header, data.
inline std::string SafetensorsFile(std::string_view header, std::string_view data) {
  std::string out;
  Put(out, uint64_t{header.size()});
  return out.append(header).append(data);
}

}  // namespace fairlead

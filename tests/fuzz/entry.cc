// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/entry.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "kernels/check.h"
#include "models/detokenizer.h"
#include "models/encoder_config.h"
#include "models/registry.h"

namespace fairlead {
namespace {

// Of a made tensor, at the beginning and at the end.
constexpr int64_t kRowsRead = 2;
constexpr size_t kMostRowBytes = size_t{1} << 20;

struct Scratch {
  std::string path;
  Scratch() {
    // In memory where that can be: thousands of files are written a second.
    const std::filesystem::path memory = "/dev/shm";
    std::string pattern =
        (std::filesystem::exists(memory) ? memory : std::filesystem::temp_directory_path()) /
        "fairlead_fuzz_XXXXXX";
    FAIRLEAD_CHECK(mkdtemp(pattern.data()) != nullptr);
    path = pattern;
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

void ReadRows(const WeightInfo& tensor, int64_t first, int64_t rows, size_t row_bytes) {
  const WeightBytes bytes(tensor, first, rows);
  volatile unsigned char sum = 0;
  for (size_t i = 0; i < row_bytes * static_cast<size_t>(rows); ++i) {
    sum = static_cast<unsigned char>(sum ^ std::to_integer<unsigned char>(bytes.data()[i]));
  }
}

}  // namespace

std::vector<std::string_view> SplitInput(const uint8_t* data, size_t size, size_t count) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  std::vector<std::string_view> parts(count);
  for (size_t i = 0; i + 1 < count; ++i) {
    const size_t end = rest.find('\0');
    parts[i] = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  }
  parts.back() = rest;
  return parts;
}

std::vector<std::byte> OwnBytes(std::string_view text) {
  std::vector<std::byte> bytes(text.size());
  if (!text.empty()) std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

MemoryFile::MemoryFile(std::string_view content) : file_(memfd_create("input", MFD_CLOEXEC)) {
  FAIRLEAD_CHECK(file_ >= 0);
  while (!content.empty()) {
    const ssize_t written = write(file_, content.data(), content.size());
    FAIRLEAD_CHECK(written > 0);
    content.remove_prefix(static_cast<size_t>(written));
  }
  path_ = "/proc/self/fd/" + std::to_string(file_);
}

MemoryFile::~MemoryFile() { close(file_); }

const std::string& ScratchFolder() {
  static const Scratch scratch;
  return scratch.path;
}

void WriteScratch(const std::string& name, std::string_view content) {
  const std::filesystem::path path = std::filesystem::path(ScratchFolder()) / name;
  if (content.empty()) {
    std::filesystem::remove(path);
    return;
  }
  std::filesystem::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  FAIRLEAD_CHECK(file.good());
}

void CheckWeights(const WeightSource& source) {
  for (const WeightInfo& tensor : source.tensors()) {
    FAIRLEAD_CHECK(source.Find(tensor.name) != nullptr);
    if (tensor.dim.empty() || tensor.bytes == 0) continue;
    const size_t row_bytes = RowBytes(tensor.dtype, tensor.dim.back());
    const int64_t rows = tensor.rows();
    FAIRLEAD_CHECK(rows > 0 && tensor.bytes == row_bytes * static_cast<size_t>(rows));
    if (row_bytes > kMostRowBytes) continue;
    const int64_t count = std::min(rows, kRowsRead);
    ReadRows(tensor, 0, count, row_bytes);
    ReadRows(tensor, rows - count, count, row_bytes);
  }
  if (IsEncoder(source)) {
    const auto config = LoadEncoderConfig(source);
    FAIRLEAD_CHECK(!config.ok() || (config->hidden > 0 && config->heads > 0));
    return;
  }
  const auto config = LoadModelConfig(source);
  if (!config.ok()) return;
  FAIRLEAD_CHECK(config->hidden > 0 && config->vocab > 0 && config->head_dim > 0);
  FAIRLEAD_CHECK(config->kv_heads > 0 && config->heads % config->kv_heads == 0);
  FAIRLEAD_CHECK(config->layer.size() == static_cast<size_t>(config->layers));
  for (const LayerConfig& layer : config->layer) {
    FAIRLEAD_CHECK(layer.window >= 0 && layer.rope < static_cast<int>(config->ropes.size()));
  }
}

void CheckTokens(const Tokenizer& tokenizer, absl::Span<const Token> tokens) {
  for (const bool skip_special : {false, true}) {
    Detokenizer stream(tokenizer, skip_special);
    std::string text;
    for (const Token token : tokens) {
      const std::string piece = stream.Push(token);
      FAIRLEAD_CHECK(IsValidUtf8(piece));
      text += piece;
    }
    const std::string last = stream.Finish();
    FAIRLEAD_CHECK(IsValidUtf8(last));
    FAIRLEAD_CHECK(text + last == tokenizer.Decode(tokens, skip_special));
  }
}

void CheckText(const Tokenizer& tokenizer, std::string_view text) {
  for (const bool special : {true, false}) {
    const std::vector<Token> tokens =
        tokenizer.Encode(text, {.add_special_tokens = special, .parse_special = special});
    for (const Token token : tokens) FAIRLEAD_CHECK(token >= 0 && token < tokenizer.vocab_size());
    CheckTokens(tokenizer, tokens);
  }
}

}  // namespace fairlead

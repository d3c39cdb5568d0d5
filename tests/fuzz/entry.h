// SPDX-License-Identifier: Apache-2.0
// What the fuzz entries share. An entry is a function on bytes that promises something whatever
// they are; a broken promise aborts. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "models/json.h"
#include "models/tokenizer.h"
#include "models/weights.h"

// libFuzzer's name. The replay test gives each entry another one.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace fairlead {

// The parts between zero bytes, which text files do not hold: always `count`, the last ones empty
// where there are fewer, the last one with all that is left.
std::vector<std::string_view> SplitInput(const uint8_t* data, size_t size, size_t count);

// The same bytes as a block of their own, so that AddressSanitizer sees a read beyond the end.
std::vector<std::byte> OwnBytes(std::string_view text);

// A file in memory with this content. Has a path as long as it lives.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view content);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  int file_;
  std::string path_;
};

// One folder of the process, whose files are written anew for each input.
const std::string& ScratchFolder();
// Empty content: no such file.
void WriteScratch(const std::string& name, std::string_view content);

// What everybody does who loads a model: each read config and tensor of `source` is looked at.
// Promises that bytes, shape and dtype of every tensor agree, and that all bytes can be read.
void CheckWeights(const WeightSource& source);

// Ids are of the vocabulary; a stream's pieces are UTF-8, and together what Decode gives.
void CheckTokens(const Tokenizer& tokenizer, absl::Span<const Token> tokens);

// The same of the ids of `text`, with special tokens and without.
void CheckText(const Tokenizer& tokenizer, std::string_view text);

}  // namespace fairlead

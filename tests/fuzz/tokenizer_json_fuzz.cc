// SPDX-License-Identifier: Apache-2.0
// A tokenizer.json and, behind a zero byte, a text. The file is refused, or the text becomes ids of
// its vocabulary, with and without special tokens, and these stream as they decode.
#include "tests/fuzz/entry.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fairlead;  // NOLINT: a fuzz entry
  const std::vector<std::string_view> parts = SplitInput(data, size, 2);
  const MemoryFile file(parts[0]);
  const auto tokenizer = LoadTokenizerFromPath(file.path());
  if (!tokenizer.ok()) return 0;
  for (const std::string_view text :
       {parts[1], std::string_view("Hello, world <s>\n 42 \xc3\xa9")}) {
    CheckText(**tokenizer, text);
  }
  return 0;
}

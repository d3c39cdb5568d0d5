// SPDX-License-Identifier: Apache-2.0
// A GGUF file. Whatever it holds, it is opened or refused; what its tensors are said to take lies
// within it and can be read; its config and tokenizer are read or refused.
#include "models/gguf.h"
#include "models/pooling.h"
#include "tests/fuzz/entry.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fairlead;  // NOLINT: a fuzz entry
  const auto bytes = OwnBytes({reinterpret_cast<const char*>(data), size});
  const auto source = OpenGgufBytes(bytes, "input");
  if (!source.ok()) return 0;
  CheckWeights(**source);
  (void)ReadPooling(**source);
  const auto tokenizer = LoadTokenizer(**source);
  if (!tokenizer.ok()) return 0;
  CheckTokens(**tokenizer, (*tokenizer)->Encode("Hello, world 123\n\t<s> \xc3\xa9\xff"));
  return 0;
}

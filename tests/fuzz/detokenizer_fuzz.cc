// SPDX-License-Identifier: Apache-2.0
// The first byte chooses a tokenizer of the goldens; the others are ids, two bytes each, and once
// more a text. Any ids stream as UTF-8 that is together what Decode gives. A text that is UTF-8
// comes back from its ids as it was, unless the tokenizer normalizes it.
#include <array>
#include <cstring>
#include <memory>

#include "kernels/check.h"
#include "kernels/strings.h"
#include "models/detokenizer.h"
#include "tests/fuzz/entry.h"

namespace fairlead {
namespace {

struct Golden {
  const char* name;
  bool exact;  // no normalizer, no space put in front
  std::unique_ptr<Tokenizer> tokenizer = nullptr;
};

const std::array<Golden, 4>& Goldens() {
  static const auto* const kGoldens = [] {
    auto* goldens = new std::array<Golden, 4>{Golden{"bpe-gpt2", true}, Golden{"bpe-llama3", true},
                                              Golden{"bpe-qwen2", false},
                                              Golden{"bpe-gpt2-prefix-space", false}};
    for (Golden& golden : *goldens) {
      auto loaded = LoadTokenizerFromPath(
          StrCat(FAIRLEAD_GOLDEN_DIR "/tokenizers/", golden.name, "/tokenizer.json"));
      FAIRLEAD_CHECK(loaded.ok());
      golden.tokenizer = *std::move(loaded);
    }
    return goldens;
  }();
  return *kGoldens;
}

}  // namespace
}  // namespace fairlead

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fairlead;  // NOLINT: a fuzz entry
  if (size == 0) return 0;
  const Golden& golden = Goldens()[data[0] % Goldens().size()];
  const Tokenizer& tokenizer = *golden.tokenizer;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::vector<Token> ids;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    uint16_t id;
    std::memcpy(&id, text.data() + i, sizeof(id));
    // Some are not in the vocabulary, some are no ids at all.
    ids.push_back(id >= 0xfff0 ? -1 : id % (tokenizer.vocab_size() + 16));
  }
  CheckTokens(tokenizer, ids);
  for (const bool special : {true, false}) {
    const std::vector<Token> tokens =
        tokenizer.Encode(text, {.add_special_tokens = false, .parse_special = special});
    CheckTokens(tokenizer, tokens);
    if (golden.exact && IsValidUtf8(text)) {
      FAIRLEAD_CHECK(tokenizer.Decode(tokens, /*skip_special_tokens=*/false) == text);
    }
  }
  return 0;
}

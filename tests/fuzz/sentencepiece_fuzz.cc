// SPDX-License-Identifier: Apache-2.0
// A length and a text, a length and a tokenizer_config.json (the lengths two bytes each, little
// end first), a tokenizer.model. The model is refused, alone and in a folder beside the config, or
// the text becomes ids of its vocabulary, with and without special tokens, and these stream as they
// decode.
#include <utility>

#include "kernels/check.h"
#include "models/sentencepiece_folder.h"
#include "tests/fuzz/entry.h"

namespace fairlead {
namespace {

std::string_view TakePart(std::string_view& rest) {
  if (rest.size() < 2) return std::exchange(rest, {});
  const size_t wanted = static_cast<uint8_t>(rest[0]) + 256u * static_cast<uint8_t>(rest[1]);
  rest.remove_prefix(2);
  const std::string_view part = rest.substr(0, wanted);
  rest.remove_prefix(part.size());
  return part;
}

void CheckLoaded(const absl::StatusOr<std::unique_ptr<Tokenizer>>& tokenizer,
                 std::string_view text) {
  if (tokenizer.ok()) return CheckText(**tokenizer, text);
  FAIRLEAD_CHECK(!tokenizer.status().message().empty());
}

}  // namespace
}  // namespace fairlead

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fairlead;  // NOLINT: a fuzz entry
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const std::string_view text = TakePart(rest);
  const std::string_view config = TakePart(rest);
  WriteScratch("tokenizer_config.json", config);
  WriteScratch("tokenizer.model", rest);
  CheckLoaded(LoadSentencePieceFile(ScratchFolder() + "/tokenizer.model"), text);
  CheckLoaded(LoadSentencePieceFolder(ScratchFolder()), text);
  return 0;
}

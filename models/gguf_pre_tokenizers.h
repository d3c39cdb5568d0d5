// SPDX-License-Identifier: Apache-2.0
// How GGUF's byte-level BPE vocabularies split text: the names of tokenizer.ggml.pre, and what they
// stand for in the tokenizer.json files of the models that have them. Any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace fairlead {

// The patterns split one after the other, matches isolated.
struct GgufPreTokenizer {
  std::vector<std::string_view> name;
  std::vector<std::string_view> pattern;
  bool ignore_merges = false;
  bool add_bos = false;  // these two where the file does not say
  bool add_eos = false;
  bool strip_before_mask = false;  // <mask> takes the white space before it along
  bool nfc = false;                // the models' own tokenizer.json normalizes
};

// kUnimplemented names the unknown one and lists the known ones.
absl::StatusOr<const GgufPreTokenizer*> FindGgufPreTokenizer(const std::string& name);

}  // namespace fairlead

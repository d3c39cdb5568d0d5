// SPDX-License-Identifier: Apache-2.0
// A byte-level BPE tokenizer put together from the parts a file describes: added tokens,
// normalizer, pre-tokenizer, BPE, post-processor, with the order and the rules of Hugging Face
// tokenizers 0.23.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/added_tokens.h"
#include "models/bpe.h"
#include "models/post_processor.h"
#include "models/pretokenizer.h"
#include "models/tokenizer.h"
#include "models/vocabulary.h"

namespace fairlead {

// A token that a file names by id or by text.
struct TokenName {
  std::optional<Token> id;
  std::string text;  // if there is no id
};

struct BpeTokenizerParts {
  // Views into the file's data, which must live until MakeBpeTokenizer returns.
  std::vector<Vocabulary::Entry> vocabulary;
  std::vector<BpeModel::Rule> merges;
  BpeModel::Options options;  // `unknown` is found by its text:
  std::string unknown_text;
  // Ids are given out as the library does, whatever the file says: a text that the vocabulary has
  // keeps that id, others follow the vocabulary in order.
  std::vector<AddedToken> added;
  bool normalize_nfc = false;
  PreTokenizer pre_tokenizer;
  PostProcessor post_processor;
  std::optional<TokenName> bos;
  std::vector<TokenName> stop;  // a text that no token has is left out
};

// kInvalidArgument: see Vocabulary, BpeModel and AddedTokenMatcher. kUnimplemented: a pre-tokenizer
// that does not end in the byte-level alphabet.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeBpeTokenizer(BpeTokenizerParts parts);

}  // namespace fairlead

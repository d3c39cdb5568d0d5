// SPDX-License-Identifier: Apache-2.0
// A tokenizer put together from the parts a file describes: added tokens, normalizer,
// pre-tokenizer, model, post-processor, decoder, with the order and the rules of Hugging Face
// tokenizers 0.23.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/added_tokens.h"
#include "models/normalizer.h"
#include "models/post_processor.h"
#include "models/pretokenizer.h"
#include "models/token_decoder.h"
#include "models/token_model.h"
#include "models/tokenizer.h"
#include "models/vocabulary.h"

namespace fairlead {

// A token that a file names by id or by text.
struct TokenName {
  std::optional<Token> id;
  std::string text;  // if there is no id
};

struct TokenizerParts {
  // Makes the model, over a vocabulary that knows which tokens are special; called once. May hold
  // views into the file's data.
  using MakeModel = std::function<absl::StatusOr<std::unique_ptr<TokenModel>>(const Vocabulary&)>;

  // Views into the file's data, which must live until MakeTokenizer returns.
  std::vector<Vocabulary::Entry> vocabulary;
  bool vocabulary_repeats = false;  // Vocabulary::Create
  MakeModel make_model;
  // Ids are given out as the library does, whatever the file says: a text that the vocabulary has
  // keeps that id, others follow the vocabulary in order.
  std::vector<AddedToken> added;
  std::unique_ptr<Normalizer> normalizer;  // or null
  PreTokenizer pre_tokenizer;
  PostProcessor post_processor;
  TokenDecoder decoder = TokenDecoder::ByteLevel();
  std::optional<TokenName> bos;
  std::vector<TokenName> stop;  // a text that no token has is left out
};

// kInvalidArgument: see Vocabulary, AddedTokenMatcher and the model.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(TokenizerParts parts);

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "models/gguf_sentencepiece.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "kernels/strings.h"
#include "models/config_reader.h"
#include "models/unigram_lattice.h"

namespace fairlead {
namespace {

// The rules as the list of bytes that GGUF holds them in.
absl::StatusOr<Charsmap> ReadCharsmap(const Json& metadata) {
  constexpr std::string_view kKey = "precompiled_charsmap";
  absl::StatusOr<const Json*> list = FindGgufList(metadata, kKey);
  if (!list.ok()) return list.status();
  std::string bytes;
  if (*list == nullptr) return Charsmap::Create(bytes);
  bytes.reserve((*list)->size());
  for (const Json& byte : **list) {
    if (!byte.is_number_integer() || byte < -128 || byte > 255)
      return MalformedGguf(kKey, StrCat("entry ", bytes.size(), " is not a byte"));
    bytes.push_back(static_cast<char>(byte.get<int>()));
  }
  return Charsmap::Create(bytes);
}

// One token is the unknown one: the one that the file names, or the first of that type.
std::optional<size_t> FindUnknown(const GgufVocabulary& vocabulary) {
  const auto is_unknown = [&](size_t id) {
    return vocabulary.TypeOf(id) == GgufTokenType::kUnknown;
  };
  if (vocabulary.unknown && (vocabulary.type.empty() || is_unknown(*vocabulary.unknown)))
    return *vocabulary.unknown;
  for (size_t id = 0; id < vocabulary.type.size(); ++id) {
    if (is_unknown(id)) return id;
  }
  return vocabulary.unknown;
}

// Adds the tokens; true if every byte has one.
bool AddTokens(const GgufVocabulary& vocabulary, bool strip_behind, SentencePieceParts* parts) {
  const std::optional<size_t> unknown = FindUnknown(vocabulary);
  absl::flat_hash_set<absl::string_view> matched;
  std::array<bool, 256> has_byte = {};
  for (size_t id = 0; id < vocabulary.token.size(); ++id) {
    const std::string_view text = vocabulary.token[id];
    auto type = static_cast<PieceType>(vocabulary.TypeOf(id));
    // A further one is no text's token.
    if (type == PieceType::kUnknown) type = PieceType::kControl;
    if (id == unknown) type = PieceType::kUnknown;
    const std::optional<unsigned char> byte = SpelledByte(text);
    if (vocabulary.type.empty() && byte) type = PieceType::kByte;
    if (type == PieceType::kByte && byte) has_byte[*byte] = true;
    parts->piece.push_back(
        {.text = text, .score = vocabulary.score.empty() ? 0 : vocabulary.score[id], .type = type});
    const bool special = type == PieceType::kControl || type == PieceType::kUnknown;
    if ((!special && type != PieceType::kUserDefined) || text.empty()) continue;
    if (!matched.insert(AbslView(text)).second) continue;
    const bool plain = text == "<s>" || text == "<unk>" || text == "<|endoftext|>";
    parts->added.push_back({.text = std::string(text),
                            .id = static_cast<Token>(id),
                            .rstrip = strip_behind && !plain,
                            .special = special});
  }
  return std::find(has_byte.begin(), has_byte.end(), false) == has_byte.end();
}

}  // namespace

absl::StatusOr<SentencePieceParts> DescribeGgufSentencePiece(const Json& metadata,
                                                             SegmentationModel model) {
  absl::StatusOr<GgufVocabulary> vocabulary = ReadGgufVocabulary(metadata);
  if (!vocabulary.ok()) return vocabulary.status();
  absl::StatusOr<Charsmap> charsmap = ReadCharsmap(metadata);
  if (!charsmap.ok()) return charsmap.status();
  const bool unigram = model == SegmentationModel::kUnigram;
  SentencePieceParts parts;
  parts.model = model;
  ConfigReader reader(metadata);
  // The tokenizer.json of the Phi-3 models lets their tokens take the white space behind them
  // along, which the file does not say.
  const bool phi3 = reader.String("general.architecture", "") == "phi3";
  parts.byte_fallback = AddTokens(*vocabulary, phi3, &parts);
  parts.normalizer.charsmap = *std::move(charsmap);
  parts.normalizer.add_dummy_prefix = reader.Bool("tokenizer.ggml.add_space_prefix", true);
  parts.normalizer.remove_extra_whitespaces =
      reader.Bool("tokenizer.ggml.remove_extra_whitespaces", false);
  parts.bos = vocabulary->bos;
  parts.stop = vocabulary->stop;
  if (!reader.ok()) return reader.status();
  absl::StatusOr<PostProcessor> around =
      ReadGgufPostProcessor(metadata, *vocabulary, !unigram, unigram);
  if (!around.ok()) return around.status();
  parts.post_processor = *std::move(around);
  return parts;
}

}  // namespace fairlead

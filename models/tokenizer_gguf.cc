// SPDX-License-Identifier: Apache-2.0
#include "models/tokenizer_gguf.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/strings.h"
#include "models/bpe.h"
#include "models/config_reader.h"
#include "models/gguf_pre_tokenizers.h"
#include "models/gguf_sentencepiece.h"
#include "models/gguf_vocabulary.h"
#include "models/normalizer_steps.h"
#include "models/pipeline_tokenizer.h"
#include "models/wordpiece.h"

namespace fairlead {
namespace {

absl::Status ReadMerges(const Json& metadata, std::vector<BpeModel::Rule>* out) {
  absl::StatusOr<const Json*> merges = FindGgufList(metadata, "merges");
  if (!merges.ok()) return merges.status();
  if (*merges == nullptr) return MalformedGguf("merges", "is missing; byte-level BPE needs it");
  out->reserve((*merges)->size());
  for (const Json& merge : **merges) {
    const std::string_view text =
        merge.is_string() ? std::string_view(merge.get_ref<const std::string&>()) : "";
    const size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
      return MalformedGguf("merges", StrCat("entry ", out->size(), " is not \"left right\""));
    }
    out->push_back({text.substr(0, space), text.substr(space + 1)});
  }
  return absl::OkStatus();
}

// Tokens that end a text or a turn, which converters give other types: llama.cpp knows them by
// name.
constexpr std::array<std::string_view, 22> kEndTokens = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "[e~[",
};

void MakeEndTokensControl(GgufVocabulary* vocabulary) {
  const auto has = [&](std::string_view name) {
    return std::find(vocabulary->token.begin(), vocabulary->token.end(), name) !=
           vocabulary->token.end();
  };
  const bool keeps_s = has("<|tool_response>");  // where </s> is a tag of text
  vocabulary->type.resize(vocabulary->token.size(), GgufTokenType::kNormal);
  for (size_t id = 0; id < vocabulary->token.size(); ++id) {
    const std::string_view text = vocabulary->token[id];
    const GgufTokenType type = vocabulary->type[id];
    const bool plain = type == GgufTokenType::kNormal || type == GgufTokenType::kUnused ||
                       type == GgufTokenType::kUserDefined;
    if (plain && std::find(kEndTokens.begin(), kEndTokens.end(), text) != kEndTokens.end() &&
        !(keeps_s && text == "</s>")) {
      vocabulary->type[id] = GgufTokenType::kControl;
    }
  }
}

// Adds the control and the user-defined tokens, the stop tokens and bos.
void AddRoles(const GgufVocabulary& vocabulary, TokenizerParts* parts) {
  for (size_t id = 0; id < vocabulary.token.size(); ++id) {
    const bool special = vocabulary.TypeOf(id) == GgufTokenType::kControl;
    if (special || vocabulary.TypeOf(id) == GgufTokenType::kUserDefined) {
      parts->added.push_back({.text = std::string(vocabulary.token[id]),
                              .id = static_cast<Token>(id),
                              .special = special});
    }
  }
  for (const Token stop : vocabulary.stop) parts->stop.push_back({.id = stop, .text = ""});
  if (vocabulary.bos) parts->bos = TokenName{.id = vocabulary.bos, .text = ""};
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadBpe(const Json& metadata) {
  ConfigReader reader(metadata);
  const std::string name = reader.String("tokenizer.ggml.pre", "default");
  if (!reader.ok()) return reader.status();
  absl::StatusOr<const GgufPreTokenizer*> pre = FindGgufPreTokenizer(name);
  if (!pre.ok()) return pre.status();
  absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::FromPatterns((*pre)->pattern);
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();
  absl::StatusOr<GgufVocabulary> vocabulary = ReadGgufVocabulary(metadata);
  if (!vocabulary.ok()) return vocabulary.status();
  std::vector<BpeModel::Rule> merges;
  if (absl::Status status = ReadMerges(metadata, &merges); !status.ok()) return status;

  TokenizerParts parts;
  parts.pre_tokenizer = *std::move(pre_tokenizer);
  if ((*pre)->nfc) parts.normalizer = Normalizer::Nfc();
  for (size_t id = 0; id < vocabulary->token.size(); ++id)
    parts.vocabulary.push_back({vocabulary->token[id], static_cast<int64_t>(id)});
  BpeModel::Options options;
  options.ignore_merges = (*pre)->ignore_merges;
  parts.make_model = [merges = std::move(merges), options](
                         const Vocabulary& known) -> absl::StatusOr<std::unique_ptr<TokenModel>> {
    return BpeModel::Create(known, merges, options);
  };
  MakeEndTokensControl(&*vocabulary);
  AddRoles(*vocabulary, &parts);
  for (AddedToken& token : parts.added)
    token.lstrip = (*pre)->strip_before_mask && token.text == "<mask>";
  absl::StatusOr<PostProcessor> around =
      ReadGgufPostProcessor(metadata, *vocabulary, (*pre)->add_bos, (*pre)->add_eos);
  if (!around.ok()) return around.status();
  parts.post_processor = *std::move(around);
  return MakeTokenizer(std::move(parts));
}

// The converters write U+2581 before what begins a word and leave out the ## before what does not.
std::vector<std::string> SpellWordPieces(const GgufVocabulary& vocabulary) {
  std::vector<std::string> spelling;
  spelling.reserve(vocabulary.token.size());
  for (size_t id = 0; id < vocabulary.token.size(); ++id) {
    std::string_view text = vocabulary.token[id];
    if (vocabulary.TypeOf(id) == GgufTokenType::kControl || text.empty()) {
      spelling.emplace_back(text);
    } else if (text.starts_with(kSpaceSymbol)) {
      spelling.emplace_back(text.substr(kSpaceSymbol.size()));
    } else {
      spelling.push_back(StrCat("##", text));
    }
  }
  return spelling;
}

// Where the file does not say whether the model lowers case: a vocabulary without capitals does.
bool HasCapitals(const GgufVocabulary& vocabulary) {
  for (size_t id = 0; id < vocabulary.token.size(); ++id) {
    const std::string_view text = vocabulary.token[id];
    if (vocabulary.TypeOf(id) != GgufTokenType::kNormal || text.find('[') != std::string_view::npos)
      continue;
    if (std::any_of(text.begin(), text.end(), [](char c) { return c >= 'A' && c <= 'Z'; }))
      return true;
  }
  return false;
}

// BERT's tokenizer.json: BertNormalizer, BertPreTokenizer, WordPiece, [CLS] $A [SEP].
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadWordPiece(const Json& metadata) {
  absl::StatusOr<GgufVocabulary> vocabulary = ReadGgufVocabulary(metadata);
  if (!vocabulary.ok()) return vocabulary.status();
  const std::vector<std::string> spelling = SpellWordPieces(*vocabulary);
  const auto find = [&](std::optional<Token> id, std::string_view name) {
    const auto found = std::find(spelling.begin(), spelling.end(), name);
    if (!id && found != spelling.end()) id = static_cast<Token>(found - spelling.begin());
    return id;
  };
  vocabulary->bos = find(vocabulary->bos, "[CLS]");
  vocabulary->eos = find(vocabulary->separator ? vocabulary->separator : vocabulary->eos, "[SEP]");
  vocabulary->stop.clear();  // of an encoder
  TokenizerParts parts;
  for (size_t id = 0; id < spelling.size(); ++id)
    parts.vocabulary.push_back({spelling[id], static_cast<int64_t>(id)});
  WordPieceOptions options;
  if (vocabulary->unknown) options.unknown = spelling[*vocabulary->unknown];
  parts.make_model = [options](const Vocabulary& known) { return MakeWordPiece(known, options); };
  ConfigReader reader(metadata);
  const bool lowercase =
      reader.Bool("tokenizer.ggml.normalizer.lowercase", !HasCapitals(*vocabulary));
  const bool strip_accents = reader.Bool("tokenizer.ggml.normalizer.strip_accents", lowercase);
  if (!reader.ok()) return reader.status();
  parts.normalizer = MakeBertNormalizer({.strip_accents = strip_accents, .lowercase = lowercase});
  absl::StatusOr<PreTokenizer> pre = PreTokenizer::FromJson({{"type", "BertPreTokenizer"}});
  if (!pre.ok()) return pre.status();
  parts.pre_tokenizer = *std::move(pre);
  absl::StatusOr<TokenDecoder> decoder =
      TokenDecoder::FromJson({{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}});
  if (!decoder.ok()) return decoder.status();
  parts.decoder = *std::move(decoder);
  AddRoles(*vocabulary, &parts);
  absl::StatusOr<PostProcessor> around = ReadGgufPostProcessor(metadata, *vocabulary, true, true);
  if (!around.ok()) return around.status();
  parts.post_processor = *std::move(around);
  return MakeTokenizer(std::move(parts));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadSentencePiece(const Json& metadata,
                                                             SegmentationModel model) {
  absl::StatusOr<SentencePieceParts> parts = DescribeGgufSentencePiece(metadata, model);
  if (!parts.ok()) return parts.status();
  return MakeSentencePieceTokenizer(*std::move(parts));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadGgufTokenizer(const Json& metadata) {
  ConfigReader reader(metadata);
  const std::string model = reader.String("tokenizer.ggml.model", "");
  if (!reader.ok()) return reader.status();
  if (model == "llama") return LoadSentencePiece(metadata, SegmentationModel::kBpe);
  if (model == "t5") return LoadSentencePiece(metadata, SegmentationModel::kUnigram);
  if (model == "gpt2") return LoadBpe(metadata);
  if (model == "bert") return LoadWordPiece(metadata);
  return absl::UnimplementedError(
      StrCat("tokenizer.ggml.model \"", model, "\" is unknown; known: gpt2, llama, t5, bert"));
}

}  // namespace fairlead

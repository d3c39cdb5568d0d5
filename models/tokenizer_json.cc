// SPDX-License-Identifier: Apache-2.0
#include "models/tokenizer_json.h"

#include <algorithm>
#include <optional>

#include "absl/strings/escaping.h"
#include "kernels/strings.h"
#include "models/bpe.h"
#include "models/config_reader.h"
#include "models/detokenizer.h"
#include "models/json_file.h"
#include "models/unigram.h"
#include "models/wordpiece.h"

namespace fairlead {
namespace {

constexpr int kMaxDepth = 64;
// Objects other than the vocabulary are searched linearly for each key they get.
constexpr size_t kMaxKeys = 128;
// The largest files that are met have 35 MB, the largest vocabularies 515,000 merges.
constexpr size_t kMaxFileBytes = size_t{64} << 20;
constexpr size_t kMaxMerges = size_t{1} << 20;

// What a message repeats of the file.
std::string Shown(std::string_view text) { return absl::CHexEscape(AbslView(text.substr(0, 80))); }

// Events of the parser, in the order of the text. Each handler returns false to stop.
class TokenizerSax : public nlohmann::json_sax<Json> {
 public:
  TokenizerFile file;
  std::string error;

  bool null() override { return Scalar(nullptr); }
  bool boolean(bool value) override { return Scalar(value); }
  bool number_float(number_float_t value, const string_t&) override {
    return mode_ == Mode::kPiece ? SetScore(value) : Scalar(value);
  }
  bool binary(binary_t&) override { return Fail("binary data"); }
  bool number_unsigned(number_unsigned_t value) override {
    if (mode_ == Mode::kPiece) return SetScore(static_cast<double>(value));
    if (mode_ != Mode::kVocabulary) return Scalar(value);
    // Out of range either way: the vocabulary says which ids are allowed.
    return AddEntry(value > static_cast<uint64_t>(INT64_MAX) ? INT64_MAX
                                                             : static_cast<int64_t>(value));
  }
  bool number_integer(number_integer_t value) override {
    if (mode_ == Mode::kPiece) return SetScore(static_cast<double>(value));
    return mode_ == Mode::kVocabulary ? AddEntry(value) : Scalar(value);
  }

  bool string(string_t& value) override {
    if (mode_ == Mode::kMerges) return AddMerge(value);
    if (mode_ == Mode::kMergePair) {
      part_.push_back(std::move(value));
      return part_.size() <= 2 || Fail("a merge has two parts");
    }
    if (mode_ == Mode::kPiece) {
      part_.push_back(std::move(value));
      return (part_.size() == 1 && !score_) || Fail(kPieceForm);
    }
    return Scalar(std::move(value));
  }

  bool key(string_t& value) override {
    if (mode_ == Mode::kTree && open_.back()->size() >= kMaxKeys)
      return Fail("an object of more than 128 keys");
    if (mode_ == Mode::kTree && open_.size() == 1) section_ = value;
    key_ = std::move(value);
    return true;
  }

  bool start_object(std::size_t) override {
    if (mode_ != Mode::kTree) return Fail("an object among tokens or merges");
    if (InModel("vocab")) {
      mode_ = Mode::kVocabulary;
      file.vocabulary.clear();
      return true;
    }
    return Open(Json::object());
  }
  bool end_object() override { return Close(); }

  bool start_array(std::size_t) override {
    if (mode_ == Mode::kMerges) {
      mode_ = Mode::kMergePair;
      part_.clear();
      return true;
    }
    if (mode_ == Mode::kPieces) {
      mode_ = Mode::kPiece;
      part_.clear();
      score_.reset();
      return true;
    }
    if (mode_ != Mode::kTree) return Fail("a list among tokens or merges");
    if (InModel("vocab")) {
      mode_ = Mode::kPieces;
      file.pieces.clear();
      return true;
    }
    if (InModel("merges")) {
      mode_ = Mode::kMerges;
      file.merges.clear();
      return true;
    }
    return Open(Json::array());
  }
  bool end_array() override {
    if (mode_ == Mode::kMergePair) {
      if (part_.size() != 2) return Fail("a merge has two parts");
      file.merges.emplace_back(std::move(part_[0]), std::move(part_[1]));
      mode_ = Mode::kMerges;
      return CheckCount(file.merges.size(), kMaxMerges, "merges");
    }
    if (mode_ == Mode::kPiece) {
      if (part_.size() != 1 || !score_) return Fail(kPieceForm);
      file.pieces.emplace_back(std::move(part_[0]), *score_);
      mode_ = Mode::kPieces;
      return CheckCount(file.pieces.size(), Vocabulary::kMaxTokens, "tokens");
    }
    return Close();
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& reason) override {
    // The reason quotes the token, however long that is.
    return Fail(StrCat("byte ", position, ": ",
                       ReplaceInvalidUtf8(std::string_view(reason.what()).substr(0, 200))));
  }

 private:
  enum class Mode { kTree, kVocabulary, kPieces, kPiece, kMerges, kMergePair };
  static constexpr std::string_view kPieceForm = "a piece of the vocabulary is not [text, score]";

  bool Fail(std::string_view what) {
    if (error.empty()) error = what;
    return false;
  }

  bool InModel(std::string_view key) const {
    return open_.size() == 2 && section_ == "model" && key_ == key;
  }

  // The new value's place in the tree.
  Json* Place(Json value) {
    ++values_;
    if (open_.empty()) {
      file.rest = std::move(value);
      return &file.rest;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) return &parent.emplace_back(std::move(value));
    return &(parent[key_] = std::move(value));
  }

  bool Scalar(Json value) {
    if (mode_ == Mode::kVocabulary)
      return Fail(StrCat("the id of token \"", Shown(key_), "\" is no integer"));
    if (mode_ != Mode::kTree) return Fail("a merge that is no text");
    Place(std::move(value));
    return CheckCount(values_, kMaxFileValues, "values");
  }

  bool CheckCount(size_t count, size_t most, std::string_view what) {
    return count <= most || Fail(StrCat("more than ", most, " ", what));
  }

  bool Open(Json value) {
    if (open_.size() >= kMaxDepth) return Fail("JSON is nested deeper than 64 levels");
    open_.push_back(Place(std::move(value)));
    return CheckCount(values_, kMaxFileValues, "values");
  }

  bool Close() {
    if (mode_ == Mode::kTree) {
      open_.pop_back();
    } else {
      mode_ = Mode::kTree;
    }
    return true;
  }

  bool SetScore(double score) {
    if (part_.size() != 1 || score_) return Fail(kPieceForm);
    score_ = score;
    return true;
  }

  bool AddEntry(int64_t id) {
    file.vocabulary.emplace_back(std::move(key_), id);
    return CheckCount(file.vocabulary.size(), Vocabulary::kMaxTokens, "tokens");
  }

  bool AddMerge(const std::string& text) {
    if (text.rfind("#version", 0) == 0) return true;  // the first line of a merges.txt
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      return Fail(
          StrCat("merge ", file.merges.size(), " \"", Shown(text), "\" is not \"left right\""));
    }
    file.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
    return CheckCount(file.merges.size(), kMaxMerges, "merges");
  }

  std::vector<Json*>
      open_;             // objects and arrays around the next value; parents do not grow meanwhile
  std::string section_;  // the key at the top
  std::string key_;
  Mode mode_ = Mode::kTree;
  size_t values_ = 0;              // in file.rest
  std::vector<std::string> part_;  // of a merge, or the text of a piece
  std::optional<double> score_;    // of the piece
};

absl::StatusOr<AddedToken> ParseAddedToken(const Json& json) {
  ConfigReader reader(json, "added_tokens.");
  AddedToken token;
  token.text = reader.String("content", "");
  reader.Int("id", 0, static_cast<int>(Vocabulary::kMaxTokens) - 1);
  token.special = reader.Bool("special", false);
  token.normalized = reader.Bool("normalized", !token.special);
  token.single_word = reader.Bool("single_word", false);
  token.lstrip = reader.Bool("lstrip", false);
  token.rstrip = reader.Bool("rstrip", false);
  if (!reader.ok()) return reader.status();
  return token;
}

absl::Status ReadBpe(const TokenizerFile& file, ConfigReader& reader, TokenizerParts* parts) {
  BpeModel::Options options;
  options.ignore_merges = reader.Bool("ignore_merges", false);
  options.byte_fallback = reader.Bool("byte_fallback", false);
  options.fuse_unknown = reader.Bool("fuse_unk", false);
  options.subword_prefix = reader.String("continuing_subword_prefix", "");
  options.word_suffix = reader.String("end_of_word_suffix", "");
  const std::string unknown = reader.String("unk_token", "");
  const double dropout = reader.Real("dropout", 0, 1, 0);
  if (!reader.ok()) return reader.status();
  if (dropout != 0)
    return absl::UnimplementedError("BPE with dropout: the same text would give different tokens");
  parts->make_model =
      [&file, options,
       unknown](const Vocabulary& vocabulary) -> absl::StatusOr<std::unique_ptr<TokenModel>> {
    std::vector<BpeModel::Rule> merges;
    merges.reserve(file.merges.size());
    for (const auto& [left, right] : file.merges) merges.push_back({left, right});
    BpeModel::Options with_unknown = options;
    with_unknown.unknown = vocabulary.Find(unknown);
    return BpeModel::Create(vocabulary, merges, with_unknown);
  };
  return absl::OkStatus();
}

absl::Status ReadWordPiece(ConfigReader& reader, TokenizerParts* parts) {
  WordPieceOptions options;
  options.unknown = reader.String("unk_token", options.unknown);
  options.prefix = reader.String("continuing_subword_prefix", options.prefix);
  options.max_characters = reader.Int("max_input_chars_per_word", 0, 1 << 30, 100);
  parts->make_model = [options](const Vocabulary& vocabulary) {
    return MakeWordPiece(vocabulary, options);
  };
  return reader.status();
}

absl::Status ReadWordLevel(ConfigReader& reader, TokenizerParts* parts) {
  const std::string unknown = reader.String("unk_token", "<unk>");
  parts->make_model = [unknown](const Vocabulary& vocabulary) {
    return MakeWordLevel(vocabulary, unknown);
  };
  return reader.status();
}

absl::Status ReadUnigram(const TokenizerFile& file, ConfigReader& reader, TokenizerParts* parts) {
  if (file.pieces.empty())
    return absl::InvalidArgumentError("model.vocab of a Unigram must be a list of [text, score]");
  Unigram::Options options;
  const int count = static_cast<int>(std::min<size_t>(file.pieces.size(), Vocabulary::kMaxTokens));
  if (reader.Find("unk_id") != nullptr) options.unknown = reader.Int("unk_id", 0, count - 1);
  options.byte_fallback = reader.Bool("byte_fallback", false);
  parts->vocabulary_repeats = true;
  for (size_t i = 0; i < file.pieces.size(); ++i)
    parts->vocabulary.push_back({file.pieces[i].first, static_cast<int64_t>(i)});
  parts->make_model = [&file, options](const Vocabulary& vocabulary) {
    std::vector<Unigram::Piece> pieces;
    pieces.reserve(file.pieces.size());
    for (const auto& [text, score] : file.pieces) pieces.push_back({text, score});
    Unigram::Options with_left_out = options;
    for (Token token = 0; token < vocabulary.end(); ++token) {
      if (vocabulary.IsSpecial(token)) with_left_out.left_out.push_back(token);
    }
    return Unigram::Create(pieces, with_left_out);
  };
  return reader.status();
}

// The library tells by the keys where a file leaves the type out.
std::string GuessType(const TokenizerFile& file, const Json& model) {
  if (!model.is_object()) return "";
  if (model.contains("dropout") || !file.merges.empty()) return "BPE";
  if (model.contains("max_input_chars_per_word")) return "WordPiece";
  return file.pieces.empty() ? "WordLevel" : "Unigram";
}

absl::Status ReadModel(const TokenizerFile& file, const Json& model, TokenizerParts* parts) {
  ConfigReader reader(model, "model.");
  const std::string type = reader.String("type", GuessType(file, model));
  if (!reader.ok()) return reader.status();
  for (const auto& [text, id] : file.vocabulary) parts->vocabulary.push_back({text, id});
  if (type == "BPE") return ReadBpe(file, reader, parts);
  if (type == "WordPiece") return ReadWordPiece(reader, parts);
  if (type == "WordLevel") return ReadWordLevel(reader, parts);
  if (type == "Unigram") return ReadUnigram(file, reader, parts);
  return absl::UnimplementedError(StrCat(
      "tokenizer model type \"", type, "\" is unknown; known: BPE, WordPiece, WordLevel, Unigram"));
}

}  // namespace

absl::StatusOr<TokenizerFile> ParseTokenizerFile(std::string_view text) {
  if (text.size() > kMaxFileBytes) {
    return absl::InvalidArgumentError(StrCat("tokenizer.json: has ", text.size(),
                                             " bytes; at most ", kMaxFileBytes, " are allowed"));
  }
  if (absl::Status status = CheckJsonTokens(text); !status.ok()) {
    return absl::InvalidArgumentError(StrCat("tokenizer.json: ", status.message()));
  }
  TokenizerSax sax;
  bool parsed = false;
  try {
    parsed = Json::sax_parse(text.begin(), text.end(), &sax);
  } catch (const nlohmann::detail::exception& error) {
    sax.error = error.what();
  }
  if (!parsed || !sax.error.empty())
    return absl::InvalidArgumentError(StrCat("tokenizer.json: ", sax.error));
  if (!sax.file.rest.is_object())
    return absl::InvalidArgumentError("tokenizer.json: must hold an object");
  return std::move(sax.file);
}

absl::StatusOr<TokenizerParts> DescribeTokenizerFile(const TokenizerFile& file) {
  static const Json kNull;
  const auto section = [&](const char* key) -> const Json& {
    const auto found = file.rest.find(key);
    return found == file.rest.end() ? kNull : *found;
  };
  TokenizerParts parts;
  if (absl::Status status = ReadModel(file, section("model"), &parts); !status.ok()) return status;
  absl::StatusOr<std::unique_ptr<Normalizer>> normalizer =
      Normalizer::FromJson(section("normalizer"));
  if (!normalizer.ok()) return normalizer.status();
  parts.normalizer = *std::move(normalizer);
  absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::FromJson(section("pre_tokenizer"));
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();
  parts.pre_tokenizer = *std::move(pre_tokenizer);
  absl::StatusOr<PostProcessor> post_processor = PostProcessor::FromJson(section("post_processor"));
  if (!post_processor.ok()) return post_processor.status();
  parts.post_processor = *std::move(post_processor);
  absl::StatusOr<TokenDecoder> decoder = TokenDecoder::FromJson(section("decoder"));
  if (!decoder.ok()) return decoder.status();
  parts.decoder = *std::move(decoder);
  const Json& added = section("added_tokens");
  if (!added.is_null() && !added.is_array())
    return absl::InvalidArgumentError("added_tokens: must be a list");
  for (const Json& item : added) {
    absl::StatusOr<AddedToken> token = ParseAddedToken(item);
    if (!token.ok()) return token.status();
    parts.added.push_back(*std::move(token));
  }
  if (parts.vocabulary.empty())
    return absl::InvalidArgumentError("tokenizer.json: model.vocab is missing or empty");
  return parts;
}

}  // namespace fairlead

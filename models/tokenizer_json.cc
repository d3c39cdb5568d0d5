// SPDX-License-Identifier: Apache-2.0
#include "models/tokenizer_json.h"

#include "kernels/strings.h"
#include "models/config_reader.h"

namespace fairlead {
namespace {

constexpr int kMaxDepth = 64;
// Objects other than the vocabulary are searched linearly for each key they get.
constexpr size_t kMaxKeys = 4096;

// Events of the parser, in the order of the text. Each handler returns false to stop.
class TokenizerSax : public nlohmann::json_sax<Json> {
 public:
  TokenizerFile file;
  std::string error;

  bool null() override { return Scalar(nullptr); }
  bool boolean(bool value) override { return Scalar(value); }
  bool number_float(number_float_t value, const string_t&) override { return Scalar(value); }
  bool binary(binary_t&) override { return Fail("binary data"); }
  bool number_unsigned(number_unsigned_t value) override {
    if (mode_ != Mode::kVocabulary) return Scalar(value);
    // Out of range either way: the vocabulary says which ids are allowed.
    return AddEntry(value > static_cast<uint64_t>(INT64_MAX) ? INT64_MAX
                                                             : static_cast<int64_t>(value));
  }
  bool number_integer(number_integer_t value) override {
    return mode_ == Mode::kVocabulary ? AddEntry(value) : Scalar(value);
  }

  bool string(string_t& value) override {
    if (mode_ == Mode::kMerges) return AddMerge(value);
    if (mode_ == Mode::kMergePair) {
      part_.push_back(std::move(value));
      return part_.size() <= 2 || Fail("a merge has two parts");
    }
    return Scalar(std::move(value));
  }

  bool key(string_t& value) override {
    if (mode_ == Mode::kTree && open_.back()->size() >= kMaxKeys)
      return Fail("an object of more than 4096 keys");
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
    if (mode_ != Mode::kTree) return Fail("a list among tokens or merges");
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
      return true;
    }
    return Close();
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& reason) override {
    return Fail(StrCat("byte ", position, ": ", reason.what()));
  }

 private:
  enum class Mode { kTree, kVocabulary, kMerges, kMergePair };

  bool Fail(std::string_view what) {
    if (error.empty()) error = what;
    return false;
  }

  bool InModel(std::string_view key) const {
    return open_.size() == 2 && section_ == "model" && key_ == key;
  }

  // The new value's place in the tree.
  Json* Place(Json value) {
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
      return Fail(StrCat("the id of token \"", key_, "\" is no integer"));
    if (mode_ != Mode::kTree) return Fail("a merge that is no text");
    Place(std::move(value));
    return true;
  }

  bool Open(Json value) {
    if (open_.size() >= kMaxDepth) return Fail("JSON is nested deeper than 64 levels");
    open_.push_back(Place(std::move(value)));
    return true;
  }

  bool Close() {
    if (mode_ == Mode::kTree) {
      open_.pop_back();
    } else {
      mode_ = Mode::kTree;
    }
    return true;
  }

  bool AddEntry(int64_t id) {
    file.vocabulary.emplace_back(std::move(key_), id);
    return true;
  }

  bool AddMerge(const std::string& text) {
    if (text.rfind("#version", 0) == 0) return true;  // the first line of a merges.txt
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      return Fail(StrCat("merge ", file.merges.size(), " \"", text.substr(0, 80),
                         "\" is not \"left right\""));
    }
    file.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
    return true;
  }

  std::vector<Json*>
      open_;             // objects and arrays around the next value; parents do not grow meanwhile
  std::string section_;  // the key at the top
  std::string key_;
  Mode mode_ = Mode::kTree;
  std::vector<std::string> part_;  // of a merge
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

absl::StatusOr<std::string> TypeOf(const Json& json, std::string_view where) {
  ConfigReader reader(json, StrCat(where, "."));
  std::string type = reader.String("type", "");
  if (!reader.ok()) return reader.status();
  return type;
}

// NFC, or a Sequence of nothing else: true. No normalizer: false.
absl::StatusOr<bool> ParseNormalizer(const Json& json) {
  if (json.is_null()) return false;
  absl::StatusOr<std::string> type = TypeOf(json, "normalizer");
  if (!type.ok()) return type.status();
  if (*type == "NFC") return true;
  const auto list = json.find("normalizers");
  if (*type == "Sequence" && list != json.end() && list->is_array()) {
    bool nfc = false;
    for (const Json& item : *list) {
      absl::StatusOr<bool> one = ParseNormalizer(item);
      if (!one.ok()) return one.status();
      nfc = nfc || *one;
    }
    return nfc;
  }
  return absl::UnimplementedError(
      StrCat("normalizer type \"", *type, "\" is unknown; known: NFC, Sequence"));
}

// ByteLevel, also as the only decoder in a Sequence.
absl::Status CheckDecoder(const Json& json) {
  const auto unknown = [](std::string_view type) {
    return absl::UnimplementedError(StrCat(
        "decoder type \"", type, "\" is unknown; known: ByteLevel, a Sequence of one ByteLevel"));
  };
  if (json.is_null()) return unknown("null");
  absl::StatusOr<std::string> type = TypeOf(json, "decoder");
  if (!type.ok()) return type.status();
  if (*type == "ByteLevel") return absl::OkStatus();
  const auto list = json.find("decoders");
  if (*type == "Sequence" && list != json.end() && list->is_array() && list->size() == 1) {
    return CheckDecoder((*list)[0]);
  }
  return unknown(*type);
}

absl::Status ReadModel(const Json& model, BpeTokenizerParts* parts) {
  ConfigReader reader(model, "model.");
  // Old files leave the type out; their other keys tell.
  const std::string type =
      reader.String("type", model.is_object() && model.contains("dropout") ? "BPE" : "");
  if (!reader.ok()) return reader.status();
  if (type != "BPE") {
    return absl::UnimplementedError(
        StrCat("tokenizer model type \"", type, "\" is unknown; known: BPE"));
  }
  parts->options.ignore_merges = reader.Bool("ignore_merges", false);
  parts->options.byte_fallback = reader.Bool("byte_fallback", false);
  parts->options.fuse_unknown = reader.Bool("fuse_unk", false);
  parts->unknown_text = reader.String("unk_token", "");
  const double dropout = reader.Real("dropout", 0, 1, 0);
  const bool affixes = !reader.String("continuing_subword_prefix", "").empty() ||
                       !reader.String("end_of_word_suffix", "").empty();
  if (!reader.ok()) return reader.status();
  if (dropout != 0)
    return absl::UnimplementedError("BPE with dropout: the same text would give different tokens");
  if (affixes)
    return absl::UnimplementedError("BPE with continuing_subword_prefix or end_of_word_suffix");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerFile> ParseTokenizerFile(std::string_view text) {
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

absl::StatusOr<BpeTokenizerParts> DescribeTokenizerFile(const TokenizerFile& file) {
  static const Json kNull;
  const auto section = [&](const char* key) -> const Json& {
    const auto found = file.rest.find(key);
    return found == file.rest.end() ? kNull : *found;
  };
  BpeTokenizerParts parts;
  if (absl::Status status = ReadModel(section("model"), &parts); !status.ok()) return status;
  absl::StatusOr<bool> nfc = ParseNormalizer(section("normalizer"));
  if (!nfc.ok()) return nfc.status();
  parts.normalize_nfc = *nfc;
  absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::FromJson(section("pre_tokenizer"));
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();
  parts.pre_tokenizer = *std::move(pre_tokenizer);
  absl::StatusOr<PostProcessor> post_processor = PostProcessor::FromJson(section("post_processor"));
  if (!post_processor.ok()) return post_processor.status();
  parts.post_processor = *std::move(post_processor);
  if (absl::Status status = CheckDecoder(section("decoder")); !status.ok()) return status;
  const Json& added = section("added_tokens");
  if (!added.is_null() && !added.is_array())
    return absl::InvalidArgumentError("added_tokens: must be a list");
  for (const Json& item : added) {
    absl::StatusOr<AddedToken> token = ParseAddedToken(item);
    if (!token.ok()) return token.status();
    parts.added.push_back(*std::move(token));
  }
  parts.vocabulary.reserve(file.vocabulary.size());
  for (const auto& [text, id] : file.vocabulary) parts.vocabulary.push_back({text, id});
  parts.merges.reserve(file.merges.size());
  for (const auto& [left, right] : file.merges) parts.merges.push_back({left, right});
  if (parts.vocabulary.empty())
    return absl::InvalidArgumentError("tokenizer.json: model.vocab is missing or empty");
  return parts;
}

}  // namespace fairlead

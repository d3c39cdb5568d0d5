// SPDX-License-Identifier: Apache-2.0
#include "models/token_decoder.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/strings.h"
#include "models/config_reader.h"
#include "models/token_decoder_steps.h"
#include "models/unicode.h"

namespace fairlead {
namespace {

constexpr int kMaxSteps = 64;
constexpr double kMaxGrowth = 256;  // of all steps

absl::Status Bad(std::string_view what) {
  return absl::InvalidArgumentError(StrCat("decoder: ", what));
}

absl::StatusOr<char32_t> OneCharacter(const std::string& text, std::string_view key) {
  size_t pos = 0;
  const char32_t c = text.empty() ? 0 : DecodeUtf8(text, &pos);
  if (text.empty() || pos != text.size()) return Bad(StrCat(key, " must be one character"));
  return c;
}

absl::Status AddMetaspace(ConfigReader& reader, TokenDecoderSteps* out) {
  const std::string replacement = reader.String("replacement", "\u2581");
  const std::string scheme =
      reader.String("prepend_scheme", reader.Bool("add_prefix_space", true) ? "always" : "never");
  if (!reader.ok()) return reader.status();
  if (scheme != "always" && scheme != "first" && scheme != "never")
    return Bad(StrCat("prepend_scheme \"", scheme, "\"; known: always, first, never"));
  absl::StatusOr<char32_t> c = OneCharacter(replacement, "replacement");
  if (!c.ok()) return c.status();
  out->push_back(MakeMetaspaceDecoder(*c, scheme != "never"));
  return absl::OkStatus();
}

absl::Status AddStrip(ConfigReader& reader, bool fused, TokenDecoderSteps* out) {
  const std::string content = reader.String("content", " ");
  const int start = reader.Int("start", 0, std::numeric_limits<int>::max());
  const int stop = reader.Int("stop", 0, std::numeric_limits<int>::max());
  if (!reader.ok()) return reader.status();
  absl::StatusOr<char32_t> c = OneCharacter(content, "content");
  if (!c.ok()) return c.status();
  out->push_back(
      MakeStripDecoder(*c, static_cast<size_t>(start), static_cast<size_t>(stop), fused));
  return absl::OkStatus();
}

absl::Status AddReplace(ConfigReader& reader, TokenDecoderSteps* out) {
  const std::string content = reader.String("content", "");
  const Json* pattern = reader.Find("pattern");
  if (!reader.ok()) return reader.status();
  if (pattern == nullptr || !pattern->is_object() || pattern->size() != 1 ||
      !pattern->begin()->is_string() || pattern->begin()->get_ref<const std::string&>().empty()) {
    return Bad("Replace needs \"pattern\": {\"Regex\": text} or {\"String\": text}");
  }
  const std::string& kind = pattern->begin().key();
  const auto& text = pattern->begin()->get_ref<const std::string&>();
  if (kind == "String") {
    out->push_back(MakeReplaceDecoder(text, content));
    return absl::OkStatus();
  }
  if (kind != "Regex")
    return Bad(StrCat("Replace pattern of kind \"", kind, "\"; known: Regex, String"));
  absl::StatusOr<Regex> regex = Regex::Compile(text);
  if (!regex.ok()) return regex.status();
  out->push_back(MakeRegexReplaceDecoder(*std::move(regex), content));
  return absl::OkStatus();
}

absl::Status AddFromJson(const Json& json, TokenDecoderSteps* out);

absl::Status AddSequence(ConfigReader& reader, TokenDecoderSteps* out) {
  const Json* list = reader.Find("decoders");
  if (list == nullptr || !list->is_array()) return Bad("Sequence needs a list \"decoders\"");
  for (const Json& item : *list) {
    if (absl::Status status = AddFromJson(item, out); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status AddFromJson(const Json& json, TokenDecoderSteps* out) {
  if (!json.is_object()) return Bad("must be an object");
  if (out->size() >= kMaxSteps) return Bad("more than 64 steps");
  ConfigReader reader(json, "decoder.");
  const std::string type = reader.String("type", "");
  if (!reader.ok()) return reader.status();
  const bool fused =
      std::any_of(out->begin(), out->end(), [](const auto& step) { return step->fuses(); });
  if (type == "Sequence") return AddSequence(reader, out);
  if (type == "Metaspace") return AddMetaspace(reader, out);
  if (type == "Strip") return AddStrip(reader, fused, out);
  if (type == "Replace") return AddReplace(reader, out);
  if (type == "ByteLevel") {
    out->push_back(MakeByteLevelDecoder());
  } else if (type == "ByteFallback") {
    out->push_back(MakeByteFallbackDecoder());
  } else if (type == "Fuse") {
    out->push_back(MakeFuseDecoder());
  } else if (type == "WordPiece") {
    out->push_back(
        MakeWordPieceDecoder(reader.String("prefix", "##"), reader.Bool("cleanup", true)));
  } else if (type == "BPEDecoder") {
    out->push_back(MakeBpeSuffixDecoder(reader.String("suffix", "</w>")));
  } else if (type == "CTC") {
    out->push_back(MakeCtcDecoder(reader.String("pad_token", "<pad>"),
                                  reader.String("word_delimiter_token", "|"),
                                  reader.Bool("cleanup", true)));
  } else {
    return absl::UnimplementedError(
        StrCat("decoder type \"", type,
               "\" is unknown; known: Sequence, ByteLevel, ByteFallback, Metaspace, WordPiece, "
               "BPEDecoder, CTC, Fuse, Strip, Replace"));
  }
  return reader.status();
}

}  // namespace

class TokenDecoder::Stream::End final : public TokenDecoder::Sink {
 public:
  std::string* out = nullptr;
  void Text(std::string_view text) override { out->append(text); }
  void EndToken() override {}
  void Finish() override {}
};

TokenDecoder::Stream::Stream(const TokenDecoder& decoder) : end_(std::make_unique<End>()) {
  first_ = end_.get();
  for (auto step = decoder.step_.rbegin(); step != decoder.step_.rend(); ++step) {
    state_.push_back((*step)->NewState(first_));
    first_ = state_.back().get();
  }
}
TokenDecoder::Stream::~Stream() = default;

void TokenDecoder::Stream::Push(std::string_view spelling, std::string* out) {
  end_->out = out;
  first_->Text(spelling);
  first_->EndToken();
}

void TokenDecoder::Stream::Finish(std::string* out) {
  end_->out = out;
  first_->Finish();
}

std::string TokenDecoder::Stream::Held() const {
  std::string held;
  for (const auto& state : state_) state->AppendHeld(&held);  // the last step's came first
  return held;
}

TokenDecoder::TokenDecoder() = default;
TokenDecoder::TokenDecoder(TokenDecoder&&) noexcept = default;
TokenDecoder& TokenDecoder::operator=(TokenDecoder&&) noexcept = default;
TokenDecoder::~TokenDecoder() = default;

absl::StatusOr<TokenDecoder> TokenDecoder::FromJson(const Json& json) {
  TokenDecoder decoder;
  if (json.is_null()) {
    decoder.step_.push_back(MakeSpacesDecoder());
    return decoder;
  }
  if (absl::Status status = AddFromJson(json, &decoder.step_); !status.ok()) return status;
  double growth = 1;
  for (const auto& step : decoder.step_) growth *= step->growth();
  if (growth > kMaxGrowth) return Bad("a token could become more than 256 times as long");
  return decoder;
}

TokenDecoder TokenDecoder::ByteLevel() {
  TokenDecoder decoder;
  decoder.step_.push_back(MakeByteLevelDecoder());
  return decoder;
}

std::string TokenDecoder::Running(std::string_view spelling) const {
  std::string token(spelling);
  for (const auto& step : step_) token = step->Running(std::move(token));
  return token;
}

bool TokenDecoder::is_byte_level() const { return step_.size() == 1 && step_[0]->is_byte_level(); }

}  // namespace fairlead

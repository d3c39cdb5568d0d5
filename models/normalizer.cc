// SPDX-License-Identifier: Apache-2.0
#include "models/normalizer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "kernels/strings.h"
#include "models/charsmap.h"
#include "models/config_reader.h"
#include "models/normalizer_steps.h"

namespace fairlead {
namespace {

constexpr int kMaxSteps = 64;
constexpr size_t kMaxContentBytes = 256;  // of a replacement or a prefix
constexpr double kMaxGrowth = 1 << 16;    // of all steps: XLNet's reach 17,000 on paper

class Sequence final : public Normalizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<Normalizer>> step) : step_(std::move(step)) {}
  bool is_nfc() const override {
    return std::all_of(step_.begin(), step_.end(), [](const auto& step) { return step->is_nfc(); });
  }
  std::string Apply(std::string_view text, TrustedSpans* trusted) const override {
    std::string out(text);
    for (const auto& step : step_) out = step->Apply(out, trusted);
    return out;
  }

 private:
  const std::vector<std::unique_ptr<Normalizer>> step_;
};

using Steps = std::vector<std::unique_ptr<Normalizer>>;

absl::Status Bad(std::string_view what) {
  return absl::InvalidArgumentError(StrCat("normalizer: ", what));
}

absl::Status AddReplace(ConfigReader& reader, Steps* out) {
  const std::string content = reader.String("content", "");
  const Json* pattern = reader.Find("pattern");
  if (!reader.ok()) return reader.status();
  if (content.size() > kMaxContentBytes)
    return Bad(StrCat("content of ", content.size(), " bytes; allowed: ", kMaxContentBytes));
  if (pattern == nullptr || !pattern->is_object() || pattern->size() != 1 ||
      !pattern->begin()->is_string()) {
    return Bad("Replace needs \"pattern\": {\"Regex\": text} or {\"String\": text}");
  }
  const std::string& kind = pattern->begin().key();
  const auto& text = pattern->begin()->get_ref<const std::string&>();
  if (kind != "Regex" && kind != "String")
    return Bad(StrCat("Replace pattern of kind \"", kind, "\"; known: Regex, String"));
  if (kind == "String" && text.empty()) return absl::OkStatus();  // matches nothing
  absl::StatusOr<Regex> regex =
      kind == "Regex" ? Regex::Compile(text) : Regex::CompileLiteral(text);
  if (!regex.ok()) return regex.status();
  out->push_back(
      MakeReplaceNormalizer(*std::move(regex), kind == "String" ? text.size() : 0, content));
  return absl::OkStatus();
}

absl::Status AddPrecompiled(ConfigReader& reader, Steps* out) {
  const std::string base64 = reader.String("precompiled_charsmap", "");
  if (!reader.ok()) return reader.status();
  std::string bytes;
  if (!absl::Base64Unescape(base64, &bytes)) return Bad("precompiled_charsmap is no base64");
  absl::StatusOr<std::unique_ptr<Normalizer>> step = PrecompiledNormalizer::Create(bytes);
  if (!step.ok()) return step.status();
  out->push_back(*std::move(step));
  return absl::OkStatus();
}

absl::Status AddBert(ConfigReader& reader, Steps* out) {
  BertNormalizerOptions options;
  options.clean_text = reader.Bool("clean_text", true);
  options.handle_chinese_chars = reader.Bool("handle_chinese_chars", true);
  options.lowercase = reader.Bool("lowercase", true);
  options.strip_accents = reader.Bool("strip_accents", options.lowercase);
  if (!reader.ok()) return reader.status();
  out->push_back(MakeBertNormalizer(options));
  return absl::OkStatus();
}

absl::Status AddFromJson(const Json& json, Steps* out);

absl::Status AddSequence(ConfigReader& reader, Steps* out) {
  const Json* list = reader.Find("normalizers");
  if (list == nullptr || !list->is_array()) return Bad("Sequence needs a list \"normalizers\"");
  for (const Json& item : *list) {
    if (absl::Status status = AddFromJson(item, out); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// Those without parameters; null for others.
std::unique_ptr<Normalizer> MakePlain(const std::string& type) {
  if (type == "NFC") return MakeFormNormalizer(NormalizationForm::kC);
  if (type == "NFD") return MakeFormNormalizer(NormalizationForm::kD);
  if (type == "NFKC") return MakeFormNormalizer(NormalizationForm::kKC);
  if (type == "NFKD") return MakeFormNormalizer(NormalizationForm::kKD);
  if (type == "Lowercase") return MakeLowercaseNormalizer();
  if (type == "StripAccents") return MakeStripAccentsNormalizer();
  if (type == "Nmt") return MakeNmtNormalizer();
  if (type == "ByteLevel") return MakeByteLevelNormalizer();
  return nullptr;
}

absl::Status AddFromJson(const Json& json, Steps* out) {
  if (!json.is_object()) return Bad("must be an object");
  if (out->size() >= kMaxSteps) return Bad("more than 64 steps");
  ConfigReader reader(json, "normalizer.");
  const std::string type = reader.String("type", "");
  if (!reader.ok()) return reader.status();
  if (std::unique_ptr<Normalizer> plain = MakePlain(type)) {
    out->push_back(std::move(plain));
    return absl::OkStatus();
  }
  if (type == "Sequence") return AddSequence(reader, out);
  if (type == "Replace") return AddReplace(reader, out);
  if (type == "Precompiled") return AddPrecompiled(reader, out);
  if (type == "BertNormalizer") return AddBert(reader, out);
  if (type == "Prepend") {
    const std::string prefix = reader.String("prepend", "");
    if (prefix.size() > kMaxContentBytes)
      return Bad(StrCat("prepend of ", prefix.size(), " bytes; allowed: ", kMaxContentBytes));
    out->push_back(MakePrependNormalizer(prefix));
    return reader.status();
  }
  if (type == "Strip") {
    const bool left = reader.Bool("strip_left", true), right = reader.Bool("strip_right", true);
    out->push_back(MakeStripNormalizer(left, right));
    return reader.status();
  }
  return absl::UnimplementedError(StrCat(
      "normalizer type \"", type,
      "\" is unknown; known: Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, "
      "Replace, Prepend, Precompiled, Nmt, BertNormalizer, ByteLevel"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Normalizer>> Normalizer::FromJson(const Json& json) {
  Steps steps;
  if (json.is_null()) return nullptr;
  if (absl::Status status = AddFromJson(json, &steps); !status.ok()) return status;
  double growth = 1;
  for (const auto& step : steps) growth *= step->growth();
  if (growth > kMaxGrowth) return Bad("text could become more than 65536 times as long");
  if (steps.empty()) return nullptr;
  if (steps.size() == 1) return std::move(steps[0]);
  return std::make_unique<Sequence>(std::move(steps));
}

std::unique_ptr<Normalizer> Normalizer::Nfc() { return MakeFormNormalizer(NormalizationForm::kC); }

}  // namespace fairlead

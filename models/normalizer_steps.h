// SPDX-License-Identifier: Apache-2.0
// The steps of normalizer.h. Immutable: any thread.
#pragma once

#include <memory>
#include <string>

#include "models/normalizer.h"
#include "models/regex.h"
#include "models/unicode.h"

namespace fairlead {

struct BertNormalizerOptions {
  bool clean_text = true;            // drops controls, makes white space spaces
  bool handle_chinese_chars = true;  // a space on both sides of each ideograph
  bool strip_accents = true;         // NFD without Mn
  bool lowercase = true;
};

std::unique_ptr<Normalizer> MakeFormNormalizer(NormalizationForm form);
std::unique_ptr<Normalizer> MakeLowercaseNormalizer();
std::unique_ptr<Normalizer> MakeStripAccentsNormalizer();                // every mark goes
std::unique_ptr<Normalizer> MakeStripNormalizer(bool left, bool right);  // white space
// pattern_bytes: of the shortest match.
std::unique_ptr<Normalizer> MakeReplaceNormalizer(Regex regex, size_t pattern_bytes,
                                                  std::string content);
std::unique_ptr<Normalizer> MakePrependNormalizer(std::string prefix);  // unless there is no text
std::unique_ptr<Normalizer> MakeNmtNormalizer();  // SentencePiece's nmt rules without NFKC
std::unique_ptr<Normalizer> MakeByteLevelNormalizer();
std::unique_ptr<Normalizer> MakeBertNormalizer(const BertNormalizerOptions& options);

}  // namespace fairlead

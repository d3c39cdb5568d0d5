// SPDX-License-Identifier: Apache-2.0
#include "models/vocabulary.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "kernels/check.h"
#include "kernels/strings.h"
#include "models/byte_level.h"
#include "models/detokenizer.h"

namespace fairlead {

absl::StatusOr<std::unique_ptr<Vocabulary>> Vocabulary::Create(absl::Span<const Entry> entry) {
  int64_t end = 0;
  size_t text_bytes = 0;
  for (const Entry& e : entry) {
    if (e.id < 0 || e.id >= kMaxTokens) {
      return absl::InvalidArgumentError(StrCat("vocabulary: token \"",
                                               absl::CHexEscape(AbslView(e.text)), "\" has id ",
                                               e.id, "; ids are from 0 to ", kMaxTokens - 1));
    }
    if (!IsValidUtf8(e.text)) {
      return absl::InvalidArgumentError(StrCat("vocabulary: token ", e.id, " is not valid UTF-8"));
    }
    end = std::max(end, e.id + 1);
    text_bytes += e.text.size();
  }
  auto vocabulary = std::unique_ptr<Vocabulary>(new Vocabulary());
  Vocabulary& v = *vocabulary;
  v.spelling_.reserve(text_bytes);  // exact: views into these two must not move
  v.bytes_.reserve(text_bytes);
  v.slot_.resize(end);
  v.id_of_.reserve(entry.size());
  for (const Entry& e : entry) {
    Slot& slot = v.slot_[e.id];
    if (slot.used) {
      return absl::InvalidArgumentError(StrCat(
          "vocabulary: id ", e.id, " belongs to both \"", absl::CHexEscape(AbslView(slot.spelling)),
          "\" and \"", absl::CHexEscape(AbslView(e.text)), "\""));
    }
    const size_t spelling_begin = v.spelling_.size();
    const size_t bytes_begin = v.bytes_.size();
    v.spelling_.append(e.text);
    AppendByteLevelDecoded(e.text, &v.bytes_);
    slot.spelling = std::string_view(v.spelling_).substr(spelling_begin);
    slot.bytes = std::string_view(v.bytes_).substr(bytes_begin);
    slot.used = true;
    if (e.text.empty()) continue;
    const auto [found, inserted] =
        v.id_of_.try_emplace(AbslView(slot.spelling), static_cast<Token>(e.id));
    if (!inserted) {
      return absl::InvalidArgumentError(StrCat("vocabulary: token \"",
                                               absl::CHexEscape(AbslView(e.text)),
                                               "\" has the ids ", found->second, " and ", e.id));
    }
  }
  v.model_tokens_ = static_cast<int>(entry.size());
  return vocabulary;
}

void Vocabulary::SetAdded(Token id, std::string_view text) {
  FAIRLEAD_CHECK(id >= 0 && id < kMaxTokens);
  if (static_cast<size_t>(id) >= slot_.size()) slot_.resize(id + 1);
  Slot& slot = slot_[id];
  slot.spelling = added_.emplace_back(text);
  std::string bytes;
  AppendByteLevelDecoded(text, &bytes);
  slot.bytes = added_.emplace_back(std::move(bytes));
  slot.used = true;
}

std::optional<Token> Vocabulary::Find(std::string_view text) const {
  const auto found = id_of_.find(AbslView(text));
  if (found == id_of_.end()) return std::nullopt;
  return found->second;
}

}  // namespace fairlead

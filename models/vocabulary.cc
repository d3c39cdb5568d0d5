// SPDX-License-Identifier: Apache-2.0
#include "models/vocabulary.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "kernels/check.h"
#include "kernels/strings.h"
#include "models/detokenizer.h"

namespace fairlead {

absl::StatusOr<std::unique_ptr<Vocabulary>> Vocabulary::Create(absl::Span<const Entry> entry,
                                                               Decode decode, bool repeats) {
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
    if (e.text.size() > kMaxTokenBytes) {
      return absl::InvalidArgumentError(StrCat("vocabulary: token ", e.id, " has ", e.text.size(),
                                               " bytes; allowed: ", kMaxTokenBytes));
    }
    end = std::max(end, e.id + 1);
    text_bytes += e.text.size();
  }
  auto vocabulary = std::unique_ptr<Vocabulary>(new Vocabulary());
  Vocabulary& v = *vocabulary;
  v.decode_ = std::move(decode);
  v.spelling_.reserve(text_bytes);  // exact: views into it must not move
  v.slot_.resize(end);
  v.id_of_.reserve(entry.size());
  for (const Entry& e : entry) {
    Slot& slot = v.slot_[e.id];
    if (slot.used) {
      return absl::InvalidArgumentError(StrCat(
          "vocabulary: id ", e.id, " belongs to both \"", absl::CHexEscape(AbslView(slot.spelling)),
          "\" and \"", absl::CHexEscape(AbslView(e.text)), "\""));
    }
    const size_t begin = v.spelling_.size();
    v.spelling_.append(e.text);
    slot.spelling = std::string_view(v.spelling_).substr(begin);
    slot.used = true;
    if (e.text.empty()) continue;
    const auto [found, inserted] =
        v.id_of_.try_emplace(AbslView(slot.spelling), static_cast<Token>(e.id));
    if (!inserted && repeats) found->second = static_cast<Token>(e.id);
    if (!inserted && !repeats) {
      return absl::InvalidArgumentError(StrCat("vocabulary: token \"",
                                               absl::CHexEscape(AbslView(e.text)),
                                               "\" has the ids ", found->second, " and ", e.id));
    }
  }
  v.model_tokens_ = static_cast<int>(entry.size());
  if (absl::Status status = v.DecodeAll(); !status.ok()) return status;
  return vocabulary;
}

absl::Status Vocabulary::DecodeAll() {
  std::vector<size_t> end;  // views only once bytes_ has stopped moving
  end.reserve(slot_.size());
  for (const Slot& slot : slot_) {
    if (slot.used) bytes_ += decode_(slot.spelling);
    end.push_back(bytes_.size());
    if (bytes_.size() > kMaxDecodedBytes) {
      return absl::InvalidArgumentError(
          StrCat("vocabulary: the text of all tokens is longer than ", kMaxDecodedBytes, " bytes"));
    }
  }
  for (size_t i = 0, begin = 0; i < slot_.size(); begin = end[i++]) {
    slot_[i].bytes = std::string_view(bytes_).substr(begin, end[i] - begin);
  }
  return absl::OkStatus();
}

void Vocabulary::SetAdded(Token id, std::string_view text, bool special) {
  FAIRLEAD_CHECK(id >= 0 && id < kMaxTokens);
  if (static_cast<size_t>(id) >= slot_.size()) slot_.resize(id + 1);
  Slot& slot = slot_[id];
  slot.spelling = added_.emplace_back(text);
  slot.bytes = added_.emplace_back(decode_(text));
  slot.used = true;
  slot.special = special;
}

std::optional<Token> Vocabulary::Find(std::string_view text) const {
  const auto found = id_of_.find(AbslView(text));
  if (found == id_of_.end()) return std::nullopt;
  return found->second;
}

std::optional<Token> Vocabulary::FindPlain(std::string_view text) const {
  const std::optional<Token> id = Find(text);
  return id && IsSpecial(*id) ? std::nullopt : id;
}

}  // namespace fairlead

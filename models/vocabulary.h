// SPDX-License-Identifier: Apache-2.0
// Token ids, how they are spelled and the bytes they stand for. Immutable once the tokenizer is
// built: any thread. Owns all text; views stay valid as long as the vocabulary.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "models/tokenizer.h"

namespace fairlead {

class Vocabulary {
 public:
  struct Entry {
    std::string_view text;
    int64_t id = 0;
  };

  // Ids are below this; the table is dense, so a lying file must not choose its size.
  static constexpr size_t kMaxTokenBytes = 1 << 14;
  static constexpr size_t kMaxDecodedBytes = 128 << 20;  // of all tokens together
  static constexpr int64_t kMaxTokens = 1 << 20;

  // The bytes that a token of this spelling stands for in running text.
  using Decode = std::function<std::string(std::string_view spelling)>;

  // The model's own vocabulary. Gaps are allowed. kInvalidArgument: an id that is negative, too
  // large or used twice, a text used twice unless `repeats` (then the last one is found), text that
  // is not UTF-8. An empty text has an id but is never found.
  static absl::StatusOr<std::unique_ptr<Vocabulary>> Create(absl::Span<const Entry> entry,
                                                            Decode decode, bool repeats = false);

  Vocabulary(const Vocabulary&) = delete;
  Vocabulary& operator=(const Vocabulary&) = delete;

  // An added token: gives `id` this spelling (in place of the model's, if it had one), without
  // making it known to Find. `id` is in [0, kMaxTokens).
  void SetAdded(Token id, std::string_view text, bool special);

  // The id of a token of the model's own vocabulary.
  std::optional<Token> Find(std::string_view text) const;
  // The same, but no special one: those come of trusted text alone, and not by the model.
  std::optional<Token> FindPlain(std::string_view text) const;
  bool Has(Token id) const { return InTable(id) && slot_[id].used; }
  bool IsSpecial(Token id) const { return InTable(id) && slot_[id].special; }
  // Empty for ids without a token.
  std::string_view Spelling(Token id) const {
    return InTable(id) ? slot_[id].spelling : std::string_view();
  }
  std::string_view Bytes(Token id) const {
    return InTable(id) ? slot_[id].bytes : std::string_view();
  }
  // Tokens of the model's own vocabulary.
  int model_tokens() const { return model_tokens_; }
  // One past the highest id.
  int end() const { return static_cast<int>(slot_.size()); }

 private:
  struct Slot {
    std::string_view spelling;
    std::string_view bytes;
    bool used = false;
    bool special = false;
  };

  Vocabulary() = default;
  absl::Status DecodeAll();
  bool InTable(Token id) const { return id >= 0 && static_cast<size_t>(id) < slot_.size(); }

  Decode decode_;
  std::string spelling_;           // of the model's tokens, back to back
  std::string bytes_;              // the same, decoded
  std::deque<std::string> added_;  // texts of added tokens
  std::vector<Slot> slot_;         // by id
  absl::flat_hash_map<absl::string_view, Token> id_of_;
  int model_tokens_ = 0;
};

}  // namespace fairlead

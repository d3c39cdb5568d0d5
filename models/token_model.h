// SPDX-License-Identifier: Apache-2.0
// What turns one word into tokens: BPE, WordPiece, WordLevel, Unigram. Immutable after creation:
// any thread; borrows the vocabulary.
#pragma once

#include <atomic>
#include <memory>
#include <string_view>
#include <vector>

#include "models/tokenizer.h"

namespace fairlead {

class TokenModel {
 public:
  // Memory that Encode reuses from word to word. One thread.
  struct Workspace {
    virtual ~Workspace() = default;
    const std::atomic<bool>* cancelled = nullptr;  // once true, a word may come out half done
    bool IsCancelled() const { return cancelled != nullptr && *cancelled; }
  };

  virtual ~TokenModel() = default;
  virtual std::unique_ptr<Workspace> NewWorkspace() const { return std::make_unique<Workspace>(); }
  // Appends the tokens of a word: valid UTF-8, not empty, under 2 GiB. `workspace` is of
  // NewWorkspace. Near-linear in the word's length.
  virtual void Encode(std::string_view word, Workspace* workspace,
                      std::vector<Token>* out) const = 0;
  // Whether every character of a word ends up in some token, of no more bytes than it has.
  virtual bool keeps_all() const { return false; }
};

}  // namespace fairlead

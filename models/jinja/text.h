// SPDX-License-Identifier: Apache-2.0
// A string that remembers, byte range by byte range, who wrote it: the template (trusted) or the
// caller.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/jinja/budget.h"

namespace fairlead::jinja {

class Text {
 public:
  Text() = default;
  Text(std::string bytes, bool trusted) : bytes_(std::move(bytes)), first_trusted_(trusted) {}

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }

  // Calls visit(std::string_view piece, bool trusted) for the runs of bytes [begin, end), in order.
  template <typename Visit>
  void ForEachRun(size_t begin, size_t end, Visit visit) const;
  template <typename Visit>
  void ForEachRun(Visit visit) const {
    ForEachRun(0, bytes_.size(), visit);
  }
  // True if no byte came from the caller. The empty text is trusted.
  bool AllTrusted() const { return bytes_.empty() || (flips_.empty() && first_trusted_); }

  void Append(std::string_view piece, bool trusted);
  void Append(const Text& other, size_t begin, size_t end);
  // Memory that the record of trust takes.
  size_t run_bytes() const { return flips_.size() * sizeof(size_t); }

 private:
  std::string bytes_;
  bool first_trusted_ = true;
  // Sorted offsets at which trust changes; none for the usual text of one writer.
  std::vector<size_t> flips_;
};

// Builds one text within the budget. After exhaustion it keeps what it has and ignores the rest.
class TextBuilder {
 public:
  explicit TextBuilder(Budget& budget) : budget_(&budget), charge_(&budget) {}

  void Append(std::string_view piece, bool trusted);
  void Append(const Text& text) { Append(text, 0, text.size()); }
  void Append(const Text& text, size_t begin, size_t end);
  size_t size() const { return text_.size(); }
  Budget& budget() { return *budget_; }

  Text TakeText() { return std::move(text_); }
  MemoryCharge TakeCharge() { return std::move(charge_); }

 private:
  bool Admit(size_t bytes) {
    return budget_->Work(bytes) && budget_->FitsOneString(text_.size() + bytes) &&
           charge_.Grow(bytes);
  }

  Budget* budget_;
  MemoryCharge charge_;
  Text text_;
};

template <typename Visit>
void Text::ForEachRun(size_t begin, size_t end, Visit visit) const {
  if (begin >= end) return;
  size_t next = std::upper_bound(flips_.begin(), flips_.end(), begin) - flips_.begin();
  while (begin < end) {
    const bool trusted = first_trusted_ == (next % 2 == 0);
    const size_t run_end = next < flips_.size() ? std::min(end, flips_[next]) : end;
    visit(std::string_view(bytes_).substr(begin, run_end - begin), trusted);
    begin = run_end;
    ++next;
  }
}

}  // namespace fairlead::jinja

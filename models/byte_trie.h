// SPDX-License-Identifier: Apache-2.0
// A set of byte strings, each with a value, to find all that start at a place in a text. Immutable
// once built: any thread. Owns everything; 9 bytes a node, at most one node a byte of the strings.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/types/span.h"

namespace fairlead {

class ByteTrie {
 public:
  struct Entry {
    std::string_view text;
    int32_t value = 0;  // not negative
  };

  ByteTrie();
  // Of entries with the same text the last one counts; empty texts are left out. The texts together
  // are shorter than 2 GiB.
  explicit ByteTrie(absl::Span<const Entry> entry);

  // Calls visit(length, value) for every string that starts at text[pos], shortest first.
  template <typename Visit>
  void ForEachPrefix(std::string_view text, size_t pos, Visit visit) const {
    int32_t node = kRoot;
    for (size_t end = pos; end < text.size();) {
      node = Child(node, static_cast<unsigned char>(text[end]));
      if (node == kNone) return;
      ++end;
      if (value_[node] >= 0) visit(end - pos, value_[node]);
    }
  }

  // The length of the longest string that starts at text[pos]; 0 if there is none.
  size_t LongestPrefix(std::string_view text, size_t pos) const;
  bool empty() const { return value_.size() <= 1; }

 private:
  static constexpr int32_t kRoot = 0;
  static constexpr int32_t kNone = -1;

  int32_t Child(int32_t node, unsigned char byte) const;

  // Nodes breadth first: the children of node n are first_child_[n] to first_child_[n + 1] - 1, in
  // the order of their bytes.
  std::vector<int32_t> first_child_;
  std::vector<int32_t> value_;  // -1: no string ends here
  std::vector<unsigned char> byte_;
  std::array<int32_t, 256> root_child_;
};

}  // namespace fairlead

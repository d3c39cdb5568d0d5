// SPDX-License-Identifier: Apache-2.0
#include "models/byte_trie.h"

#include <algorithm>
#include <deque>

namespace fairlead {
namespace {

// Sorted strings that share the bytes up to their node.
struct Range {
  size_t begin;
  size_t end;
  size_t depth;
};

std::vector<ByteTrie::Entry> SortedUnique(absl::Span<const ByteTrie::Entry> entry) {
  std::vector<ByteTrie::Entry> sorted;
  sorted.reserve(entry.size());
  for (const ByteTrie::Entry& e : entry) {
    if (!e.text.empty()) sorted.push_back(e);
  }
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.text < b.text; });
  size_t kept = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    if (i + 1 < sorted.size() && sorted[i].text == sorted[i + 1].text) continue;
    sorted[kept++] = sorted[i];
  }
  sorted.resize(kept);
  return sorted;
}

}  // namespace

ByteTrie::ByteTrie() : ByteTrie(absl::Span<const Entry>()) {}

ByteTrie::ByteTrie(absl::Span<const Entry> entry) {
  const std::vector<Entry> sorted = SortedUnique(entry);
  std::deque<Range> queue = {{0, sorted.size(), 0}};  // breadth first
  byte_.push_back(0);
  while (!queue.empty()) {
    Range range = queue.front();
    queue.pop_front();
    first_child_.push_back(static_cast<int32_t>(byte_.size()));
    const bool ends = range.begin < range.end && sorted[range.begin].text.size() == range.depth;
    value_.push_back(ends ? sorted[range.begin].value : -1);
    if (ends) ++range.begin;
    while (range.begin < range.end) {
      const char byte = sorted[range.begin].text[range.depth];
      size_t end = range.begin + 1;
      while (end < range.end && sorted[end].text[range.depth] == byte) ++end;
      queue.push_back({range.begin, end, range.depth + 1});
      byte_.push_back(static_cast<unsigned char>(byte));
      range.begin = end;
    }
  }
  first_child_.push_back(static_cast<int32_t>(byte_.size()));
  root_child_.fill(kNone);
  for (int32_t child = first_child_[kRoot]; child < first_child_[kRoot + 1]; ++child)
    root_child_[byte_[child]] = child;
}

int32_t ByteTrie::Child(int32_t node, unsigned char byte) const {
  if (node == kRoot) return root_child_[byte];
  const auto begin = byte_.begin() + first_child_[node];
  const auto end = byte_.begin() + first_child_[node + 1];
  const auto found = std::lower_bound(begin, end, byte);
  return found != end && *found == byte ? static_cast<int32_t>(found - byte_.begin()) : kNone;
}

size_t ByteTrie::LongestPrefix(std::string_view text, size_t pos) const {
  size_t longest = 0;
  ForEachPrefix(text, pos, [&](size_t length, int32_t) { longest = length; });
  return longest;
}

}  // namespace fairlead

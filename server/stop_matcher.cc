// SPDX-License-Identifier: Apache-2.0
#include "server/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace fairlead {
namespace {

// Length of the longest suffix of `text` that is a proper prefix of `stop`.
size_t PartialMatch(std::string_view text, std::string_view stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (text.substr(text.size() - length) == stop.substr(0, length)) return length;
  }
  return 0;
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_match)
    : stops_(std::move(stops)), include_match_(include_match) {}

StopMatcher::Result StopMatcher::Push(std::string_view text) {
  Result result;
  if (stops_.empty()) {
    result.text = std::string(text);
    return result;
  }
  held_ += text;
  // The match that ends first wins, as if the text had come character by character; of those the
  // one that begins first.
  size_t best_end = std::string::npos, best_begin = 0;
  for (const std::string& stop : stops_) {
    const size_t begin = held_.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    if (end < best_end || (end == best_end && begin < best_begin)) {
      best_end = end;
      best_begin = begin;
      result.match = &stop;
    }
  }
  if (result.match != nullptr) {
    result.text = held_.substr(0, include_match_ ? best_end : best_begin);
    held_.clear();
    return result;
  }
  size_t keep = 0;
  for (const std::string& stop : stops_) keep = std::max(keep, PartialMatch(held_, stop));
  result.text = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return result;
}

std::string StopMatcher::Finish() { return std::exchange(held_, {}); }

}  // namespace fairlead

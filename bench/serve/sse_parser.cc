// SPDX-License-Identifier: Apache-2.0
#include "bench/serve/sse_parser.h"

#include "absl/strings/strip.h"

namespace fairlead::serve_bench {

void SseParser::Add(std::string_view bytes) {
  if (after_cr_ && !bytes.empty()) {
    if (bytes.front() == '\n') bytes.remove_prefix(1);
    after_cr_ = false;
  }
  for (size_t end; (end = bytes.find_first_of("\r\n")) != std::string_view::npos;) {
    line_.append(bytes.substr(0, end));
    EndLine();
    const bool is_cr = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    if (!is_cr) continue;
    if (bytes.empty()) {
      after_cr_ = true;
    } else if (bytes.front() == '\n') {
      bytes.remove_prefix(1);
    }
  }
  line_.append(bytes);
}

void SseParser::EndLine() {
  if (line_.empty()) {
    if (has_data_) on_data_(data_);
    data_.clear();
    has_data_ = false;
    return;
  }
  absl::string_view value = line_;
  // "data" alone is a line of data that is empty; other fields and comments (":...") are not ours.
  if (absl::ConsumePrefix(&value, "data") && (value.empty() || absl::ConsumePrefix(&value, ":"))) {
    absl::ConsumePrefix(&value, " ");
    if (has_data_) data_ += '\n';
    data_.append(value.data(), value.size());
    has_data_ = true;
  }
  line_.clear();
}

}  // namespace fairlead::serve_bench

// SPDX-License-Identifier: Apache-2.0
// Splits a stream of bytes into server-sent events (WHATWG HTML, "Interpreting an event stream"),
// however the network cut it: events that span reads, CR, LF and CRLF, comments, several `data:`
// lines of one event. Event names and ids are skipped, since no completion API uses them.
// One thread.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace fairlead::serve_bench {

class SseParser {
 public:
  // `on_data` gets each event's data, its lines joined by '\n'. The view lives during the call.
  explicit SseParser(std::function<void(std::string_view)> on_data)
      : on_data_(std::move(on_data)) {}

  void Add(std::string_view bytes);
  // Bytes of an event that its blank line has not ended yet.
  bool has_partial_event() const { return !line_.empty() || has_data_; }

 private:
  void EndLine();

  const std::function<void(std::string_view)> on_data_;
  std::string line_;
  std::string data_;
  bool has_data_ = false;
  bool after_cr_ = false;  // an LF that follows belongs to that CR
};

}  // namespace fairlead::serve_bench

// SPDX-License-Identifier: Apache-2.0
// OpenAI's streaming completions: the body of a request, and what each event of the answer says.
// Pure functions and a reader of one answer; one thread.
#pragma once

#include <string>
#include <string_view>

#include "bench/serve/request.h"
#include "bench/serve/target.h"

namespace fairlead::serve_bench {

// "/v1/completions" or "/v1/chat/completions", by the kind of prompt.
const char* PathOf(const Request& request);
std::string BodyOf(const Request& request, const TargetOptions& options);

// Reads the events of one answer into its record, then judges it.
class AnswerReader {
 public:
  // `record` outlives the reader; its `sent` is set.
  explicit AnswerReader(Record& record) : record_(record) {}

  // The data of one event that came at `now`. Nothing is read after an error.
  void OnData(std::string_view data, Time now);
  // The stream ended in order. Sets the record's error if the answer is not whole: "incomplete"
  // without [DONE], "no_usage" without the counts that stream_options.include_usage asks for.
  void OnEnd();
  bool failed() const { return record_.outcome == Outcome::kError; }

 private:
  void ReadChoice(const Json& choice, Time now);
  void ReadUsage(const Json& usage);

  Record& record_;
  bool done_ = false;
  bool has_usage_ = false;
};

// Makes the record an error, unless it is one already: the first reason counts.
void Fail(Record& record, std::string kind, std::string message);
// What an error answer says: OpenAI's {"error": {"message": ...}}, or its first 200 bytes.
std::string ErrorMessage(std::string_view body);

}  // namespace fairlead::serve_bench

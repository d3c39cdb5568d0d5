// SPDX-License-Identifier: Apache-2.0
// What the load generator sends and what it saw come back. Plain data: whoever holds one owns it.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace fairlead::serve_bench {

using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;

inline double MillisecondsBetween(Time from, Time to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}
inline double SecondsBetween(Time from, Time to) {
  return std::chrono::duration<double>(to - from).count();
}

using TokenIds = std::vector<int32_t>;
struct ChatMessage {
  std::string role;
  std::string content;
};
using Chat = std::vector<ChatMessage>;
using Prompt = std::variant<TokenIds, std::string, Chat>;

struct Request {
  int64_t id = 0;
  int64_t session = 0;
  int turn = 0;
  bool injected = false;  // comes from beside the measured load: W10's long prefill
  Prompt prompt = {};
  int max_tokens = 1;
  int cancel_after = 0;           // the client hangs up after so many events with a token; 0: never
  bool wants_answer_ids = false;  // a later turn of the session is made of them
};

enum class Outcome { kOk, kCancelled, kError };  // cancelled: by us, as the workload says

// Times are the client's, taken where the bytes were handed to this program.
struct Record {
  int64_t id = 0;
  int64_t session = 0;
  int turn = 0;
  bool injected = false;
  Time scheduled = {};                  // when the load's plan wanted it sent
  Time sent = {};                       // when it was
  std::vector<Time> token_events = {};  // events that carried at least one token
  Time ended = {};                      // the answer's end, or the error
  int prompt_tokens = 0;                // these three as the server counted them
  int completion_tokens = 0;
  int cached_tokens = 0;
  Outcome outcome = Outcome::kOk;
  std::string error_kind = {};  // "connect", "timeout", "http_429", "grpc_UNAVAILABLE" ...
  std::string error_message = {};
  TokenIds answer_ids = {};  // if the server gave them
  std::string answer_text = {};
};

}  // namespace fairlead::serve_bench

// SPDX-License-Identifier: Apache-2.0
// What is asked: the named workloads, and sessions that produce their requests. A request's content
// depends on (seed, session, turn) and, in later turns, on the answers before it; never on timing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bench/serve/random.h"
#include "bench/serve/request.h"

namespace fairlead::serve_bench {

// Lengths in tokens.
struct WorkloadSpec {
  std::string_view name = "custom";
  std::string_view about = "";
  int input_tokens = 128;   // of one turn, without the shared part and the history
  int output_tokens = 128;  // of one turn
  int turns = 1;            // a session; each turn's prompt holds the turns before it
  int shared_tokens = 0;    // a system prompt that all sessions begin with
  bool log_normal = false;  // the lengths above are means of log-normal draws
  bool copies = false;      // the answer is likely a copy of the input
  double cancel_share = 0;  // of the requests, at random, the client hangs up on
  int injected_tokens = 0;  // prompt of a request that comes beside the load every inject_every_s
  double inject_every_s = 0;
  int concurrency = 1;     // of a closed loop that does not say
  double range_ratio = 0;  // lengths are uniform in n * (1 -+ range_ratio); not with log_normal
};

absl::Span<const WorkloadSpec> NamedWorkloads();
// kInvalidArgument: the names that there are.
absl::StatusOr<WorkloadSpec> FindWorkload(std::string_view name);
// Every length times `scale`, at least 1 where it was: for models with a small context.
WorkloadSpec Scaled(WorkloadSpec spec, double scale);
// Tokens of the longest prompt and its answer together; of log-normal lengths the mean stands for
// all, since their longest is rare. A chat template's own tokens come on top.
int64_t ContextNeeded(const WorkloadSpec& spec);

enum class InputKind { kTokens, kText, kChat };

struct ContentOptions {
  InputKind kind = InputKind::kTokens;
  uint64_t seed = 0;
  int lowest_token = 100;  // ids are uniform in [lowest, highest]; special tokens lie outside
  int highest_token = 40000;
};

class Workload;

// One user: turn after turn, each asked when the one before is answered. One thread at a time.
class Session {
 public:
  Session(const Workload& workload, int64_t index);

  bool done() const { return turn_ == turns_; }
  Request Next();  // not when done
  // Takes the answer into the history. Without the server's token ids the history of token prompts
  // goes on with seeded ids of the same number. A cancelled turn leaves no trace, its question
  // included: chat templates want user and assistant to alternate.
  void Answered(const Record& record);

 private:
  const Workload& workload_;
  const int64_t index_;
  const int turns_;
  Rng rng_;
  int turn_ = 0;
  int asked_tokens_ = 0;  // max_tokens of the last turn
  TokenIds ids_;          // the history, in the workload's kind of input
  std::string text_;
  Chat chat_;
  struct {
    size_t ids = 0, text = 0, chat = 0;
  } asked_from_;  // where the last question begins in the history
};

// Immutable, so any thread. Outlives its sessions.
class Workload {
 public:
  Workload(const WorkloadSpec& spec, const ContentOptions& content);

  std::unique_ptr<Session> NewSession(int64_t index) const;
  Request Injected(int64_t index) const;  // ids -1, -2, ...

  const WorkloadSpec& spec() const { return spec_; }
  const ContentOptions& content() const { return content_; }

 private:
  const WorkloadSpec spec_;
  const ContentOptions content_;
};

// `count` seeded words of common English, about a token each in today's vocabularies.
std::string RandomWords(Rng& rng, int count);

}  // namespace fairlead::serve_bench

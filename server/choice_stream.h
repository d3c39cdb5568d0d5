// SPDX-License-Identifier: Apache-2.0
// One choice's way from the engine to its client: the engine thread pushes tokens into memory
// reserved up front; the delivering thread takes what has arrived, detokenizes it, looks for stop
// strings and makes events of it. Single producer (engine), single consumer (delivery).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fairlead/v1/inference.pb.h"
#include "models/detokenizer.h"
#include "models/tokenizer.h"
#include "runtime/request.h"
#include "server/stop_matcher.h"

namespace fairlead {

namespace pb = ::fairlead::v1;

struct ChoiceOptions {
  int index = 0;
  std::vector<Token> prompt;       // for the text of prompt logprobs; empty otherwise
  std::string echo_text;           // what the output's text begins with
  std::vector<Token> stop_tokens;  // sorted
  std::vector<std::string> stop_strings;
  int max_tokens = 0;
  int logprobs = -1;
  int prompt_logprobs = -1;
  bool include_stop_text = false;
  bool skip_special_tokens = true;
  bool return_token_ids = false;
};

class ChoiceStream : public TokenSink {
 public:
  // Told on the engine thread that there is news, and after it that a step is over. Neither may
  // block or allocate.
  struct Listener {
    std::function<void()> news, flush;
  };
  // tokenizer may be null.
  ChoiceStream(ChoiceOptions options, const Tokenizer* tokenizer, Listener listener);

  // Engine thread.
  void PushPromptLogprob(const TokenOutput& output) override;
  void Push(const TokenOutput& output) override;
  void Close(const EngineResult& result) override;
  void Flush() override { listener_.flush(); }

  // The delivering thread. What has become certain since the last call.
  struct Progress {
    std::optional<pb::PromptLogprobs> prompt_logprobs;
    std::optional<pb::Delta> delta;
    std::optional<pb::Finish> finish;  // the output is complete
    bool stop_string_matched = false;  // the engine has to be told to end
    bool closed = false;               // the engine has closed the sink: nothing will follow
  };
  Progress Take();

  const EngineResult& result() const { return result_; }  // after `closed`
  int completion_tokens() const { return completion_tokens_; }
  // Times of the tokens taken so far (engine's push), for latency metrics: consumed by the caller.
  std::vector<absl::Time>& new_token_times() { return new_token_times_; }

 private:
  struct Record {
    Token token;
    float logprob;
    int rank;
    absl::Time time;
  };

  void Append(std::vector<Record>& records, std::vector<TopLogprob>& tops,
              const TokenOutput& output);
  void FillLogprob(const Record& record, const TopLogprob* top, int num_top,
                   pb::TokenLogprob& out) const;
  pb::PromptLogprobs TakePromptLogprobs() const;
  int OffsetBehind(int characters, const std::string& held, Token token) const;
  void TakeToken(int index, Progress& progress);
  void TakeEnd(Progress& progress);
  bool IsStopToken(Token token) const;
  void MakeDelta(bool at_end, Progress& progress);

  const ChoiceOptions options_;
  const Tokenizer* tokenizer_;
  const Listener listener_;

  // Written by the engine thread, read below the published counts.
  std::vector<Record> records_, prompt_records_;
  std::vector<TopLogprob> tops_, prompt_tops_;
  EngineResult result_;
  std::atomic<int> num_records_{0};
  std::atomic<bool> closed_{false};

  // The delivering thread only.
  std::optional<Detokenizer> detokenizer_;
  StopMatcher matcher_;
  std::vector<absl::Time> new_token_times_;
  std::string text_;          // certain, not yet in a delta
  int num_characters_;        // of the text so far, the echo and what is held back included
  std::vector<int> offsets_;  // of the tokens taken: characters before the one they begin in
  int num_taken_ = 0;         // records looked at
  int num_reported_ = 0;      // records that a delta has reported
  int completion_tokens_ = 0;
  bool prompt_reported_ = false;
  bool finished_ = false;
};

}  // namespace fairlead

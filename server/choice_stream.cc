// SPDX-License-Identifier: Apache-2.0
#include "server/choice_stream.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"

namespace fairlead {
namespace {

bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

int CodePoints(std::string_view text) {
  return static_cast<int>(text.size()) -
         static_cast<int>(std::count_if(text.begin(), text.end(), IsContinuation));
}

}  // namespace

ChoiceStream::ChoiceStream(ChoiceOptions options, const Tokenizer* tokenizer, Listener listener)
    : options_(std::move(options)),
      tokenizer_(tokenizer),
      listener_(std::move(listener)),
      matcher_(options_.stop_strings, options_.include_stop_text),
      num_characters_(CodePoints(options_.echo_text)) {
  records_.reserve(static_cast<size_t>(options_.max_tokens));
  tops_.reserve(static_cast<size_t>(options_.max_tokens) * std::max(options_.logprobs, 0));
  if (options_.prompt_logprobs >= 0 && !options_.prompt.empty()) {
    prompt_records_.reserve(options_.prompt.size() - 1);
    prompt_tops_.reserve((options_.prompt.size() - 1) * options_.prompt_logprobs);
  }
  if (tokenizer_ != nullptr) detokenizer_.emplace(*tokenizer_, options_.skip_special_tokens);
}

void ChoiceStream::Append(std::vector<Record>& records, std::vector<TopLogprob>& tops,
                          const TokenOutput& output) {
  records.push_back({output.token, output.logprob, output.rank, absl::Now()});
  tops.insert(tops.end(), output.top.begin(), output.top.end());
}

void ChoiceStream::PushPromptLogprob(const TokenOutput& output) {
  Append(prompt_records_, prompt_tops_, output);
}

void ChoiceStream::Push(const TokenOutput& output) {
  Append(records_, tops_, output);
  num_records_.store(static_cast<int>(records_.size()), std::memory_order_release);
  listener_.news();
}

void ChoiceStream::Close(const EngineResult& result) {
  result_ = result;
  closed_.store(true, std::memory_order_release);
  listener_.news();
}

bool ChoiceStream::IsStopToken(Token token) const {
  return std::binary_search(options_.stop_tokens.begin(), options_.stop_tokens.end(), token);
}

void ChoiceStream::FillLogprob(const Record& record, const TopLogprob* top, int num_top,
                               pb::TokenLogprob& out) const {
  const auto fill = [this](Token token, float logprob, int rank, pb::TokenLogprob& entry) {
    entry.set_token(token);
    entry.set_logprob(logprob);
    entry.set_rank(rank);
    if (tokenizer_ == nullptr) return;
    const std::string_view bytes = tokenizer_->Bytes(token);
    entry.set_text(bytes.data(), bytes.size());
  };
  fill(record.token, record.logprob, record.rank, out);
  for (int i = 0; i < num_top; ++i) fill(top[i].token, top[i].logprob, i + 1, *out.add_top());
}

pb::PromptLogprobs ChoiceStream::TakePromptLogprobs() const {
  pb::PromptLogprobs out;
  const std::string& text = options_.echo_text;
  std::optional<Detokenizer> stream;
  if (tokenizer_ != nullptr) stream.emplace(*tokenizer_, /*skip_special_tokens=*/true);
  size_t at = 0;
  int characters = 0;
  const auto place = [&](Token token, pb::TokenLogprob& entry) {
    entry.set_text_offset(stream ? OffsetBehind(characters, stream->Held(), token) : 0);
    if (!stream) return;
    std::string certain = stream->Push(token);
    // A special token takes a place where the text spells it; one that the tokenizer added, as a
    // bos, does not.
    const std::string_view bytes = tokenizer_->Bytes(token);
    if (tokenizer_->IsSpecial(token) && at <= text.size() &&
        text.compare(at, bytes.size(), bytes) == 0) {
      certain = bytes;
    }
    at += certain.size();
    characters += CodePoints(certain);
  };
  FillLogprob({options_.prompt.front(), 0, 0, {}}, nullptr, 0, *out.add_tokens());
  place(options_.prompt.front(), *out.mutable_tokens(0));
  const int n = options_.prompt_logprobs;
  for (size_t i = 0; i < prompt_records_.size(); ++i) {
    pb::TokenLogprob& entry = *out.add_tokens();
    FillLogprob(prompt_records_[i], prompt_tops_.data() + i * n, n, entry);
    place(prompt_records_[i].token, entry);
  }
  return out;
}

// Where the token's text will begin behind so many characters and what is held back; where the
// character begins that it continues. Of what is held back, cut characters are counted as the
// U+FFFD that they become if nothing continues them.
int ChoiceStream::OffsetBehind(int characters, const std::string& held, Token token) const {
  if (held.empty()) return characters;
  const int end = characters + CodePoints(ReplaceInvalidUtf8(held));
  if (CompleteUtf8Prefix(held) == held.size()) return end;
  const std::string_view bytes = tokenizer_->Bytes(token);
  const bool hidden = options_.skip_special_tokens && tokenizer_->IsSpecial(token);
  return hidden || bytes.empty() || IsContinuation(bytes.front()) ? end - 1 : end;
}

void ChoiceStream::TakeToken(int index, Progress& progress) {
  const Record& record = records_[index];
  num_taken_ = index + 1;
  completion_tokens_ = num_taken_;
  new_token_times_.push_back(record.time);
  const bool places = options_.logprobs >= 0 && detokenizer_;
  offsets_.push_back(places ? OffsetBehind(num_characters_, detokenizer_->Held(), record.token)
                            : num_characters_);
  if (!detokenizer_) return;
  // A stop token ends the output; its own text is not part of it unless asked for.
  if (IsStopToken(record.token) && !options_.include_stop_text) return;
  const std::string certain = detokenizer_->Push(record.token);
  if (places) num_characters_ += CodePoints(certain);
  StopMatcher::Result result = matcher_.Push(certain);
  text_ += result.text;
  if (result.match == nullptr) return;
  finished_ = true;
  progress.stop_string_matched = true;
  MakeDelta(/*at_end=*/true, progress);
  progress.finish.emplace();
  progress.finish->set_reason(pb::FINISH_REASON_STOP);
  progress.finish->set_stop_string(*result.match);
}

// The engine has closed: what was held back comes out, unless a stop string completes in it.
void ChoiceStream::TakeEnd(Progress& progress) {
  finished_ = true;
  pb::Finish finish;
  finish.set_reason(result_.reason == FinishReason::kLength ? pb::FINISH_REASON_LENGTH
                                                            : pb::FINISH_REASON_STOP);
  if (detokenizer_) {
    StopMatcher::Result rest = matcher_.Push(detokenizer_->Finish());
    text_ += rest.text;
    if (rest.match != nullptr) {
      finish.set_reason(pb::FINISH_REASON_STOP);
      finish.set_stop_string(*rest.match);
    } else {
      text_ += matcher_.Finish();
    }
  }
  if (result_.reason == FinishReason::kStop && !records_.empty() &&
      finish.matched_case() == pb::Finish::MATCHED_NOT_SET) {
    const Token last = records_.back().token;
    const absl::Span<const Token> own =
        tokenizer_ != nullptr ? tokenizer_->stop_tokens() : absl::Span<const Token>();
    if (!std::binary_search(own.begin(), own.end(), last)) finish.set_stop_token_id(last);
  }
  MakeDelta(/*at_end=*/true, progress);
  progress.finish = std::move(finish);
}

// A delta stands for tokens whose text is certain. Without token details, tokens that have no text
// yet wait for it.
void ChoiceStream::MakeDelta(bool at_end, Progress& progress) {
  const int num_new = num_taken_ - num_reported_;
  const bool wants_details =
      options_.return_token_ids || options_.logprobs >= 0 || tokenizer_ == nullptr;
  if (num_new == 0 && text_.empty()) return;
  if (!at_end && (matcher_.holding() || (text_.empty() && !wants_details))) return;
  pb::Delta& delta = progress.delta.emplace();
  delta.set_choice(options_.index);
  delta.set_text(std::exchange(text_, {}));
  delta.set_num_tokens(num_new);
  const int n = std::max(options_.logprobs, 0);
  for (int i = num_reported_; i < num_taken_; ++i) {
    if (options_.return_token_ids || tokenizer_ == nullptr) delta.add_token_ids(records_[i].token);
    if (options_.logprobs < 0) continue;
    pb::TokenLogprob& entry = *delta.add_logprobs();
    FillLogprob(records_[i], tops_.data() + static_cast<size_t>(i) * n, n, entry);
    entry.set_text_offset(offsets_[static_cast<size_t>(i)]);
  }
  num_reported_ = num_taken_;
}

ChoiceStream::Progress ChoiceStream::Take() {
  Progress progress;
  // Closed is read first: whatever was pushed before it is then visible in the count.
  progress.closed = closed_.load(std::memory_order_acquire);
  const int available = num_records_.load(std::memory_order_acquire);
  const bool failed = progress.closed && !result_.status.ok();
  if (!prompt_reported_ && options_.prompt_logprobs >= 0 &&
      (available > 0 || (progress.closed && !failed))) {
    prompt_reported_ = true;
    progress.prompt_logprobs = TakePromptLogprobs();
  }
  for (int i = num_taken_; i < available && !finished_; ++i) TakeToken(i, progress);
  if (!finished_ && progress.closed && !failed) {
    TakeEnd(progress);
  } else if (!finished_) {
    MakeDelta(/*at_end=*/false, progress);
  }
  if (progress.finish) {
    progress.finish->set_choice(options_.index);
    progress.finish->set_completion_tokens(completion_tokens_);
  }
  return progress;
}

}  // namespace fairlead

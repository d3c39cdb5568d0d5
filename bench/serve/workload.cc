// SPDX-License-Identifier: Apache-2.0
#include "bench/serve/workload.h"

#include <algorithm>
#include <array>
#include <boost/random/lognormal_distribution.hpp>
#include <boost/random/uniform_01.hpp>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace fairlead::serve_bench {
namespace {

constexpr std::array<WorkloadSpec, 10> kWorkloads = {{
    {.name = "W1", .about = "short: 128 in, 128 out"},
    {.name = "W2", .about = "1024 in, 128 out", .input_tokens = 1024},
    {.name = "W3", .about = "2048 in, 256 out", .input_tokens = 2048, .output_tokens = 256},
    {.name = "W4", .about = "decode: 128 in, 2048 out", .output_tokens = 2048},
    {.name = "W5",
     .about = "long: 20000 in, 2000 out",
     .input_tokens = 20000,
     .output_tokens = 2000},
    {.name = "W6",
     .about = "like ShareGPT: log-normal, mean 220 in, 200 out",
     .input_tokens = 220,
     .output_tokens = 200,
     .log_normal = true},
    {.name = "W7",
     .about =
         "chat of 8 turns, +256 in, 128 out each, after a system prompt of 1024 that all share",
     .input_tokens = 256,
     .turns = 8,
     .shared_tokens = 1024},
    {.name = "W8",
     .about = "agent of 30 turns, +500 in, 80 out each; 10 % of the requests are cancelled",
     .input_tokens = 500,
     .output_tokens = 80,
     .turns = 30,
     .cancel_share = 0.1},
    {.name = "W9",
     .about = "copying: 1024 in whose continuation repeats them, 256 out",
     .input_tokens = 1024,
     .output_tokens = 256,
     .copies = true},
    {.name = "W10",
     .about = "64 steady chats, 128 in, 512 out, and beside them a prompt of 32768 every 5 s",
     .output_tokens = 512,
     .injected_tokens = 32768,
     .inject_every_s = 5,
     .concurrency = 64},
}};

// Sigma 1 spreads lengths as chat logs do: the median is 0.61 of the mean, 1 % lies above 6 times
// it.
constexpr double kLogNormalSigma = 1;
constexpr int kLogNormalCut = 16;

// Streams of the seed that sessions (0, 1, 2 ...) do not reach; arrivals take 2^62.
constexpr uint64_t kSharedStream = uint64_t{1} << 61;
constexpr uint64_t kInjectedStream = uint64_t{1} << 60;

constexpr char kCopyInstruction[] = "Repeat the following text word for word.\n\n";

TokenIds RandomIds(Rng& rng, const ContentOptions& content, int count) {
  TokenIds ids(count);
  for (int32_t& id : ids) id = UniformInt(rng, content.lowest_token, content.highest_token);
  return ids;
}

int DrawLength(Rng& rng, const WorkloadSpec& spec, int mean) {
  if (spec.log_normal) {
    // exp(mu + sigma^2 / 2) is the mean of the distribution.
    const double mu = std::log(mean) - kLogNormalSigma * kLogNormalSigma / 2;
    const double length = boost::random::lognormal_distribution<double>(mu, kLogNormalSigma)(rng);
    return std::clamp(static_cast<int>(std::lround(length)), 1, kLogNormalCut * mean);
  }
  const int reach = static_cast<int>(mean * spec.range_ratio);
  return std::max(1, UniformInt(rng, mean - reach, mean + reach));
}

void Append(TokenIds& ids, const TokenIds& more) {
  ids.insert(ids.end(), more.begin(), more.end());
}

}  // namespace

absl::Span<const WorkloadSpec> NamedWorkloads() { return kWorkloads; }

absl::StatusOr<WorkloadSpec> FindWorkload(std::string_view name) {
  for (const WorkloadSpec& spec : kWorkloads) {
    if (spec.name == name) return spec;
  }
  return absl::InvalidArgumentError(absl::StrCat("--workload '", std::string(name),
                                                 "' is not one of W1 .. W", kWorkloads.size()));
}

WorkloadSpec Scaled(WorkloadSpec spec, double scale) {
  for (int* length :
       {&spec.input_tokens, &spec.output_tokens, &spec.shared_tokens, &spec.injected_tokens}) {
    if (*length > 0) *length = std::max(1, static_cast<int>(std::lround(*length * scale)));
  }
  return spec;
}

int64_t ContextNeeded(const WorkloadSpec& spec) {
  const double stretch = spec.log_normal ? 1 : 1 + spec.range_ratio;
  const double turn = stretch * (spec.input_tokens + spec.output_tokens);
  const auto session = static_cast<int64_t>(spec.shared_tokens + turn * spec.turns);
  return std::max<int64_t>(session, spec.injected_tokens + 1);
}

Workload::Workload(const WorkloadSpec& spec, const ContentOptions& content)
    : spec_(spec), content_(content) {}

std::unique_ptr<Session> Workload::NewSession(int64_t index) const {
  return std::make_unique<Session>(*this, index);
}

Request Workload::Injected(int64_t index) const {
  Rng rng = StreamRng(content_.seed, kInjectedStream + static_cast<uint64_t>(index));
  Request request{.id = -1 - index, .session = -1 - index, .injected = true};
  switch (content_.kind) {
    case InputKind::kTokens:
      request.prompt = RandomIds(rng, content_, spec_.injected_tokens);
      break;
    case InputKind::kText:
      request.prompt = RandomWords(rng, spec_.injected_tokens);
      break;
    case InputKind::kChat:
      request.prompt = Chat{{"user", RandomWords(rng, spec_.injected_tokens)}};
      break;
  }
  return request;
}

Session::Session(const Workload& workload, int64_t index)
    : workload_(workload),
      index_(index),
      turns_(workload.spec().turns),
      rng_(StreamRng(workload.content().seed, static_cast<uint64_t>(index))) {
  const int shared = workload.spec().shared_tokens;
  if (shared == 0) return;
  Rng shared_rng = StreamRng(workload.content().seed, kSharedStream);
  switch (workload.content().kind) {
    case InputKind::kTokens:
      ids_ = RandomIds(shared_rng, workload.content(), shared);
      break;
    case InputKind::kText:
      text_ = RandomWords(shared_rng, shared) + "\n";
      break;
    case InputKind::kChat:
      chat_ = {{"system", RandomWords(shared_rng, shared)}};
      break;
  }
}

Request Session::Next() {
  const WorkloadSpec& spec = workload_.spec();
  Request request{.id = index_ * turns_ + turn_, .session = index_, .turn = turn_};
  const int input = DrawLength(rng_, spec, spec.input_tokens);
  request.max_tokens = asked_tokens_ = DrawLength(rng_, spec, spec.output_tokens);
  if (spec.cancel_share > 0 && boost::random::uniform_01<double>()(rng_) < spec.cancel_share)
    request.cancel_after = UniformInt(rng_, 1, std::max(1, request.max_tokens / 2));
  // Two copies and the third is the likely continuation; a chat is told to.
  const int repeats = spec.copies && workload_.content().kind != InputKind::kChat ? 2 : 1;
  const int length = std::max(1, input / repeats);
  asked_from_ = {ids_.size(), text_.size(), chat_.size()};
  switch (workload_.content().kind) {
    case InputKind::kTokens: {
      const TokenIds passage = RandomIds(rng_, workload_.content(), length);
      for (int i = 0; i < repeats; ++i) Append(ids_, passage);
      request.wants_answer_ids = turn_ + 1 < turns_;
      request.prompt = ids_;
      break;
    }
    case InputKind::kText: {
      const std::string passage = RandomWords(rng_, length) + "\n";
      for (int i = 0; i < repeats; ++i) text_ += passage;
      request.prompt = text_;
      break;
    }
    case InputKind::kChat:
      chat_.push_back({"user", (spec.copies ? kCopyInstruction : "") + RandomWords(rng_, length)});
      request.prompt = chat_;
      break;
  }
  ++turn_;
  return request;
}

void Session::Answered(const Record& record) {
  if (record.outcome != Outcome::kOk) {
    ids_.resize(asked_from_.ids);
    text_.resize(asked_from_.text);
    chat_.resize(asked_from_.chat);
    return;
  }
  switch (workload_.content().kind) {
    case InputKind::kTokens:
      Append(ids_, record.answer_ids.empty() ? RandomIds(rng_, workload_.content(), asked_tokens_)
                                             : record.answer_ids);
      break;
    case InputKind::kText:
      text_ += record.answer_text + "\n";
      break;
    case InputKind::kChat:
      chat_.push_back({"assistant", record.answer_text});
      break;
  }
}

}  // namespace fairlead::serve_bench

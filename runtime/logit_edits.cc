// SPDX-License-Identifier: Apache-2.0
#include "runtime/logit_edits.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/check.h"
#include "kernels/sampling_rng.h"

namespace fairlead {

std::unique_ptr<LogitEditTable> LogitEditTable::Create(const EngineRequest& request, int vocab) {
  const SamplingParams& sampling = request.sampling;
  const bool penalises = sampling.repetition_penalty != 1 || sampling.presence_penalty != 0 ||
                         sampling.frequency_penalty != 0;
  const bool delays_stop = request.min_tokens > 0 && !request.stop_tokens.empty();
  if (!penalises && sampling.logit_bias.empty() && !delays_stop) return nullptr;

  size_t max_entries = sampling.logit_bias.size() + (delays_stop ? request.stop_tokens.size() : 0);
  if (penalises) max_entries += request.prompt.size() + request.max_tokens;
  max_entries = std::min(max_entries, static_cast<size_t>(vocab));
  std::unique_ptr<LogitEditTable> table(
      new LogitEditTable(sampling, request.min_tokens, static_cast<int>(max_entries)));
  for (const auto& [token, bias] : sampling.logit_bias) table->FindOrAdd(token).bias += bias;
  if (delays_stop) {
    for (const Token token : request.stop_tokens) table->FindOrAdd(token).stop = true;
  }
  // The prompt counts for the repetition penalty alone.
  if (sampling.repetition_penalty != 1) {
    for (const Token token : request.prompt) table->FindOrAdd(token).in_prompt = true;
  }
  return table;
}

LogitEditTable::LogitEditTable(const SamplingParams& sampling, int min_tokens, int max_entries)
    : repetition_(sampling.repetition_penalty),
      presence_(sampling.presence_penalty),
      frequency_(sampling.frequency_penalty),
      min_tokens_(min_tokens),
      penalises_(repetition_ != 1 || presence_ != 0 || frequency_ != 0),
      slots_(std::bit_ceil(2 * static_cast<size_t>(max_entries) + 1), -1) {
  entries_.reserve(max_entries);
}

void LogitEditTable::Append(Token token) {
  if (penalises_) ++FindOrAdd(token).output_count;
}

void LogitEditTable::Remove(Token token) {
  if (penalises_) --FindOrAdd(token).output_count;
}

LogitEditTable::Entry& LogitEditTable::FindOrAdd(Token token) {
  const size_t mask = slots_.size() - 1;
  size_t slot = MixBits(static_cast<uint32_t>(token)) & mask;
  while (slots_[slot] >= 0) {
    Entry& entry = entries_[slots_[slot]];
    if (entry.token == token) return entry;
    slot = (slot + 1) & mask;
  }
  // Ids lie inside the vocabulary, so what was reserved is enough.
  FAIRLEAD_CHECK(entries_.size() < entries_.capacity());
  slots_[slot] = static_cast<int32_t>(entries_.size());
  entries_.push_back({.token = token});
  return entries_.back();
}

int LogitEditTable::Write(int num_output_tokens, absl::Span<LogitEdit> out) const {
  int n = 0;
  for (const Entry& entry : entries_) {
    const float repetition = entry.in_prompt || entry.output_count > 0 ? repetition_ : 1.0f;
    float add = entry.bias;
    if (entry.output_count > 0) {
      add -= presence_ + frequency_ * static_cast<float>(entry.output_count);
    }
    if (entry.stop && num_output_tokens < min_tokens_) {
      add = -std::numeric_limits<float>::infinity();
    }
    if (repetition != 1 || add != 0) out[n++] = {entry.token, repetition, add};
  }
  return n;
}

}  // namespace fairlead

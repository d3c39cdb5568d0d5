// SPDX-License-Identifier: Apache-2.0
#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/check.h"

namespace fairlead {
namespace {

// Edits of one slice. A row never has more than vocab of them, so one row always fits; what does
// not fit with it goes into the next slice.
size_t MaxEdits(const Model& model) {
  return std::max<size_t>(static_cast<size_t>(model.config().vocab), size_t{1} << 18);
}

Tensor FirstRows(Tensor tensor, int64_t rows) {
  tensor.dim[0] = rows;
  return tensor;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Sampler>> Sampler::Create(Device& device, const Model& model,
                                                         const SamplerLimits& limits) {
  const int64_t rows = limits.max_rows;
  const int64_t vocab = model.config().vocab;
  absl::StatusOr<Buffer> logits = device.Allocate(RowBytes(DType::kF32, rows * vocab));
  if (!logits.ok()) return logits.status();
  // Per row: 6 scalars, the seed's halves, the row's index; then the edits.
  const size_t edits = MaxEdits(model);
  absl::StatusOr<Mirror> input = Mirror::Create(
      device, 7 * Mirror::BytesFor(rows) + Mirror::BytesFor(2 * rows) + Mirror::BytesFor(rows + 1) +
                  3 * Mirror::BytesFor(static_cast<int64_t>(edits)));
  if (!input.ok()) return input.status();
  absl::StatusOr<Mirror> output = Mirror::Create(
      device, 3 * Mirror::BytesFor(rows) + 2 * Mirror::BytesFor(rows * limits.max_logprobs));
  if (!output.ok()) return output.status();
  return std::unique_ptr<Sampler>(new Sampler(device, model, limits, *std::move(logits),
                                              *std::move(input), *std::move(output)));
}

Sampler::Sampler(const Device& device, const Model& model, const SamplerLimits& limits,
                 Buffer logits, Mirror input, Mirror output)
    : ops_(device.ops()),
      model_(model),
      limits_(limits),
      max_edits_(MaxEdits(model)),
      logits_(std::move(logits)),
      input_(std::move(input)),
      output_(std::move(output)),
      edits_(max_edits_) {
  rows_.reserve(std::max(limits.max_rows, limits.max_samples));
  edit_start_.reserve(limits.max_rows + 1);
  top_.reserve(limits.max_logprobs);
  sampled_.reserve(limits.max_samples);
}

void Sampler::ScorePrompts(Stream& stream, const Tensor& hidden, const StepPlan& plan,
                           Scratch& scratch, Deliver deliver) {
  rows_.clear();
  int hidden_row = 0;
  for (const PlannedRow& planned : plan.rows) {
    Sequence& sequence = *planned.sequence;
    for (int i = 0; i < planned.num_tokens; ++i, ++hidden_row) {
      const int position = planned.first_token + i + 1;
      if (!sequence.scores_prompt() || position < sequence.num_scored_tokens ||
          position >= sequence.num_prompt_tokens) {
        continue;
      }
      rows_.push_back({.sequence = &sequence, .hidden_row = hidden_row, .position = position});
      if (static_cast<int>(rows_.size()) == limits_.max_rows) {
        ScoreSlice(stream, hidden, scratch, deliver);
      }
    }
  }
  if (!rows_.empty()) ScoreSlice(stream, hidden, scratch, deliver);
}

void Sampler::ScoreSlice(Stream& stream, const Tensor& hidden, Scratch& scratch, Deliver deliver) {
  const int64_t n = static_cast<int64_t>(rows_.size());
  input_.Clear();
  output_.Clear();
  const auto row = input_.Add<int32_t>({n});
  const auto target = input_.Add<int32_t>({n});
  int num_top = 0;
  for (int64_t i = 0; i < n; ++i) {
    row.host[i] = rows_[i].hidden_row;
    target.host[i] = rows_[i].sequence->tokens[rows_[i].position];
    num_top = std::max(num_top, rows_[i].sequence->request.prompt_logprobs);
  }
  input_.CopyToDevice(stream);
  const Tensor logits = ComputeLogits(stream, hidden, row.device, scratch);
  const Logprobs logprobs = EnqueueLogprobs(stream, logits, target.device, num_top);
  output_.CopyToHost(stream);
  stream.Wait();
  for (int i = 0; i < n; ++i) {
    Sequence& sequence = *rows_[i].sequence;
    if (std::isnan(logprobs.logprob.host[i])) sequence.nonfinite_logits = true;
    if (sequence.nonfinite_logits) continue;
    deliver(sequence, OutputOf(logprobs, i, target.host[i], sequence.request.prompt_logprobs));
    sequence.num_scored_tokens = rows_[i].position + 1;
  }
  rows_.clear();
}

absl::Span<const Token> Sampler::Sample(Stream& stream, const Tensor& hidden, const StepPlan& plan,
                                        Scratch& scratch, Deliver deliver) {
  CollectSamples(plan);
  for (absl::Span<const Row> rest = rows_; !rest.empty();) {
    rest.remove_prefix(SampleSlice(stream, hidden, rest, scratch, deliver));
  }
  // A plan without samples has copies in flight all the same.
  if (rows_.empty()) stream.Wait();
  return sampled_;
}

void Sampler::CollectSamples(const StepPlan& plan) {
  rows_.clear();
  int hidden_end = 0, sample = 0;
  for (const PlannedRow& planned : plan.rows) {
    hidden_end += planned.num_tokens;
    if (!planned.sample) continue;
    Sequence& sequence = *planned.sequence;
    for (int draft = 0; draft <= planned.num_drafts; ++draft) {
      rows_.push_back({.sequence = &sequence,
                       .hidden_row = hidden_end - 1 - planned.num_drafts + draft,
                       .position = static_cast<int>(sequence.tokens.size()) + draft,
                       .sample = sample++,
                       .draft = draft});
    }
  }
  sampled_.assign(sample, -1);
  // Rows that want logprobs first, so that the others' are not computed.
  std::sort(rows_.begin(), rows_.end(), [](const Row& a, const Row& b) {
    const bool a_wants = a.sequence->request.logprobs >= 0;
    const bool b_wants = b.sequence->request.logprobs >= 0;
    return a_wants != b_wants ? a_wants : a.sample < b.sample;
  });
}

size_t Sampler::SampleSlice(Stream& stream, const Tensor& hidden, absl::Span<const Row> rows,
                            Scratch& scratch, Deliver deliver) {
  rows = rows.first(CollectEdits(rows));
  const int64_t n = static_cast<int64_t>(rows.size());
  int wanting = 0, num_top = 0;
  input_.Clear();
  output_.Clear();
  const auto row = input_.Add<int32_t>({n});
  for (int64_t i = 0; i < n; ++i) {
    row.host[i] = rows[i].hidden_row;
    const int logprobs = rows[i].sequence->request.logprobs;
    if (logprobs >= 0) ++wanting;
    num_top = std::max(num_top, logprobs);
  }
  SampleArgs args = PackSampleArgs(rows);
  args.edits = PackEdits();
  input_.CopyToDevice(stream);

  const auto drawn = output_.Add<int32_t>({n});
  args.logits = ComputeLogits(stream, hidden, row.device, scratch);
  args.out = drawn.device;
  ops_.Sample(stream, args);
  Logprobs logprobs;
  if (wanting > 0) {
    logprobs = EnqueueLogprobs(stream, FirstRows(args.logits, wanting),
                               FirstRows(drawn.device, wanting), num_top);
  }
  output_.CopyToHost(stream);
  stream.Wait();

  for (int i = 0; i < n; ++i) {
    Sequence& sequence = *rows[i].sequence;
    const Token token = drawn.host[i];
    sampled_[rows[i].sample] = token;
    delivered_ = Reached(rows[i]) && token >= 0 && !sequence.nonfinite_logits;
    if (!delivered_) continue;
    deliver(sequence, i < wanting ? OutputOf(logprobs, i, token, sequence.request.logprobs)
                                  : TokenOutput{.token = token, .top = {}});
  }
  return rows.size();
}

bool Sampler::Reached(const Row& row) const {
  if (row.draft == 0) return true;
  return delivered_ && sampled_[row.sample - 1] == row.sequence->drafts[row.draft - 1];
}

size_t Sampler::CollectEdits(absl::Span<const Row> rows) {
  size_t used = 0, taken = 0;
  edit_start_.assign(1, 0);
  for (; taken < rows.size() && taken < static_cast<size_t>(limits_.max_rows); ++taken) {
    Sequence& sequence = *rows[taken].sequence;
    if (LogitEditTable* const table = sequence.edits.get(); table != nullptr) {
      // As if the drafts before this position were output already.
      const auto drafts = absl::MakeConstSpan(sequence.drafts).first(rows[taken].draft);
      for (const Token draft : drafts) table->Append(draft);
      const bool fits = used + table->max_edits() <= max_edits_;
      if (fits) {
        const int outputs = sequence.num_output_tokens() + rows[taken].draft;
        used += table->Write(outputs, absl::MakeSpan(edits_).subspan(used));
      }
      for (const Token draft : drafts) table->Remove(draft);
      if (!fits) break;
    }
    edit_start_.push_back(static_cast<int32_t>(used));
  }
  FAIRLEAD_CHECK(taken > 0);
  return taken;
}

SampleArgs Sampler::PackSampleArgs(absl::Span<const Row> rows) {
  const int64_t n = static_cast<int64_t>(rows.size());
  const auto temperature = input_.Add<float>({n});
  const auto top_k = input_.Add<int32_t>({n});
  const auto top_p = input_.Add<float>({n});
  const auto min_p = input_.Add<float>({n});
  const auto seed = input_.Add<int32_t>({n, 2});
  const auto position = input_.Add<int32_t>({n});
  for (int64_t i = 0; i < n; ++i) {
    const SamplingParams& sampling = rows[i].sequence->request.sampling;
    temperature.host[i] = sampling.temperature;
    top_k.host[i] = sampling.top_k;
    top_p.host[i] = sampling.top_p;
    min_p.host[i] = sampling.min_p;
    seed.host[2 * i] = static_cast<int32_t>(sampling.seed);
    seed.host[2 * i + 1] = static_cast<int32_t>(sampling.seed >> 32);
    position.host[i] = rows[i].position;
  }
  return {.logits = {},
          .temperature = temperature.device,
          .top_k = top_k.device,
          .top_p = top_p.device,
          .min_p = min_p.device,
          .seed = seed.device,
          .position = position.device,
          .edits = {},
          .out = {}};
}

LogitEdits Sampler::PackEdits() {
  const int64_t n = edit_start_.back();
  if (n == 0) return {};
  const auto start = input_.Add<int32_t>({static_cast<int64_t>(edit_start_.size())});
  const auto token = input_.Add<int32_t>({n});
  const auto repetition = input_.Add<float>({n});
  const auto add = input_.Add<float>({n});
  std::copy(edit_start_.begin(), edit_start_.end(), start.host.begin());
  for (int64_t i = 0; i < n; ++i) {
    token.host[i] = edits_[i].token;
    repetition.host[i] = edits_[i].repetition;
    add.host[i] = edits_[i].add;
  }
  return {start.device, token.device, repetition.device, add.device};
}

Tensor Sampler::ComputeLogits(Stream& stream, const Tensor& hidden, const Tensor& row,
                              Scratch& scratch) {
  const Tensor logits(logits_.data(), DType::kF32, {row.dim[0], model_.config().vocab});
  model_.Logits(stream, hidden, row, logits, scratch);
  return logits;
}

Sampler::Logprobs Sampler::EnqueueLogprobs(Stream& stream, const Tensor& logits,
                                           const Tensor& target, int num_top) {
  const int64_t n = logits.dim[0];
  Logprobs result;
  result.num_top = num_top;
  result.logprob = output_.Add<float>({n});
  result.rank = output_.Add<int32_t>({n});
  if (num_top > 0) {
    result.top_token = output_.Add<int32_t>({n, num_top});
    result.top_logprob = output_.Add<float>({n, num_top});
  }
  ops_.Logprobs(stream, {.logits = logits,
                         .target = target,
                         .out_logprob = result.logprob.device,
                         .out_rank = result.rank.device,
                         .top_token = result.top_token.device,
                         .top_logprob = result.top_logprob.device});
  return result;
}

TokenOutput Sampler::OutputOf(const Logprobs& logprobs, int row, Token token, int num_top) {
  top_.clear();
  for (int i = row * logprobs.num_top; i < row * logprobs.num_top + num_top; ++i) {
    top_.push_back({logprobs.top_token.host[i], logprobs.top_logprob.host[i]});
  }
  return {.token = token,
          .logprob = logprobs.logprob.host[row],
          .rank = logprobs.rank.host[row],
          .top = top_};
}

}  // namespace fairlead

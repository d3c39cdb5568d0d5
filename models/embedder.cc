// SPDX-License-Identifier: Apache-2.0
#include "models/embedder.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

constexpr int kBlockTokens = 16;

int BlocksFor(size_t tokens) {
  return static_cast<int>((tokens + kBlockTokens - 1) / kBlockTokens);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Embedder>> Embedder::Create(std::unique_ptr<EmbeddingModel> model,
                                                           Device& device,
                                                           const EmbedderLimits& limits) {
  FAIRLEAD_CHECK(limits.tokens > 0 && limits.sequences > 0);
  FAIRLEAD_CHECK(device.info().activation_dtype == DType::kF32);  // what is copied to the host
  std::unique_ptr<Embedder> embedder(new Embedder());
  embedder->limits_ = limits;
  embedder->max_tokens_ = std::min(limits.tokens, model->max_positions());
  embedder->ops_ = &device.ops();
  embedder->stream_ = device.NewStream();
  const size_t tokens = static_cast<size_t>(limits.tokens);
  const size_t sequences = static_cast<size_t>(limits.sequences);
  const size_t blocks = tokens / kBlockTokens + sequences;  // the last of each may be begun
  const KvShape shape = model->kv_shape(kBlockTokens);
  const size_t table = sequences * BlocksFor(static_cast<size_t>(embedder->max_tokens_));
  Buffer scratch;
  const std::pair<Buffer*, size_t> buffers[] = {
      {&embedder->kv_buffer_, blocks * device.KvBlockBytes(shape)},
      {&embedder->inputs_, sizeof(int32_t) * (3 * tokens + 2 * sequences + 1 + table)},
      {&embedder->pooled_, sizeof(float) * sequences * model->hidden()},
      {&scratch, model->ScratchBytes(limits.tokens)}};
  for (const auto& [buffer, bytes] : buffers) {
    auto allocated = device.Allocate(bytes);
    if (!allocated.ok()) return allocated.status();
    *buffer = *std::move(allocated);
  }
  embedder->scratch_ = std::make_unique<Scratch>(std::move(scratch));
  embedder->kv_ = {
      .data = embedder->kv_buffer_.data(), .num_blocks = static_cast<int>(blocks), .shape = shape};
  embedder->model_ = std::move(model);
  return embedder;
}

absl::Status Embedder::Check(absl::Span<const std::vector<Token>> sequences) const {
  for (size_t i = 0; i < sequences.size(); ++i) {
    const std::vector<Token>& sequence = sequences[i];
    if (sequence.empty() || sequence.size() > static_cast<size_t>(max_tokens_)) {
      return absl::InvalidArgumentError(StrCat("sequence ", i, " has ", sequence.size(),
                                               " tokens; it must have 1 to ", max_tokens_));
    }
    for (const Token token : sequence) {
      if (token >= 0 && token < model_->vocab()) continue;
      return absl::InvalidArgumentError(StrCat("sequence ", i, " has the token ", token,
                                               "; the vocabulary has 0 to ", model_->vocab() - 1));
    }
  }
  return absl::OkStatus();
}

// How many of the first sequences make the next batch.
size_t Embedder::CountBatch(absl::Span<const std::vector<Token>> sequences) const {
  size_t count = 0, tokens = 0;
  while (count < sequences.size() && count < static_cast<size_t>(limits_.sequences) &&
         tokens + sequences[count].size() <= static_cast<size_t>(limits_.tokens)) {
    tokens += sequences[count++].size();
  }
  return count;
}

// Each sequence begins a block of its own.
Batch Embedder::Upload(absl::Span<const std::vector<Token>> sequences) {
  std::vector<int32_t> tokens, positions, slots, start = {0}, lengths, blocks;
  size_t longest = 0;
  for (const std::vector<Token>& sequence : sequences) longest = std::max(longest, sequence.size());
  const int columns = BlocksFor(longest);
  int next_block = 0;
  for (const std::vector<Token>& sequence : sequences) {
    const int length = static_cast<int>(sequence.size()), own = BlocksFor(sequence.size());
    tokens.insert(tokens.end(), sequence.begin(), sequence.end());
    model_->AppendPositions(sequence, positions);
    for (int i = 0; i < length; ++i) slots.push_back(next_block * kBlockTokens + i);
    start.push_back(static_cast<int32_t>(tokens.size()));
    lengths.push_back(length);
    for (int i = 0; i < columns; ++i) blocks.push_back(i < own ? next_block + i : 0);
    next_block += own;
  }
  host_inputs_.clear();
  const auto append = [&](const std::vector<int32_t>& values, std::initializer_list<int64_t> dims) {
    Tensor view(static_cast<int32_t*>(inputs_.data()) + host_inputs_.size(), DType::kI32, dims);
    host_inputs_.insert(host_inputs_.end(), values.begin(), values.end());
    return view;
  };
  const auto count = static_cast<int64_t>(tokens.size());
  const auto seqs = static_cast<int64_t>(sequences.size());
  Batch batch;
  batch.token = append(tokens, {count});
  batch.position = append(positions, {count});
  batch.kv_slot = append(slots, {count});
  batch.query_start = append(start, {seqs + 1});
  batch.context_tokens = append(lengths, {seqs});
  batch.block_table = append(blocks, {seqs, columns});
  const size_t bytes = host_inputs_.size() * sizeof(int32_t);
  FAIRLEAD_CHECK(bytes <= inputs_.bytes());
  stream_->CopyToDevice(inputs_.data(), host_inputs_.data(), bytes);
  return batch;
}

void Embedder::Run(absl::Span<const std::vector<Token>> sequences, const Consumer& consume) {
  while (!sequences.empty()) {
    const size_t count = CountBatch(sequences);
    const Batch batch = Upload(sequences.first(count));
    consume(model_->HiddenStates(*stream_, batch, kv_, *scratch_), batch);
    stream_->Wait();
    sequences.remove_prefix(count);
  }
}

absl::StatusOr<std::vector<float>> Embedder::Embed(absl::Span<const std::vector<Token>> sequences,
                                                   const PoolingConfig& pooling) {
  if (absl::Status status = Check(sequences); !status.ok()) return status;
  std::vector<float> vectors(sequences.size() * static_cast<size_t>(dimensions()));
  float* next = vectors.data();
  Run(sequences, [&](const Tensor& hidden, const Batch& batch) {
    const Tensor out(pooled_.data(), DType::kF32, {batch.context_tokens.dim[0], dimensions()});
    ops_->Pool(*stream_, {.x = hidden,
                          .query_start = batch.query_start,
                          .out = out,
                          .pooling = pooling.pooling,
                          .normalize = pooling.normalize});
    stream_->CopyToHost(next, out.data, out.bytes());
    next += out.elements();
  });
  return vectors;
}

absl::StatusOr<std::vector<float>> Embedder::HiddenStates(
    absl::Span<const std::vector<Token>> sequences) {
  if (absl::Status status = Check(sequences); !status.ok()) return status;
  size_t tokens = 0;
  for (const std::vector<Token>& sequence : sequences) tokens += sequence.size();
  std::vector<float> vectors(tokens * static_cast<size_t>(dimensions()));
  float* next = vectors.data();
  Run(sequences, [&](const Tensor& hidden, const Batch&) {
    stream_->CopyToHost(next, hidden.data, hidden.bytes());
    next += hidden.elements();
  });
  return vectors;
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "runtime/embedding_engine.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "kernels/check.h"
#include "kernels/strings.h"
#include "kernels/thread_name.h"

namespace fairlead {

EmbeddingEngine::EmbeddingEngine(const EmbeddingEngineOptions& options, Embed embed)
    : options_(options), embed_(std::move(embed)) {
  FAIRLEAD_CHECK(options.dimensions > 0 && options.max_batch_texts > 0);
  thread_ = std::thread([this] { Loop(); });
}

EmbeddingEngine::~EmbeddingEngine() { Drain(absl::InfinitePast()); }

absl::StatusOr<uint64_t> EmbeddingEngine::Submit(std::vector<std::vector<Token>> texts, Done done,
                                                 size_t held_bytes) {
  FAIRLEAD_CHECK(!texts.empty());
  auto request = std::make_shared<Request>();
  const size_t values = texts.size() * static_cast<size_t>(options_.dimensions);
  request->bytes = held_bytes + values * sizeof(float) + texts.size() * sizeof(texts[0]);
  for (const std::vector<Token>& text : texts) request->bytes += text.size() * sizeof(Token);
  request->left = texts.size();
  request->values.resize(values);
  request->texts = std::move(texts);
  request->done = std::move(done);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (draining_) return absl::UnavailableError("the server is shutting down");
    if (active_.size() >= static_cast<size_t>(options_.max_requests)) {
      return absl::ResourceExhaustedError(
          StrCat("the queue is full: ", active_.size(), " requests run or wait"));
    }
    if (!active_.empty() && held_bytes_ + request->bytes > options_.max_held_bytes) {
      return absl::ResourceExhaustedError(
          StrCat("the queue is full: what runs or waits holds ", held_bytes_,
                 " bytes, this request ", request->bytes, "; allowed: ", options_.max_held_bytes));
    }
    held_bytes_ += request->bytes;
    request->id = next_id_++;
    active_.emplace(request->id, request);
    queue_.push_back(request);
  }
  work_.notify_one();
  return request->id;
}

EmbeddingEngine::Done EmbeddingEngine::Remove(Request& request) {
  request.over = true;
  Done done = std::exchange(request.done, nullptr);
  held_bytes_ -= request.bytes;
  std::erase_if(queue_, [&](const auto& waiting) { return waiting.get() == &request; });
  active_.erase(request.id);
  if (active_.empty()) idle_.notify_all();
  return done;
}

void EmbeddingEngine::Cancel(uint64_t id) {
  Done done;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = active_.find(id);
    if (found == active_.end()) return;
    const std::shared_ptr<Request> request = found->second;
    done = Remove(*request);
  }
  done(absl::CancelledError("the request was cancelled"));
}

void EmbeddingEngine::Drain(absl::Time deadline) {
  std::vector<Done> ended;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    draining_ = true;
    const auto idle = [this] { return active_.empty(); };
    if (deadline == absl::InfiniteFuture()) {
      idle_.wait(lock, idle);
    } else {
      idle_.wait_until(lock, absl::ToChronoTime(deadline), idle);
    }
    while (!active_.empty()) {
      const std::shared_ptr<Request> request = active_.begin()->second;
      ended.push_back(Remove(*request));
    }
    stop_ = true;
  }
  work_.notify_one();
  for (const Done& done : ended) done(absl::UnavailableError("the server is shutting down"));
  if (thread_.joinable()) thread_.join();
}

EmbeddingStats EmbeddingEngine::stats() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  EmbeddingStats stats = stats_;
  for (const auto& [id, request] : active_) ++(request->next > 0 ? stats.running : stats.waiting);
  return stats;
}

// In turns, one text each. The batch ends before the text that does not fit, whose turn is then
// next: however small the others are, it does not wait for ever.
EmbeddingEngine::Batch EmbeddingEngine::TakeBatch() {
  Batch batch;
  while (!queue_.empty() && batch.texts.size() < static_cast<size_t>(options_.max_batch_texts)) {
    const std::shared_ptr<Request> request = queue_.front();
    std::vector<Token>& text = request->texts[request->next];
    const int64_t tokens = batch.tokens + static_cast<int64_t>(text.size());
    if (!batch.texts.empty() && tokens > options_.max_batch_tokens) break;
    batch.tokens = tokens;
    batch.places.push_back({request, request->next++});
    batch.texts.push_back(std::move(text));
    queue_.pop_front();
    if (request->next < request->texts.size()) queue_.push_back(request);
  }
  return batch;
}

void EmbeddingEngine::Deliver(const Batch& batch,
                              const absl::StatusOr<std::vector<float>>& vectors) {
  const auto size = static_cast<size_t>(options_.dimensions);
  FAIRLEAD_CHECK(!vectors.ok() || vectors->size() == batch.texts.size() * size);
  std::vector<std::pair<Done, absl::StatusOr<std::vector<float>>>> ended;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++stats_.batches;
    stats_.texts += static_cast<int64_t>(batch.texts.size());
    stats_.tokens += batch.tokens;
    for (size_t i = 0; i < batch.places.size(); ++i) {
      const auto& [request, text] = batch.places[i];
      if (request->over) continue;
      if (vectors.ok()) {
        std::copy_n(vectors->begin() + static_cast<int64_t>(i * size), size,
                    request->values.begin() + static_cast<int64_t>(text * size));
      }
      if (--request->left > 0 && vectors.ok()) continue;
      Done done = Remove(*request);
      if (vectors.ok()) {
        ended.emplace_back(std::move(done), std::move(request->values));
      } else {
        ended.emplace_back(std::move(done), vectors.status());
      }
    }
  }
  for (auto& [done, result] : ended) done(std::move(result));
}

void EmbeddingEngine::Loop() {
  SetThreadName("embed");
  while (true) {
    Batch batch;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      work_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) return;
      batch = TakeBatch();
    }
    absl::StatusOr<std::vector<float>> vectors = absl::InternalError("not computed");
    try {
      vectors = embed_(batch.texts);
    } catch (const std::exception& error) {  // out of memory
      vectors = absl::InternalError(error.what());
    }
    // What a request may not have was refused before it came here.
    if (!vectors.ok()) vectors = absl::InternalError(vectors.status().message());
    Deliver(batch, vectors);
  }
}

}  // namespace fairlead

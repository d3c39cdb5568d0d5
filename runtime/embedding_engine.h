// SPDX-License-Identifier: Apache-2.0
// Texts of many requests become ragged batches for a model that makes embeddings. One thread of its
// own runs them; what waits is taken text by text, a request after the other, so that a request of
// one text does not wait for one of thousands. Thread-safe.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "models/tokenizer.h"

namespace fairlead {

struct EmbeddingEngineOptions {
  int dimensions = 0;          // elements of a vector
  int max_batch_tokens = 256;  // a longer text is a batch of its own
  int max_batch_texts = 64;
  int max_requests = 576;  // that run or wait; one more is refused
  // Of all requests' token ids, vectors and held_bytes; one that exceeds it may run alone.
  size_t max_held_bytes = size_t{256} << 20;
};

// A snapshot; counters never fall.
struct EmbeddingStats {
  int running = 0;  // requests of which a text has been taken
  int waiting = 0;  // the others
  int64_t batches = 0, texts = 0, tokens = 0;
};

class EmbeddingEngine {
 public:
  // Runs one batch: [texts, dimensions], each row's bits depending on its text alone. Called by the
  // engine's thread only.
  using Embed =
      std::function<absl::StatusOr<std::vector<float>>(absl::Span<const std::vector<Token>>)>;
  // Once for each request taken, by the engine's thread or that of a Cancel or Drain; must not
  // block. [texts, dimensions].
  using Done = std::function<void(absl::StatusOr<std::vector<float>>)>;

  EmbeddingEngine(const EmbeddingEngineOptions& options, Embed embed);
  ~EmbeddingEngine();  // drains with an expired deadline

  // The texts are as `embed` takes them. held_bytes: what the request holds beside them until it is
  // done. Refused: kResourceExhausted when there is no room,
  // kUnavailable when draining; then `done` is not called.
  absl::StatusOr<uint64_t> Submit(std::vector<std::vector<Token>> texts, Done done,
                                  size_t held_bytes = 0);
  // Idempotent: no text of the request is begun any more, and it is done with kCancelled.
  void Cancel(uint64_t id);
  // Refuses new requests, finishes the others until `deadline`, ends the rest with kUnavailable,
  // joins the thread. Later calls return at once. One thread at a time.
  void Drain(absl::Time deadline);
  EmbeddingStats stats() const;
  int dimensions() const { return options_.dimensions; }

 private:
  struct Request {
    uint64_t id = 0;
    std::vector<std::vector<Token>> texts;
    size_t bytes = 0;
    Done done;
    size_t next = 0;            // the first text that has not been taken
    size_t left = 0;            // texts that have not been computed
    bool over = false;          // its done is being called, or was
    std::vector<float> values;  // the engine's thread, until it is over
  };
  struct Place {
    std::shared_ptr<Request> request;
    size_t text;
  };
  struct Batch {
    std::vector<Place> places;
    std::vector<std::vector<Token>> texts;
    int64_t tokens = 0;
  };

  void Loop();
  Batch TakeBatch();  // with mutex_ held
  // With mutex_ held. What is to be called without it; the request keeps nothing of its client's.
  Done Remove(Request& request);
  void Deliver(const Batch& batch, const absl::StatusOr<std::vector<float>>& vectors);

  const EmbeddingEngineOptions options_;
  const Embed embed_;
  mutable std::mutex mutex_;
  std::condition_variable work_, idle_;
  // Guarded by mutex_.
  std::unordered_map<uint64_t, std::shared_ptr<Request>> active_;
  std::deque<std::shared_ptr<Request>>
      queue_;  // those with texts to take, whose turn is next first
  size_t held_bytes_ = 0;
  uint64_t next_id_ = 1;
  bool draining_ = false, stop_ = false;
  EmbeddingStats stats_;  // the counters
  std::thread thread_;
};

}  // namespace fairlead

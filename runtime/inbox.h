// SPDX-License-Identifier: Apache-2.0
// Where other threads leave requests and cancellations for the engine thread. Thread-safe. Counts
// what the engine holds, running and waiting, so that a full engine refuses on the submitter's
// thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/sequence.h"

namespace fairlead {

// What the engine thread takes out at once.
struct Mail {
  std::vector<std::unique_ptr<Sequence>> submitted;  // in order of arrival
  std::vector<uint64_t> cancelled;
  bool draining = false;
  absl::Time drain_deadline = absl::InfiniteFuture();
};

class Inbox {
 public:
  // capacity: sequences the engine may hold, running and waiting together.
  explicit Inbox(int capacity);

  // Any thread. A place is taken first, so that no work is spent on a request that will be refused,
  // and given back by Leave. Errors: kResourceExhausted (full, with both numbers), kUnavailable
  // (draining).
  absl::Status TakePlace();
  // Any thread, after TakePlace. Gives the sequence its id, in order of arrival. Error:
  // kUnavailable (draining); the place is given back.
  absl::StatusOr<uint64_t> Push(std::unique_ptr<Sequence> sequence);
  void Cancel(uint64_t id);
  // Refuses new sequences from now on; the earliest deadline of several calls counts.
  void Close(absl::Time drain_deadline);
  int num_held() const { return num_held_.load(std::memory_order_relaxed); }

  // Engine thread. Swaps vectors with `mail`, whose own must be empty: allocates nothing.
  void Take(Mail& mail);
  // Engine thread. Until there is something to take or the inbox is closed.
  void WaitForMail();
  // Engine thread: `sequences` of those held have ended.
  void Leave(int sequences) { num_held_.fetch_sub(sequences, std::memory_order_relaxed); }

 private:
  const int capacity_;
  std::atomic<int> num_held_{0};
  std::mutex mutex_;
  std::condition_variable mail_came_;
  uint64_t next_id_ = 1;  // guarded by mutex_, like all below
  Mail mail_;
};

}  // namespace fairlead

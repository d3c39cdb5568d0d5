// SPDX-License-Identifier: Apache-2.0
#include "runtime/inbox.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace fairlead {
namespace {

absl::Status Draining() { return absl::UnavailableError("the server is shutting down"); }

}  // namespace

Inbox::Inbox(int capacity) : capacity_(capacity) { mail_.submitted.reserve(capacity); }

absl::Status Inbox::TakePlace() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (mail_.draining) return Draining();
  if (num_held() >= capacity_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the queue is full: ", num_held(), " requests are running or waiting, and at most ",
        capacity_, " may be; try again later"));
  }
  num_held_.fetch_add(1, std::memory_order_relaxed);
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> Inbox::Push(std::unique_ptr<Sequence> sequence) {
  uint64_t id = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (mail_.draining) {
      Leave(1);
      return Draining();
    }
    id = sequence->id = next_id_++;
    mail_.submitted.push_back(std::move(sequence));
  }
  mail_came_.notify_one();
  return id;
}

void Inbox::Cancel(uint64_t id) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    mail_.cancelled.push_back(id);
  }
  mail_came_.notify_one();
}

void Inbox::Close(absl::Time drain_deadline) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    mail_.draining = true;
    mail_.drain_deadline = std::min(mail_.drain_deadline, drain_deadline);
  }
  mail_came_.notify_one();
}

void Inbox::Take(Mail& mail) {
  FAIRLEAD_CHECK(mail.submitted.empty() && mail.cancelled.empty());
  const std::lock_guard<std::mutex> lock(mutex_);
  mail.submitted.swap(mail_.submitted);
  mail.cancelled.swap(mail_.cancelled);
  mail.draining = mail_.draining;
  mail.drain_deadline = mail_.drain_deadline;
}

void Inbox::WaitForMail() {
  std::unique_lock<std::mutex> lock(mutex_);
  mail_came_.wait(lock, [this] {
    return !mail_.submitted.empty() || !mail_.cancelled.empty() || mail_.draining;
  });
}

}  // namespace fairlead

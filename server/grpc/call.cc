// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/call.h"

#include "server/grpc/error_details.h"

namespace fairlead {

void GrpcCall::Begin(Finished finished) {
  self_ = shared_from_this();
  finished_callback_ = std::move(finished);
  ReadNext();
}

void GrpcCall::ReadNext() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (status_) return;
  }
  StartRead(&request_);
}

void GrpcCall::Refuse(const absl::Status& status, Finished finished) {
  self_ = shared_from_this();
  finished_callback_ = std::move(finished);
  Finish(status);
}

void GrpcCall::Finish(const absl::Status& status) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!status_) status_ = status;
  }
  Pump();
}

// Decides under the lock and calls gRPC outside of it: only one thread can have decided.
void GrpcCall::Pump() {
  enum { kNothing, kWrite, kFinish } action = kNothing;
  grpc::Status last;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (writing_ || finished_) return;
    if (!abandoned_ && TakeMessage(answer_)) {
      writing_ = true;
      action = kWrite;
    } else if (status_) {
      finished_ = true;
      last = ToGrpcStatus(*status_);
      action = kFinish;
    }
  }
  if (action == kWrite) StartWrite(&answer_);
  if (action == kFinish) Reactor::Finish(last);
}

void GrpcCall::OnReadDone(bool ok) {
  if (ok) {
    OnRequest(request_);
  } else {
    OnHalfClose();
  }
}

void GrpcCall::OnHalfClose() {
  Finish(absl::InvalidArgumentError("the call ended without a request message"));
}

void GrpcCall::OnWriteDone(bool ok) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    writing_ = false;
    answer_.Clear();
    if (!ok) abandoned_ = true;
  }
  Pump();
  if (ok) OnWritten();
}

void GrpcCall::OnCancel() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    abandoned_ = true;
  }
  OnAbandoned();
}

void GrpcCall::OnDone() {
  if (finished_callback_) finished_callback_(*status_);
  self_.reset();  // may destroy this
}

bool QueuedCall::TakeMessage(grpc::ByteBuffer& out) {
  if (queue_.empty()) return false;
  out.Swap(&queue_.front());
  queue_.pop_front();
  return true;
}

}  // namespace fairlead

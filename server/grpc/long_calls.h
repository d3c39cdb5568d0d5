// SPDX-License-Identifier: Apache-2.0
// The calls that last until the client ends them (health watches, reflection): a server that drains
// ends them itself. Thread-safe.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "server/grpc/call.h"

namespace fairlead {

class LongCalls {
 public:
  // False once FinishAll has been called: the caller finishes the call.
  bool Add(const std::shared_ptr<GrpcCall>& call) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) return false;
    std::erase_if(calls_, [](const auto& other) { return other.expired(); });
    calls_.push_back(call);
    return true;
  }

  void FinishAll(const absl::Status& status) {
    std::vector<std::weak_ptr<GrpcCall>> calls;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
      calls.swap(calls_);
    }
    for (const auto& weak : calls) {
      if (const std::shared_ptr<GrpcCall> call = weak.lock()) call->Finish(status);
    }
  }

 private:
  std::mutex mutex_;
  bool closed_ = false;
  std::vector<std::weak_ptr<GrpcCall>> calls_;
};

}  // namespace fairlead

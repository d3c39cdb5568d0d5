// SPDX-License-Identifier: Apache-2.0
// How much of the memory answers may take, from the request until the client has them. Thread-safe;
// shares may outlive it.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>

namespace fairlead {

class AnswerRoom {
 public:
  explicit AnswerRoom(size_t max_bytes) : max_bytes_(max_bytes) {}

  // Room for so many bytes as long as the share lives; null if there is none. When nobody has a
  // share there is room for anything.
  std::shared_ptr<const void> Take(size_t bytes) {
    const std::lock_guard<std::mutex> lock(taken_->mutex);
    if (taken_->bytes > 0 && taken_->bytes + bytes > max_bytes_) return nullptr;
    taken_->bytes += bytes;
    return std::make_shared<const Share>(taken_, bytes);
  }

 private:
  struct Taken {
    std::mutex mutex;
    size_t bytes = 0;
  };
  struct Share {
    Share(std::shared_ptr<Taken> of, size_t size) : taken(std::move(of)), bytes(size) {}
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;
    ~Share() {
      const std::lock_guard<std::mutex> lock(taken->mutex);
      taken->bytes -= bytes;
    }
    const std::shared_ptr<Taken> taken;
    const size_t bytes;
  };

  const size_t max_bytes_;
  const std::shared_ptr<Taken> taken_ = std::make_shared<Taken>();
};

}  // namespace fairlead

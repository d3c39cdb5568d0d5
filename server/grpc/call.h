// SPDX-License-Identifier: Apache-2.0
// The transport side of one gRPC call: reads its request messages, writes one answer at a time and
// finishes once, whichever thread asks and whenever the client leaves.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace fairlead {

// Every call of every service is one of these: the server sees messages as bytes and decides by
// itself what to do before it reads any.
class GrpcCall : public grpc::ServerGenericBidiReactor,
                 public std::enable_shared_from_this<GrpcCall> {
 public:
  // `finished` is told the status that the call ended with, once.
  using Finished = std::function<void(const absl::Status&)>;

  // Once, after make_shared: reads the first request. The call keeps itself alive until gRPC is
  // done with it.
  void Begin(Finished finished);
  // Instead of Begin: answers with an error and reads nothing.
  void Refuse(const absl::Status& status, Finished finished);

  // Any thread. The first Finish counts; what was queued before is sent first, unless the client
  // has left.
  void Finish(const absl::Status& status);

 protected:
  // On gRPC's threads; must not block. A message that the client sent: the first, or each one after
  // ReadNext.
  virtual void OnRequest(grpc::ByteBuffer& request) = 0;
  // The client sends nothing more. By default a missing request is an error.
  virtual void OnHalfClose();
  // The client has left, its deadline has passed, or the server ends the call.
  virtual void OnAbandoned() {}
  // A message has been written.
  virtual void OnWritten() {}
  // Moves the next message to write to `out`, false if there is none. Called with mutex_ held.
  virtual bool TakeMessage(grpc::ByteBuffer& out) = 0;

  const std::atomic<bool>& abandoned() const { return abandoned_; }
  // Nothing once the call has been told to finish.
  void ReadNext();
  // Writes what TakeMessage gives, or finishes, if the transport is free. Call it after each
  // change, without mutex_.
  void Pump();

  std::mutex mutex_;  // guards what TakeMessage reads

 private:
  using Reactor = grpc::ServerGenericBidiReactor;

  void OnReadDone(bool ok) final;
  void OnWriteDone(bool ok) final;
  void OnCancel() final;
  void OnDone() final;

  std::shared_ptr<GrpcCall> self_;
  Finished finished_callback_;
  grpc::ByteBuffer request_, answer_;
  // Guarded by mutex_.
  std::optional<absl::Status> status_;
  bool writing_ = false;
  bool finished_ = false;
  std::atomic<bool> abandoned_{false};
};

// A call whose answers are messages in a queue.
class QueuedCall : public GrpcCall {
 protected:
  template <typename Message>
  void Send(const Message& message) {
    grpc::ByteBuffer bytes = Serialize(message);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      queue_.push_back(std::move(bytes));
    }
    Pump();
  }

  bool TakeMessage(grpc::ByteBuffer& out) final;

 public:
  template <typename Message>
  static grpc::ByteBuffer Serialize(const Message& message) {
    grpc::ByteBuffer bytes;
    bool own_buffer = false;
    // Fails only for a message above 2 GiB; it is empty then.
    (void)grpc::SerializationTraits<Message>::Serialize(message, &bytes, &own_buffer);
    return bytes;
  }

 private:
  std::deque<grpc::ByteBuffer> queue_;
};

// kInvalidArgument names the message type when the bytes are not one.
template <typename Message>
absl::Status ParseRequest(grpc::ByteBuffer& bytes, Message& message) {
  if (grpc::SerializationTraits<Message>::Deserialize(&bytes, &message).ok())
    return absl::OkStatus();
  return absl::InvalidArgumentError("the request is not a valid " + message.GetTypeName());
}

// One request, one answer. The handler runs through `run` if there is one, on gRPC's thread
// otherwise; then it must not block.
template <typename Request, typename Response>
class UnaryCall final : public QueuedCall {
 public:
  // The flag says that the client has left, and work for it can end.
  using Handler =
      std::function<absl::StatusOr<Response>(const Request&, const std::atomic<bool>& abandoned)>;
  // What runs work for a request of so many bytes.
  using Run = std::function<absl::Status(size_t, std::function<void()>)>;

  explicit UnaryCall(Handler handler, Run run = nullptr)
      : handler_(std::move(handler)), run_(std::move(run)) {}

 private:
  void OnRequest(grpc::ByteBuffer& bytes) override {
    if (absl::Status status = ParseRequest(bytes, parsed_); !status.ok()) return Finish(status);
    if (!run_) return Answer();
    const auto self = std::static_pointer_cast<UnaryCall>(shared_from_this());
    const absl::Status status = run_(parsed_.ByteSizeLong(), [self] { self->Answer(); });
    if (!status.ok()) Finish(status);
  }

  void Answer() {
    if (abandoned()) return Finish(absl::CancelledError("the client has left"));
    const absl::StatusOr<Response> response = handler_(parsed_, abandoned());
    if (response.ok()) Send(*response);
    Finish(response.status());
  }

  const Handler handler_;
  const Run run_;
  Request parsed_;
};

}  // namespace fairlead

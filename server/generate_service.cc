// SPDX-License-Identifier: Apache-2.0
#include "server/generate_service.h"

#include <condition_variable>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/active_request.h"
#include "server/delivery.h"
#include "server/errors.h"
#include "server/metrics.h"
#include "server/prepare.h"

namespace fairlead {

class GenerateService::Impl {
 public:
  Impl(GenerateService& service, Engine& engine, Metrics& metrics)
      : service_(service), engine_(engine), metrics_(metrics) {}

  void WaitUntilIdle() {
    std::unique_lock<std::mutex> lock(mutex_);
    idle_.wait(lock, [this] { return active_.empty(); });
  }

  uint64_t Start(pb::GenerateRequest request, const Principal& principal, absl::Time deadline,
                 std::shared_ptr<EventSink> sink, Delivery* delivery) {
    std::shared_ptr<ActiveRequest> active;
    uint64_t id;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      id = next_id_++;
      active = std::make_shared<ActiveRequest>(
          service_.model(), engine_, metrics_, delivery == nullptr ? delivery_ : *delivery,
          std::move(sink), deadline, principal.cache_salt, [this, id] { Forget(id); });
      active_.emplace(id, active);
    }
    const int n = request.has_n() ? request.n() : 1;
    if (n > max_requests() && n <= kMaxChoices) {
      active->Refuse(FieldError("n", absl::StrCat("n is ", n, "; this server holds at most ",
                                                  max_requests(), " choices at once")));
      return id;
    }
    if (request.request_id().empty())
      request.set_request_id(absl::StrCat("req-", absl::Hex(id, absl::kZeroPad8)));
    const size_t bytes = request.ByteSizeLong();
    const absl::Status posted = service_.Run(bytes, [this, active, request = std::move(request)] {
      if (active->cancelled()) return active->Refuse(RequestCancelled());
      absl::StatusOr<PreparedRequest> prepared = absl::InternalError("not prepared");
      try {
        prepared = PrepareRequest(
            service_.model(), request,
            {.max_model_len = engine_.max_model_len(), .cancelled = &active->cancelled()});
      } catch (const std::exception& error) {  // a library's: out of memory
        prepared = absl::InternalError(error.what());
      }
      if (prepared.ok()) {
        active->Submit(*std::move(prepared), service_.model().name);
      } else {
        active->Refuse(prepared.status());
      }
    });
    if (!posted.ok()) active->Refuse(posted);
    return id;
  }

  void Cancel(uint64_t id) {
    std::shared_ptr<ActiveRequest> active;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const auto found = active_.find(id);
      if (found == active_.end()) return;
      active = found->second;
    }
    active->Cancel();
  }

  int max_requests() const { return engine_.max_requests(); }

 private:
  void Forget(uint64_t id) {
    std::shared_ptr<ActiveRequest> last;  // destroyed outside the lock
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = active_.find(id);
    last = std::move(found->second);
    active_.erase(found);
    if (active_.empty()) idle_.notify_all();
  }

  GenerateService& service_;
  Engine& engine_;
  Metrics& metrics_;
  std::mutex mutex_;
  std::condition_variable idle_;
  std::unordered_map<uint64_t, std::shared_ptr<ActiveRequest>> active_;
  uint64_t next_id_ = 1;
  DeliveryThread delivery_;
};

GenerateService::GenerateService(ServedModel model, Engine& engine, Metrics& metrics,
                                 int service_threads)
    : ModelService(std::move(model), engine.max_model_len(), service_threads),
      impl_(std::make_unique<Impl>(*this, engine, metrics)) {}

GenerateService::~GenerateService() {
  impl_->WaitUntilIdle();
  StopThreads();
}

uint64_t GenerateService::Start(pb::GenerateRequest request, const Principal& principal,
                                absl::Time deadline, std::shared_ptr<EventSink> sink,
                                Delivery* delivery) {
  return impl_->Start(std::move(request), principal, deadline, std::move(sink), delivery);
}

void GenerateService::Cancel(uint64_t id) { impl_->Cancel(id); }

int GenerateService::max_requests() const { return impl_->max_requests(); }

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "server/commands/local_service.h"

#include <grpc/support/log.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <utility>

#include "absl/time/clock.h"
#include "server/once_event.h"
#include "server/version.h"

namespace fairlead {
namespace {

// Collects one choice's events.
class CollectingSink final : public EventSink {
 public:
  explicit CollectingSink(const std::function<void(const std::string&)>& on_text)
      : on_text_(on_text) {
    answer_.response.add_choices();
  }

  void OnEvent(pb::GenerateEvent event) override {
    pb::Choice& choice = *answer_.response.mutable_choices(0);
    if (event.has_started()) {
      answer_.response.mutable_started()->Swap(event.mutable_started());
    } else if (event.has_delta()) {
      if (answer_.first_token == absl::ZeroDuration()) answer_.first_token = absl::Now() - start_;
      choice.mutable_text()->append(event.delta().text());
      choice.mutable_token_ids()->MergeFrom(event.delta().token_ids());
      if (on_text_ && !event.delta().text().empty()) on_text_(event.delta().text());
    } else if (event.has_finish()) {
      choice.mutable_finish()->Swap(event.mutable_finish());
    } else if (event.has_usage()) {
      answer_.response.mutable_usage()->Swap(event.mutable_usage());
    }
  }

  void OnDone(const absl::Status& status) override {
    answer_.total = absl::Now() - start_;
    status_ = status;
    done_.Notify();
  }

  absl::StatusOr<LocalAnswer> Wait() {
    done_.Wait();
    if (!status_.ok()) return status_;
    return std::move(answer_);
  }

 private:
  const std::function<void(const std::string&)>& on_text_;
  const absl::Time start_ = absl::Now();
  LocalAnswer answer_;
  absl::Status status_;
  OnceEvent done_;
};

BuildInfo BuildInfoOf(const Runtime& runtime) {
  const DeviceInfo& device = runtime.device->info();
  return {.version = std::string(kVersion),
          .device = device.name,
          .device_description = device.description,
          .model = runtime.served.name,
          .numerics = std::string(NumericsName(device.numerics))};
}

}  // namespace

LocalService::LocalService(std::unique_ptr<Runtime> runtime)
    : runtime_(std::move(runtime)),
      metrics_(BuildInfoOf(*runtime_)),
      service_(runtime_->served, *runtime_->engine, metrics_, 1) {}

LocalService::~LocalService() { runtime_->engine->Drain(absl::InfinitePast()); }

absl::StatusOr<std::unique_ptr<LocalService>> LocalService::Load(RuntimeConfig config) {
  config.task = "generate";
  absl::StatusOr<std::unique_ptr<Runtime>> runtime = LoadRuntime(config, "");
  if (!runtime.ok()) return runtime.status();
  return std::unique_ptr<LocalService>(new LocalService(*std::move(runtime)));
}

absl::StatusOr<LocalAnswer> LocalService::Generate(
    const pb::GenerateRequest& request, const std::function<void(const std::string&)>& on_text) {
  const auto sink = std::make_shared<CollectingSink>(on_text);
  service_.Start(request, Principal{"local", 0}, absl::InfiniteFuture(), sink);
  return sink->Wait();
}

void SetUpLog(const std::string& level) {
  auto logger = spdlog::stderr_logger_mt("fairlead");
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
  logger->set_level(spdlog::level::from_str(level));
  logger->flush_on(spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));
  // gRPC's own lines are about what clients do; what fails here comes back as a status.
  gpr_set_log_function([](gpr_log_func_args* line) { spdlog::debug("grpc: {}", line->message); });
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// One request between its start and its OnDone: the choices, what they have delivered, and who is
// told. Work threads prepare and submit it, from then on it belongs to the delivering thread, which
// alone calls the sink; any thread may cancel it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runtime/engine.h"
#include "server/choice_stream.h"
#include "server/delivery.h"
#include "server/generate_service.h"
#include "server/metrics.h"
#include "server/prepare.h"

namespace fairlead {

class ActiveRequest : public Delivery::Item, public std::enable_shared_from_this<ActiveRequest> {
 public:
  // `on_done` is called once, after the sink's OnDone and after the engine has closed every choice.
  ActiveRequest(const ServedModel& model, Engine& engine, Metrics& metrics, Delivery& delivery,
                std::shared_ptr<EventSink> sink, absl::Time deadline, uint64_t cache_salt,
                std::function<void()> on_done);

  // A work thread, once: submits every choice. On an error nothing runs on and the request is done.
  void Submit(PreparedRequest prepared, const std::string& model_name);
  // Instead of Submit: the request is refused.
  void Refuse(const absl::Status& status);
  // Any thread, idempotent.
  void Cancel();
  const std::atomic<bool>& cancelled() const { return cancelled_; }

  void Deliver() override;

 private:
  struct Choice {
    std::shared_ptr<ChoiceStream> stream;
    uint64_t engine_id = 0;
    bool cancelled = false;  // the engine has been told
    bool finished = false;   // its Finish has been sent
    bool closed = false;     // the engine is through with it
    absl::Time last_token = absl::InfinitePast();
  };

  void CancelChoice(Choice& choice);
  void MakeOpening(const PreparedRequest& prepared, const std::string& model_name);
  void SubmitChoices(PreparedRequest& prepared);
  void HandOver();
  void DeliverChoice(Choice& choice);
  void RecordTokens(Choice& choice);
  void Complete(const absl::Status& status);

  const ServedModel& model_;
  Engine& engine_;
  Metrics& metrics_;
  Delivery& delivery_;
  const std::shared_ptr<EventSink> sink_;
  const absl::Time deadline_;
  const uint64_t cache_salt_;
  std::function<void()> on_done_;
  const absl::Time arrival_ = absl::Now();

  std::atomic<bool> cancelled_{false};
  // Submit or Refuse is over: what follows, which was theirs, is Deliver's.
  std::atomic<bool> handed_over_{false};
  std::vector<pb::GenerateEvent> opening_;  // to be sent before anything else
  std::vector<std::unique_ptr<Choice>> choices_;
  absl::Status error_;
  pb::Usage usage_;
  bool first_token_seen_ = false;
  bool done_ = false;
};

}  // namespace fairlead

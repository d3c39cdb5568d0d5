// SPDX-License-Identifier: Apache-2.0
#include "bench/serve/load.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <limits>
#include <memory>
#include <mutex>
#include <utility>

#include "bench/serve/arrivals.h"

namespace fairlead::serve_bench {
namespace {

constexpr auto kProgressEvery = std::chrono::milliseconds(200);

Clock::duration Seconds(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

using SessionPtr = std::shared_ptr<Session>;

// The mutex guards everything below it. Requests are made under it, and sent without it.
class Load {
 public:
  Load(Target& target, const Workload& workload, const LoadPlan& plan)
      : target_(target), workload_(workload), plan_(plan) {
    if (plan.rate) arrivals_.emplace(*plan.rate, plan.burstiness, plan.seed);
  }

  LoadResult Run(const std::function<void(const Progress&)>& on_progress);

 private:
  struct Planned {
    Request request;
    SessionPtr session;  // null: injected
    Time scheduled;
  };

  bool Accepting(Time now) const {
    return !gave_up_ && (plan_.max_requests == 0 || issued_ < plan_.max_requests) && now < end_;
  }
  void StartUsers();
  // What is due at `now`, in the open loop and beside the load.
  std::vector<Planned> TakeDue(Time now);
  Planned Take(SessionPtr session, Time scheduled);
  SessionPtr NewSession() { return workload_.NewSession(next_session_++); }
  void Send(Planned planned);
  void OnRecord(Record record, const SessionPtr& session);
  Time NextEvent(Time next_progress) const;
  Progress ProgressAt(Time now) const;

  Target& target_;
  const Workload& workload_;
  const LoadPlan plan_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Arrivals> arrivals_;
  Time start_, end_ = Time::max();
  Time next_arrival_ = Time::max(), next_injection_ = Time::max();
  std::deque<SessionPtr> idle_;  // open loop: sessions with a turn left
  std::vector<Record> records_;
  int64_t issued_ = 0, injected_ = 0, next_session_ = 0;
  int64_t in_flight_ = 0;  // injected ones included
  int64_t injected_in_flight_ = 0;
  int64_t failed_ = 0, completion_tokens_ = 0;
  bool gave_up_ = false;
};

Load::Planned Load::Take(SessionPtr session, Time scheduled) {
  ++issued_;
  ++in_flight_;
  Request request = session->Next();
  return {std::move(request), std::move(session), scheduled};
}

void Load::Send(Planned planned) {
  Record identity{.id = planned.request.id,
                  .session = planned.request.session,
                  .turn = planned.request.turn,
                  .injected = planned.request.injected,
                  .scheduled = planned.scheduled};
  target_.Send(std::move(planned.request),
               [this, identity, session = std::move(planned.session)](Record record) {
                 record.id = identity.id;
                 record.session = identity.session;
                 record.turn = identity.turn;
                 record.injected = identity.injected;
                 record.scheduled = identity.scheduled;
                 OnRecord(std::move(record), session);
               });
}

void Load::OnRecord(Record record, const SessionPtr& session) {
  std::optional<Planned> next;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const Time now = Clock::now();
    --in_flight_;
    if (record.injected) --injected_in_flight_;
    completion_tokens_ += record.completion_tokens;
    if (record.outcome == Outcome::kError) ++failed_;
    if (plan_.max_errors > 0 && failed_ >= plan_.max_errors) gave_up_ = true;
    if (session != nullptr) {
      session->Answered(record);
      // A conversation cannot go on after an answer that failed.
      const bool goes_on = !session->done() && record.outcome != Outcome::kError;
      if (plan_.rate) {
        if (goes_on) idle_.push_back(session);
      } else if (Accepting(now)) {
        next = Take(goes_on ? session : NewSession(), now);
      }
    }
    record.answer_ids = {};
    record.answer_text = {};
    records_.push_back(std::move(record));
    // Under the lock: Run may return, and destroy this, as soon as it sees nothing in flight.
    if (in_flight_ == injected_in_flight_) changed_.notify_one();
  }
  if (next) Send(*std::move(next));
}

void Load::StartUsers() {
  for (int user = 0; user < plan_.concurrency; ++user) {
    std::optional<Planned> planned;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const Time now = Clock::now();
      if (!Accepting(now)) return;
      planned = Take(NewSession(), now);
    }
    Send(*std::move(planned));
  }
}

std::vector<Load::Planned> Load::TakeDue(Time now) {
  std::vector<Planned> due;
  while (next_arrival_ <= now && Accepting(next_arrival_)) {
    SessionPtr session;
    if (idle_.empty()) {
      session = NewSession();
    } else {
      session = std::move(idle_.front());
      idle_.pop_front();
    }
    due.push_back(Take(std::move(session), next_arrival_));
    next_arrival_ = start_ + Seconds(arrivals_->Next());
  }
  if (next_injection_ <= now && !gave_up_) {
    ++in_flight_;
    ++injected_in_flight_;
    due.push_back({workload_.Injected(injected_++), nullptr, next_injection_});
    next_injection_ += Seconds(workload_.spec().inject_every_s);
  }
  return due;
}

Time Load::NextEvent(Time next_progress) const {
  const Time arrival = Accepting(next_arrival_) ? next_arrival_ : Time::max();
  return std::min({arrival, next_injection_, next_progress});
}

Progress Load::ProgressAt(Time now) const {
  return {.sent = issued_,
          .done = static_cast<int64_t>(records_.size()),
          .failed = failed_,
          .completion_tokens = completion_tokens_,
          .elapsed_s = SecondsBetween(start_, now),
          .max_requests = plan_.max_requests,
          .max_duration_s = plan_.max_duration_s};
}

LoadResult Load::Run(const std::function<void(const Progress&)>& on_progress) {
  start_ = Clock::now();
  if (plan_.max_duration_s > 0) end_ = start_ + Seconds(plan_.max_duration_s);
  if (workload_.spec().injected_tokens > 0)
    next_injection_ = start_ + Seconds(workload_.spec().inject_every_s);
  if (plan_.rate) {
    next_arrival_ = start_ + Seconds(arrivals_->Next());
  } else {
    StartUsers();
  }
  Time next_progress = start_ + kProgressEvery;
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    const Time now = Clock::now();
    // The load is over when no user is answered any more; what was injected is then awaited.
    const bool arrivals_left = plan_.rate && Accepting(next_arrival_);
    if (in_flight_ == injected_in_flight_ && !arrivals_left) next_injection_ = Time::max();
    if (in_flight_ == 0 && !arrivals_left) break;
    std::vector<Planned> due = TakeDue(now);
    const bool show = now >= next_progress;
    if (!due.empty() || show) {
      const Progress progress = ProgressAt(now);
      lock.unlock();
      for (Planned& planned : due) Send(std::move(planned));
      if (show) {
        on_progress(progress);
        next_progress = Clock::now() + kProgressEvery;
      }
      lock.lock();
      continue;
    }
    changed_.wait_until(lock, NextEvent(next_progress));
  }
  on_progress(ProgressAt(Clock::now()));
  return {std::move(records_), gave_up_};
}

}  // namespace

LoadResult RunLoad(Target& target, const Workload& workload, const LoadPlan& plan,
                   const std::function<void(const Progress&)>& on_progress) {
  return Load(target, workload, plan).Run(on_progress);
}

}  // namespace fairlead::serve_bench

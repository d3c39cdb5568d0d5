// SPDX-License-Identifier: Apache-2.0
// The load against a target that answers from a thread of its own, by order and never by the clock.
#include "bench/serve/load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>

namespace fairlead::serve_bench {
namespace {

// Answers one request after the other.
class FakeTarget : public Target {
 public:
  using Answer = std::function<Record(const Request&)>;
  explicit FakeTarget(Answer answer) : answer_(std::move(answer)) {
    thread_ = std::thread([this] { Loop(); });
  }
  ~FakeTarget() override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }

  absl::StatusOr<Json> Describe() override { return Json::object(); }
  void Send(Request request, OnRecord done) override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      requests.push_back(request);
      waiting_.emplace_back(std::move(request), std::move(done));
      peak = std::max(peak, waiting_.size());
    }
    changed_.notify_one();
  }

  std::vector<Request> requests;  // read when the load is over
  size_t peak = 0;

 private:
  void Loop() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
      if (stop_) return;
      auto [request, done] = std::move(waiting_.front());
      lock.unlock();
      Record record = answer_(request);
      record.sent = record.ended = Clock::now();
      lock.lock();
      waiting_.pop_front();
      lock.unlock();
      done(std::move(record));
      lock.lock();
    }
  }

  const Answer answer_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<Request, OnRecord>> waiting_;
  bool stop_ = false;
  std::thread thread_;
};

Record Ok(const Request& request) {
  Record record;
  record.completion_tokens = request.max_tokens;
  if (request.cancel_after > 0) record.outcome = Outcome::kCancelled;
  return record;
}

Record Refused(const Request&) {
  Record record;
  record.outcome = Outcome::kError;
  record.error_kind = "http_429";
  return record;
}

Workload Make(const char* name, double scale = 0.05) {
  return Workload(Scaled(*FindWorkload(name), scale), {});
}

LoadResult RunPlan(FakeTarget& target, const Workload& workload, const LoadPlan& plan) {
  return RunLoad(target, workload, plan, [](const Progress&) {});
}

TEST(Load, ClosedLoopKeepsItsUsersAndItsCount) {
  FakeTarget target(Ok);
  const Workload workload = Make("W1");
  const LoadResult result = RunPlan(target, workload, {.concurrency = 5, .max_requests = 43});
  ASSERT_EQ(result.records.size(), 43u);
  EXPECT_FALSE(result.gave_up);
  EXPECT_LE(target.peak, 5u);
  std::set<int64_t> ids;
  for (const Record& record : result.records) {
    ids.insert(record.id);
    EXPECT_LE(record.scheduled, record.sent);
  }
  EXPECT_EQ(ids.size(), 43u);
  EXPECT_EQ(*ids.rbegin(), 42);
}

TEST(Load, FewerRequestsThanUsers) {
  FakeTarget target(Ok);
  EXPECT_EQ(RunPlan(target, Make("W1"), {.concurrency = 50, .max_requests = 3}).records.size(), 3u);
}

TEST(Load, AUserStaysWithItsSession) {
  FakeTarget target(Ok);
  const Workload workload = Make("W7");
  const LoadResult result = RunPlan(target, workload, {.concurrency = 2, .max_requests = 32});
  ASSERT_EQ(result.records.size(), 32u);
  std::map<int64_t, std::vector<int>> turns;
  for (const Request& request : target.requests) turns[request.session].push_back(request.turn);
  ASSERT_EQ(turns.size(), 4u);
  for (const auto& [session, of_session] : turns)
    EXPECT_THAT(of_session, ::testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7)) << session;
}

TEST(Load, AnErrorEndsItsSessionAndACancellationDoesNot) {
  FakeTarget refusing(Refused);
  RunPlan(refusing, Make("W7"), {.concurrency = 1, .max_requests = 10});
  for (const Request& request : refusing.requests) EXPECT_EQ(request.turn, 0);
  FakeTarget cancelling([](const Request& request) {
    Record record = Ok(request);
    record.outcome = Outcome::kCancelled;
    return record;
  });
  RunPlan(cancelling, Make("W7"), {.concurrency = 1, .max_requests = 8});
  EXPECT_EQ(cancelling.requests.back().turn, 7);
}

TEST(Load, OpenLoopSendsEveryArrivalAndGoesOnWithSessions) {
  FakeTarget target(Ok);
  const Workload workload = Make("W7");
  const LoadResult result = RunPlan(target, workload, {.rate = 400, .max_requests = 80, .seed = 4});
  ASSERT_EQ(result.records.size(), 80u);
  EXPECT_TRUE(std::any_of(target.requests.begin(), target.requests.end(),
                          [](const Request& request) { return request.turn > 0; }));
  std::set<int64_t> ids;
  for (const Record& record : result.records) {
    ids.insert(record.id);
    EXPECT_LE(record.scheduled, record.sent);
  }
  EXPECT_EQ(ids.size(), 80u);
}

TEST(Load, ArrivalsFollowTheSeed) {
  const auto schedule = [](uint64_t seed) {
    FakeTarget target(Ok);
    LoadResult result =
        RunPlan(target, Make("W1"), {.rate = 2000, .max_requests = 30, .seed = seed});
    std::vector<Time> times;
    for (const Record& record : result.records) times.push_back(record.scheduled);
    std::sort(times.begin(), times.end());
    std::vector<int64_t> gaps;
    for (size_t i = 1; i < times.size(); ++i) gaps.push_back((times[i] - times[i - 1]).count());
    return gaps;
  };
  const auto first = schedule(1), again = schedule(1), other = schedule(2);
  ASSERT_EQ(first.size(), 29u);
  // Each time is rounded to a nanosecond from another start.
  for (size_t i = 0; i < first.size(); ++i) EXPECT_NEAR(first[i], again[i], 2);
  EXPECT_NE(first, other);
}

TEST(Load, DurationBoundsTheSending) {
  FakeTarget target(Ok);
  const LoadResult closed = RunPlan(target, Make("W1"), {.concurrency = 2, .max_duration_s = 0.3});
  EXPECT_GT(closed.records.size(), 0u);
  const LoadResult open = RunPlan(target, Make("W1"), {.rate = 500, .max_duration_s = 0.1});
  EXPECT_GT(open.records.size(), 0u);
  EXPECT_LT(open.records.size(), 200u);  // 50 are expected, with a deviation of 7
}

TEST(Load, GivesUpAfterErrors) {
  FakeTarget target(Refused);
  const LoadResult result =
      RunPlan(target, Make("W1"), {.concurrency = 3, .max_requests = 1000, .max_errors = 10});
  EXPECT_TRUE(result.gave_up);
  EXPECT_GE(result.records.size(), 10u);
  EXPECT_LE(result.records.size(), 12u);  // those in flight end too
}

TEST(Load, InjectsBesideTheLoadAndStopsWithIt) {
  WorkloadSpec spec = Scaled(*FindWorkload("W10"), 0.001);
  spec.inject_every_s = 0.002;
  const Workload workload(spec, {});
  FakeTarget target(Ok);
  const LoadResult result = RunPlan(target, workload, {.concurrency = 4, .max_duration_s = 0.3});
  const auto injected = std::count_if(result.records.begin(), result.records.end(),
                                      [](const Record& record) { return record.injected; });
  EXPECT_GT(injected, 0);
  EXPECT_GT(static_cast<int64_t>(result.records.size()), injected);
}

}  // namespace
}  // namespace fairlead::serve_bench

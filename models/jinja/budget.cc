// SPDX-License-Identifier: Apache-2.0
#include "models/jinja/budget.h"

#include <time.h>

#include "kernels/strings.h"

namespace fairlead::jinja {
namespace {
// A prompt is held about three times while it is built: the caller's part, a stripped copy, the
// output.
constexpr size_t kLiveFactor = 4;
// A call of a macro nests about eight evaluations: body, if, for, output, call, arguments.
constexpr int kEvaluationsPerLevel = 8;

// What this thread has had of a processor.
absl::Duration ThreadTime() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return absl::DurationFromTimespec(time);
}
}  // namespace

Budget::Budget(const ChatTemplateLimits& limits)
    : steps_left_(limits.max_steps),
      next_check_(limits.max_steps - kStepsPerCheck),
      max_time_(limits.max_time),
      begin_(ThreadTime()),
      max_steps_(limits.max_steps),
      max_depth_(limits.max_depth),
      max_evaluation_depth_(kEvaluationsPerLevel * limits.max_depth),
      max_string_bytes_(limits.max_output_bytes),
      max_live_bytes_(kLiveFactor * limits.max_output_bytes) {}

void Budget::Fail(std::string message) {
  if (status_.ok()) status_ = absl::ResourceExhaustedError(message);
}

bool Budget::Step(int64_t count) {
  if (!status_.ok()) return false;
  steps_left_ -= count;
  if (steps_left_ < 0) Fail(StrCat("the template needs more than ", max_steps_, " steps"));
  if (steps_left_ < next_check_) CheckTime();
  return status_.ok();
}

void Budget::CheckTime() {
  next_check_ = steps_left_ - kStepsPerCheck;
  if (ThreadTime() - begin_ <= max_time_) return;
  Fail(StrCat("the template needs more than ", absl::ToInt64Milliseconds(max_time_),
              " ms of processor time"));
}

bool Budget::Work(size_t bytes) {
  uncounted_work_ += bytes;
  if (uncounted_work_ < kBytesPerStep) return status_.ok();
  const int64_t steps = static_cast<int64_t>(uncounted_work_ / kBytesPerStep);
  uncounted_work_ %= kBytesPerStep;
  return Step(steps);
}

bool Budget::FitsOneString(size_t bytes) {
  if (bytes <= max_string_bytes_) return status_.ok();
  Fail(StrCat("the template builds a string of more than ", max_string_bytes_, " bytes"));
  return false;
}

bool Budget::Allocate(size_t bytes) {
  if (!status_.ok()) return false;
  if (bytes > max_live_bytes_ - live_bytes_) {
    Fail(StrCat("the template holds values of more than ", max_live_bytes_, " bytes"));
    return false;
  }
  live_bytes_ += bytes;
  return true;
}

bool Budget::Enter() {
  ++depth_;
  if (depth_ <= max_evaluation_depth_) return true;
  Fail(StrCat("the template nests deeper than ", max_depth_, " levels"));
  return false;
}

}  // namespace fairlead::jinja

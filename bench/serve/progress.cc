// SPDX-License-Identifier: Apache-2.0
#include "bench/serve/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_format.h"

namespace fairlead::serve_bench {
namespace {

constexpr int kCells = 24;
constexpr char kWipe[] = "\r\x1b[K";  // to the line's start, erase to its end

// Whichever bound is nearer.
double ShareDone(const Progress& progress) {
  double share = 0;
  if (progress.max_requests > 0) {
    share = static_cast<double>(progress.done) / static_cast<double>(progress.max_requests);
  }
  if (progress.max_duration_s > 0)
    share = std::max(share, progress.elapsed_s / progress.max_duration_s);
  return std::clamp(share, 0.0, 1.0);
}

}  // namespace

std::string ProgressLine(const std::string& label, const Progress& progress) {
  const double share = ShareDone(progress);
  const int full = static_cast<int>(share * kCells);
  const double rate = progress.elapsed_s > 0
                          ? static_cast<double>(progress.completion_tokens) / progress.elapsed_s
                          : 0;
  return absl::StrFormat(
      "%s [%s%s] %3.0f %%  %.0f s  %d done, %d in flight, %d failed  %.0f tok/s", label,
      std::string(full, '#'), std::string(kCells - full, '.'), share * 100, progress.elapsed_s,
      progress.done, std::max<int64_t>(progress.sent - progress.done, 0), progress.failed, rate);
}

ProgressBar::ProgressBar(std::string label)
    : label_(std::move(label)), on_terminal_(isatty(STDERR_FILENO) == 1) {}

ProgressBar::~ProgressBar() {
  if (on_terminal_) std::fputs(kWipe, stderr);
}

void ProgressBar::Show(const Progress& progress) {
  if (on_terminal_) std::fprintf(stderr, "%s%s", kWipe, ProgressLine(label_, progress).c_str());
}

}  // namespace fairlead::serve_bench

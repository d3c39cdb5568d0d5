// SPDX-License-Identifier: Apache-2.0
// A bar on stderr while a load runs, if that is a terminal. One thread.
#pragma once

#include <string>

#include "bench/serve/load.h"

namespace fairlead::serve_bench {

class ProgressBar {
 public:
  // `label` stands before the bar, e.g. "warm-up".
  explicit ProgressBar(std::string label);
  ~ProgressBar();  // wipes the bar
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void Show(const Progress& progress);

 private:
  const std::string label_;
  const bool on_terminal_;
};

// The bar's line, without control characters.
std::string ProgressLine(const std::string& label, const Progress& progress);

}  // namespace fairlead::serve_bench

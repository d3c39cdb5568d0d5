// SPDX-License-Identifier: Apache-2.0
// The service without a port: generate and chat ask it as any client would. Main thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/config.h"
#include "server/generate_service.h"
#include "server/metrics.h"
#include "server/runtime_setup.h"

namespace fairlead {

struct LocalAnswer {
  pb::GenerateResponse response;
  absl::Duration first_token = absl::ZeroDuration();  // from the start to the first delta
  absl::Duration total = absl::ZeroDuration();
};

class LocalService {
 public:
  static absl::StatusOr<std::unique_ptr<LocalService>> Load(RuntimeConfig config);
  ~LocalService();

  // Waits for the answer. `on_text` gets each piece of the first choice's text, on another thread.
  absl::StatusOr<LocalAnswer> Generate(const pb::GenerateRequest& request,
                                       const std::function<void(const std::string&)>& on_text);
  const Runtime& runtime() const { return *runtime_; }

 private:
  explicit LocalService(std::unique_ptr<Runtime> runtime);

  const std::unique_ptr<Runtime> runtime_;
  Metrics metrics_;
  GenerateService service_;
};

// Logs go to stderr at this level. Once.
void SetUpLog(const std::string& level);

}  // namespace fairlead

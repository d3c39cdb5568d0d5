// SPDX-License-Identifier: Apache-2.0
// Chat templates: the input up to the first zero byte is the template, the rest the variables as
// JSON. Whatever they are, rendering ends within its limits, and what it renders is UTF-8 covered
// by its runs.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/check.h"
#include "models/chat_template.h"
#include "models/jinja/unicode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fairlead;  // NOLINT: a fuzz entry
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t split = input.find('\0');
  const std::string_view source = input.substr(0, split);
  Json variables = Json::object();
  if (split != std::string_view::npos) {
    absl::StatusOr<Json> parsed = ParseJson(input.substr(split + 1));
    if (parsed.ok() && parsed->is_object()) variables = *std::move(parsed);
  }
  ChatTemplateLimits limits;
  limits.max_steps = 20'000;
  limits.max_output_bytes = 1u << 20;
  const auto chat_template = ParseChatTemplate(source, limits);
  if (!chat_template.ok()) return 0;
  const absl::StatusOr<RenderedPrompt> prompt =
      (*chat_template)->Render(variables, absl::UnixEpoch());
  if (!prompt.ok()) return 0;
  FAIRLEAD_CHECK(jinja::IsValidUtf8(prompt->text));
  size_t end = 0;
  for (const RenderedPrompt::Run& run : prompt->runs) {
    FAIRLEAD_CHECK(run.begin == end && run.end > run.begin);
    end = run.end;
  }
  FAIRLEAD_CHECK(end == prompt->text.size());
  return 0;
}

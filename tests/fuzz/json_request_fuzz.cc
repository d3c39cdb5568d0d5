// SPDX-License-Identifier: Apache-2.0
// The first byte chooses a route, the rest is a request's body. It is refused with a message, or
// becomes what the engine takes: ids of the vocabulary, numbers in their ranges.
#include <cmath>
#include <cstdlib>

#include "kernels/check.h"
#include "models/detokenizer.h"
#include "server/openai_request.h"
#include "server/prepare.h"
#include "tests/fuzz/entry.h"
#include "tests/server/fake_model.h"

namespace fairlead {
namespace {

constexpr int kContext = 4096;

// What a message of a model with tools passes through.
constexpr std::string_view kTemplate =
    "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}"
    "<|{{ m.role }}|>{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function | tojson }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

struct Served {
  FakeTokenizer tokenizer;
  ChatFormat format = FakeChatFormat();
  ServedModel model;
  Served() {
    auto chat_template = ParseChatTemplate(kTemplate, {});
    FAIRLEAD_CHECK(chat_template.ok());
    format.chat_template = *std::move(chat_template);
    model = FakeServedModel(&tokenizer, &format);
  }
};

void CheckRefusal(const absl::Status& status) {
  FAIRLEAD_CHECK(!status.message().empty());
  FAIRLEAD_CHECK(IsValidUtf8(std::string_view(status.message().data(), status.message().size())));
}

void CheckGenerate(const ServedModel& model, const absl::StatusOr<OpenAiRequest>& request) {
  if (!request.ok()) return CheckRefusal(request.status());
  for (const pb::GenerateRequest& prompt : request->prompts) {
    const auto prepared = PrepareRequest(model, prompt, {.max_model_len = kContext});
    if (!prepared.ok()) {
      CheckRefusal(prepared.status());
      continue;
    }
    FAIRLEAD_CHECK(prepared->num_choices >= 1 && prepared->num_choices <= kMaxChoices);
    for (const Token token : prepared->engine.prompt) {
      FAIRLEAD_CHECK(token >= 0 && token < model.vocab_size);
    }
    const SamplingParams& sampling = prepared->engine.sampling;
    FAIRLEAD_CHECK(sampling.temperature >= 0 && sampling.temperature <= 2);
    FAIRLEAD_CHECK(sampling.top_p > 0 && sampling.top_p <= 1);
    FAIRLEAD_CHECK(sampling.top_k >= 0 && sampling.top_k <= model.vocab_size);
  }
}

}  // namespace
}  // namespace fairlead

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fairlead;  // NOLINT: a fuzz entry
  static const auto* const kServed = new Served;
  if (size == 0) return 0;
  const auto body = ParseJson({reinterpret_cast<const char*>(data) + 1, size - 1});
  if (!body.ok()) {
    CheckRefusal(body.status());
    return 0;
  }
  switch (data[0] % 4) {
    case 0:
      CheckGenerate(kServed->model, ParseChatRequest(*body));
      break;
    case 1:
      CheckGenerate(kServed->model, ParseCompletionRequest(*body));
      break;
    case 2:
      if (const auto request = ParseTokenizeRequest(*body); !request.ok()) {
        CheckRefusal(request.status());
      } else if (request->has_chat()) {
        (void)RenderChat(kServed->model, request->chat(), true, {.max_model_len = kContext});
      }
      break;
    default:
      if (const auto request = ParseDetokenizeRequest(*body); !request.ok()) {
        CheckRefusal(request.status());
      }
  }
  return 0;
}

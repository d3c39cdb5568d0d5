// SPDX-License-Identifier: Apache-2.0
// The first byte chooses embeddings, scores or reranking, the rest is a request's body. It is
// refused with a message, or becomes texts of the model's vocabulary that are not too long, and
// whatever their vectors are there is an answer in JSON.
#include "kernels/check.h"
#include "models/detokenizer.h"
#include "server/openai_embeddings.h"
#include "tests/fuzz/entry.h"
#include "tests/server/fake_embedder.h"

namespace fairlead {
namespace {

struct Served {
  FramingTokenizer tokenizer;
  ServedModel model = FakeEmbedder::Served(&tokenizer);
};

void CheckRefusal(const absl::Status& status) {
  FAIRLEAD_CHECK(!status.message().empty());
  FAIRLEAD_CHECK(IsValidUtf8(std::string_view(status.message().data(), status.message().size())));
}

// Null where it is refused.
std::unique_ptr<EmbedAnswer> Prepare(const pb::EmbedRequest& request, const InputName& names) {
  static const auto* const kServed = new Served;
  const std::atomic<bool> cancelled{false};
  const auto prepared =
      PrepareEmbed(kServed->model, FakeEmbedder::Traits(), request, cancelled, names);
  if (!prepared.ok()) {
    CheckRefusal(prepared.status());
    return nullptr;
  }
  FAIRLEAD_CHECK(prepared->dimensions >= 1 && prepared->dimensions <= FakeEmbedder::kDimensions);
  FAIRLEAD_CHECK(prepared->texts.size() == static_cast<size_t>(request.inputs_size()));
  auto answer = std::make_unique<EmbedAnswer>();
  answer->dimensions = prepared->dimensions;
  for (const std::vector<Token>& text : prepared->texts) {
    FAIRLEAD_CHECK(!text.empty() && text.size() <= FakeEmbedder::kMaxTokens);
    for (const Token token : text) {
      FAIRLEAD_CHECK(token >= 0 && token < kServed->model.vocab_size);
    }
    std::vector<float> vector = FakeEmbedder::VectorOf(text);
    answer->values.insert(answer->values.end(), vector.begin(),
                          vector.begin() + prepared->dimensions);
  }
  return answer;
}

void CheckAnswer(const std::string& body) { FAIRLEAD_CHECK(ParseJson(body).ok()); }

void CheckScores(const absl::StatusOr<ScoreRequest>& request, bool rerank) {
  if (!request.ok()) return CheckRefusal(request.status());
  const auto answer = Prepare(request->request, request->names);
  if (answer == nullptr) return;
  CheckAnswer(DumpJson((rerank ? RerankBody : ScoreBody)(*request, *answer, "fake")));
}

}  // namespace
}  // namespace fairlead

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fairlead;  // NOLINT: a fuzz entry
  if (size == 0) return 0;
  const auto body = ParseJson({reinterpret_cast<const char*>(data) + 1, size - 1});
  if (!body.ok()) {
    CheckRefusal(body.status());
    return 0;
  }
  if (data[0] % 3 == 1) {
    CheckScores(ParseScoreRequest(*body), /*rerank=*/false);
  } else if (data[0] % 3 == 2) {
    CheckScores(ParseRerankRequest(*body), /*rerank=*/true);
  } else if (const auto request = ParseEmbeddingsRequest(*body); !request.ok()) {
    CheckRefusal(request.status());
  } else if (const auto answer = Prepare(request->request, request->names); answer != nullptr) {
    CheckAnswer(EmbeddingsBody(*answer, request->request.model(), request->base64));
  }
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
// OpenAI's embeddings, and vLLM's scores and Jina's and Cohere's reranking, as EmbedRequests, and
// their answers as JSON. Pure functions: any thread. Errors are kInvalidArgument with the field's
// name; value ranges are the service's business.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/json.h"
#include "server/embed_service.h"

namespace fairlead {

struct OpenAiEmbeddings {
  pb::EmbedRequest request;
  InputName names = OpenAiInputName;
  bool base64 = false;
};
absl::StatusOr<OpenAiEmbeddings> ParseEmbeddingsRequest(const Json& body);
// base64: of little-endian float32; else the shortest decimals that are these floats.
std::string EmbeddingsBody(const EmbedAnswer& answer, const std::string& model, bool base64);

// How alike two texts are is the cosine of their vectors.
struct ScoreRequest {
  pb::EmbedRequest request;  // the left texts, then the right ones
  InputName names = nullptr;
  size_t left = 0;  // 1, or as many as right ones
  // Of a reranking:
  std::optional<size_t> top_n;
  bool return_documents = true;
};
absl::StatusOr<ScoreRequest> ParseScoreRequest(const Json& body);
absl::StatusOr<ScoreRequest> ParseRerankRequest(const Json& body);
Json ScoreBody(const ScoreRequest& request, const EmbedAnswer& answer, const std::string& model);
// Best first; of equals, the one that came first.
Json RerankBody(const ScoreRequest& request, const EmbedAnswer& answer, const std::string& model);

}  // namespace fairlead

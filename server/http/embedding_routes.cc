// SPDX-License-Identifier: Apache-2.0
#include "server/http/embedding_routes.h"

#include <string>
#include <utility>

#include "server/errors.h"
#include "server/http/with_json.h"
#include "server/openai_embeddings.h"

namespace fairlead {
namespace {

// Parses the body to what has a `request`, runs that, and answers with what `write` makes of it.
template <typename Parsed, typename Write>
void Answer(const RouteContext& context, HttpRequest request, ExchangePtr exchange,
            absl::StatusOr<Parsed> (*parse)(const Json&), Write write) {
  EmbedService* const service = context.services.embed;
  if (service == nullptr) return exchange->Respond(WrongTaskResponse(context, "makes embeddings"));
  WithJson(context, std::move(request), std::move(exchange),
           [service, parse, write](const Json& body, const HttpRequest& request,
                                   const ExchangePtr& exchange) {
             auto parsing = parse(body);
             if (!parsing.ok()) return exchange->Respond(ErrorResponse(parsing.status()));
             const auto parsed = std::make_shared<const Parsed>(*std::move(parsing));
             HttpHeaders headers;
             if (!request.request_id.empty())
               headers.emplace_back("X-Request-Id", request.request_id);
             const auto id = service->Start(
                 parsed->request, exchange->abandoned(),
                 [service, parsed, exchange, headers, write](absl::StatusOr<EmbedAnswer> answer) {
                   HttpResponse response;
                   if (answer.ok()) {
                     response.room = answer->room;
                     response.body = write(*parsed, *answer, service->model().name);
                   } else {
                     response = ErrorResponse(answer.status());
                   }
                   response.headers.insert(response.headers.end(), headers.begin(), headers.end());
                   exchange->Respond(std::move(response));
                 },
                 parsed->names);
             if (!id.ok()) return exchange->Respond(ErrorResponse(id.status()));
             exchange->OnAbandoned([service, id = *id] { service->Cancel(id); });
           });
}

}  // namespace

void HandleEmbeddings(const RouteContext& context, HttpRequest request, ExchangePtr exchange) {
  Answer(context, std::move(request), std::move(exchange), ParseEmbeddingsRequest,
         [](const OpenAiEmbeddings& parsed, const EmbedAnswer& answer, const std::string& model) {
           return EmbeddingsBody(answer, model, parsed.base64);
         });
}

void HandleScore(const RouteContext& context, HttpRequest request, ExchangePtr exchange) {
  Answer(context, std::move(request), std::move(exchange), ParseScoreRequest,
         [](const ScoreRequest& parsed, const EmbedAnswer& answer, const std::string& model) {
           return DumpJson(ScoreBody(parsed, answer, model));
         });
}

void HandleRerank(const RouteContext& context, HttpRequest request, ExchangePtr exchange) {
  Answer(context, std::move(request), std::move(exchange), ParseRerankRequest,
         [](const ScoreRequest& parsed, const EmbedAnswer& answer, const std::string& model) {
           return DumpJson(RerankBody(parsed, answer, model));
         });
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "server/http/routes.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "server/errors.h"
#include "server/http/embedding_routes.h"
#include "server/http/with_json.h"
#include "server/http_server.h"
#include "server/openai_request.h"

namespace fairlead {
namespace {

Json ModelJson(const pb::ModelInfo& info) {
  return Json{{"id", info.id()},
              {"object", "model"},
              {"created", info.created()},
              {"owned_by", "fairlead"},
              {"root", info.id()},
              {"parent", nullptr},
              {"max_model_len", info.max_model_len()},
              {"task", info.task()}};
}

// What could never be held at once is no matter of a full queue. Of one prompt the service says so.
absl::Status CheckChoices(const OpenAiRequest& request, int max_requests) {
  const int64_t prompts = static_cast<int64_t>(request.prompts.size());
  const pb::GenerateRequest& first = request.prompts.front();
  const int64_t n = first.has_n() ? first.n() : 1;
  if (prompts == 1 || prompts * n <= max_requests) return absl::OkStatus();
  return FieldError("prompt",
                    absl::StrCat("the request has ", prompts, " prompts and n is ", n, ": ",
                                 prompts * n, " choices; this server holds at most ", max_requests,
                                 " at once (--max-num-seqs and --max-queue)"));
}

template <typename Parse>
void StartGeneration(const RouteContext& context, HttpRequest request, ExchangePtr exchange,
                     Parse parse) {
  GenerateService* const service = context.services.generate;
  if (service == nullptr) return exchange->Respond(WrongTaskResponse(context, "generates text"));
  WithJson(context, std::move(request), std::move(exchange),
           [&context, service, parse](const Json& body, const HttpRequest& request,
                                      const ExchangePtr& exchange) {
             auto parsed = parse(body);
             if (!parsed.ok()) return exchange->Respond(ErrorResponse(parsed.status()));
             if (absl::Status status = CheckChoices(*parsed, service->max_requests()); !status.ok())
               return exchange->Respond(ErrorResponse(status));
             static std::atomic<uint64_t> counter{0};
             std::string id = request.request_id;
             if (id.empty()) {
               id = parsed->prompts.front().request_id();
               if (!id.empty() && !IsSaneRequestId(id)) {
                 return exchange->Respond(ErrorResponse(FieldError(
                     "request_id", "request_id must be 1 to 128 visible ASCII characters")));
               }
             }
             if (id.empty())
               id = absl::StrCat(absl::Hex(absl::ToUnixNanos(absl::Now())), "-", ++counter);
             const AnswerIdentity identity{.id = id,
                                           .model = service->model().name,
                                           .fingerprint = context.fingerprint,
                                           .created = absl::ToUnixSeconds(absl::Now()),
                                           .has_tokenizer = service->model().tokenizer != nullptr};
             std::make_shared<HttpGeneration>(*service, exchange, *std::move(parsed), identity)
                 ->Start(request.principal, id);
           });
}

void Chat(const RouteContext& context, HttpRequest request, ExchangePtr exchange) {
  StartGeneration(context, std::move(request), std::move(exchange), ParseChatRequest);
}

void Completions(const RouteContext& context, HttpRequest request, ExchangePtr exchange) {
  StartGeneration(context, std::move(request), std::move(exchange), ParseCompletionRequest);
}

void Models(const RouteContext& context, HttpRequest request, ExchangePtr exchange) {
  Json list = Json::array();
  const pb::ListModelsResponse models = context.services.model.ListModels();
  for (const pb::ModelInfo& info : models.models()) list.push_back(ModelJson(info));
  exchange->Respond(JsonResponse({{"object", "list"}, {"data", std::move(list)}}));
}

void OneModel(const RouteContext& context, HttpRequest request, ExchangePtr exchange) {
  const std::string name = request.path.substr(std::string_view("/v1/models/").size());
  const pb::ListModelsResponse models = context.services.model.ListModels();
  for (const pb::ModelInfo& info : models.models()) {
    if (info.id() == name) return exchange->Respond(JsonResponse(ModelJson(info)));
  }
  exchange->Respond(ErrorResponse(
      WithDetail(absl::NotFoundError(absl::StrCat("the model '", name, "' is not served here")),
                 "model", "model_not_found")));
}

void Tokenize(const RouteContext& context, HttpRequest request, ExchangePtr exchange) {
  WithJson(context, std::move(request), std::move(exchange),
           [&context](const Json& body, const HttpRequest&, const ExchangePtr& exchange) {
             auto parsed = ParseTokenizeRequest(body);
             if (!parsed.ok()) return exchange->Respond(ErrorResponse(parsed.status()));
             auto result = context.services.model.Tokenize(*parsed, exchange->abandoned());
             if (!result.ok()) return exchange->Respond(ErrorResponse(result.status()));
             Json out = {
                 {"count", result->tokens_size()},
                 {"max_model_len", result->max_model_len()},
                 {"tokens", std::vector<int32_t>(result->tokens().begin(), result->tokens().end())},
                 {"token_strs", nullptr}};
             if (parsed->return_token_strs()) {
               out["token_strs"] = std::vector<std::string>(result->token_strs().begin(),
                                                            result->token_strs().end());
             }
             exchange->Respond(JsonResponse(out));
           });
}

void Detokenize(const RouteContext& context, HttpRequest request, ExchangePtr exchange) {
  WithJson(context, std::move(request), std::move(exchange),
           [&context](const Json& body, const HttpRequest&, const ExchangePtr& exchange) {
             auto parsed = ParseDetokenizeRequest(body);
             if (!parsed.ok()) return exchange->Respond(ErrorResponse(parsed.status()));
             auto result = context.services.model.Detokenize(*parsed);
             if (!result.ok()) return exchange->Respond(ErrorResponse(result.status()));
             exchange->Respond(JsonResponse({{"prompt", result->text()}}));
           });
}

void Health(const RouteContext&, HttpRequest, ExchangePtr exchange) {
  exchange->Respond(JsonResponse({{"status", "ok"}}));
}

void Ready(const RouteContext& context, HttpRequest, ExchangePtr exchange) {
  const bool ready = context.ready;
  exchange->Respond(JsonResponse({{"status", ready ? "ready" : "not ready"}}, ready ? 200 : 503));
}

void MetricsText(const RouteContext& context, HttpRequest, ExchangePtr exchange) {
  exchange->Respond({.content_type = "text/plain; version=0.0.4; charset=utf-8",
                     .body = context.metrics.Scrape()});
}

void Config(const RouteContext& context, HttpRequest, ExchangePtr exchange) {
  exchange->Respond(JsonResponse(context.config));
}

void Version(const RouteContext& context, HttpRequest, ExchangePtr exchange) {
  exchange->Respond(JsonResponse({{"version", context.version}}));
}

constexpr RouteTable::Route kRoutes[] = {
    {"POST", "/v1/chat/completions", false, Chat},
    {"POST", "/v1/completions", false, Completions},
    {"POST", "/v1/embeddings", false, HandleEmbeddings},
    {"POST", "/v1/score", false, HandleScore},
    {"POST", "/score", false, HandleScore},
    {"POST", "/v1/rerank", false, HandleRerank},
    {"POST", "/v2/rerank", false, HandleRerank},
    {"POST", "/rerank", false, HandleRerank},
    {"GET", "/v1/models", false, Models},
    {"GET", "/v1/models/*", false, OneModel},
    {"POST", "/tokenize", false, Tokenize},
    {"POST", "/detokenize", false, Detokenize},
    {"GET", "/metrics", false, MetricsText},
    {"GET", "/config", false, Config},
    {"GET", "/health", true, Health},
    {"GET", "/ready", true, Ready},
    {"GET", "/version", true, Version},
};

bool Matches(std::string_view pattern, std::string_view path) {
  if (pattern.back() != '*') return pattern == path;
  pattern.remove_suffix(1);
  return path.size() > pattern.size() && path.substr(0, pattern.size()) == pattern;
}

}  // namespace

HttpResponse WrongTaskResponse(const RouteContext& context, std::string_view wanted) {
  const absl::Status status = WrongTask(context.services.model.model(), wanted);
  const absl::string_view message = status.message();
  return {.status = 400,
          .body = DumpJson(ErrorBody(400, {message.data(), message.size()}, ErrorParam(status),
                                     ErrorCode(status)))};
}

absl::Span<const RouteTable::Route> RouteTable::Routes() { return kRoutes; }

bool RouteTable::IsPublic(std::string_view method, std::string_view path) const {
  if (method == "HEAD") method = "GET";
  for (const Route& route : kRoutes) {
    if (method == route.method && Matches(route.path, path)) return route.is_public;
  }
  return false;
}

std::string_view RouteTable::MetricName(std::string_view path) const {
  for (const Route& route : kRoutes) {
    if (Matches(route.path, path)) return route.path;
  }
  return "unknown";
}

void RouteTable::Dispatch(HttpRequest request, std::shared_ptr<HttpExchange> exchange) const {
  std::vector<std::string> allowed;
  for (const Route& route : kRoutes) {
    if (!Matches(route.path, request.path)) continue;
    if (request.method == route.method)
      return route.handler(context_, std::move(request), std::move(exchange));
    allowed.push_back(route.method);
  }
  if (allowed.empty()) {
    return exchange->Respond(ErrorResponse(
        absl::NotFoundError(absl::StrCat("no such path: ", request.path.substr(0, 256)))));
  }
  const std::string methods = absl::StrJoin(allowed, ", ");
  exchange->Respond(
      {.status = 405,
       .body = DumpJson(ErrorBody(
           405, absl::StrCat(request.method, " is not allowed here; allowed: ", methods))),
       .headers = {{"Allow", methods}}});
}

std::vector<RouteInfo> HttpRoutes() {
  std::vector<RouteInfo> routes;
  for (const RouteTable::Route& route : kRoutes)
    routes.push_back({route.method, route.path, route.is_public});
  return routes;
}

}  // namespace fairlead

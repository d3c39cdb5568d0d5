// SPDX-License-Identifier: Apache-2.0
// What handlers of JSON requests have in common. Any thread.
#pragma once

#include <memory>
#include <utility>

#include "models/json.h"
#include "server/http/routes.h"

namespace fairlead {

using ExchangePtr = std::shared_ptr<HttpExchange>;

inline HttpResponse JsonResponse(const Json& body, int status = 200) {
  return {.status = status, .body = DumpJson(body)};
}

// Parses the body and calls `work` with it on a service thread, since both may take long.
template <typename F>
void WithJson(const RouteContext& context, HttpRequest request, ExchangePtr exchange, F work) {
  const size_t bytes = request.body.size();
  const absl::Status posted = context.services.model.Run(
      bytes, [request = std::move(request), exchange, work = std::move(work)]() mutable {
        if (exchange->abandoned()) return;
        auto body = ParseJson(request.body);
        if (!body.ok()) return exchange->Respond(ErrorResponse(body.status()));
        try {
          work(*body, request, exchange);
        } catch (const std::exception& error) {  // a library's: out of memory
          exchange->Respond(ErrorResponse(absl::InternalError(error.what())));
        }
      });
  if (!posted.ok()) exchange->Respond(ErrorResponse(posted));
}

// Of a request that the model is not made for: the client's mistake.
HttpResponse WrongTaskResponse(const RouteContext& context, std::string_view wanted);

}  // namespace fairlead

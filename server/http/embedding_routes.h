// SPDX-License-Identifier: Apache-2.0
// The routes of models that make embeddings. Any thread.
#pragma once

#include <memory>

#include "server/http/routes.h"

namespace fairlead {

void HandleEmbeddings(const RouteContext& context, HttpRequest request,
                      std::shared_ptr<HttpExchange> exchange);
void HandleScore(const RouteContext& context, HttpRequest request,
                 std::shared_ptr<HttpExchange> exchange);
void HandleRerank(const RouteContext& context, HttpRequest request,
                  std::shared_ptr<HttpExchange> exchange);

}  // namespace fairlead

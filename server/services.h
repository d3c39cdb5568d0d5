// SPDX-License-Identifier: Apache-2.0
// What a port serves: the one service of the model, as what it is.
#pragma once

#include "server/embed_service.h"
#include "server/generate_service.h"

namespace fairlead {

// The service outlives the ports. Either generate or embed is null.
struct Services {
  Services(GenerateService& service) : model(service), generate(&service) {}  // NOLINT
  Services(EmbedService& service) : model(service), embed(&service) {}        // NOLINT

  ModelService& model;
  GenerateService* generate = nullptr;
  EmbedService* embed = nullptr;
};

}  // namespace fairlead

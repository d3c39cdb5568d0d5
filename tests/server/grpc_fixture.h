// SPDX-License-Identifier: Apache-2.0
// A gRPC server on loopback, above a fake engine.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "fairlead/v1/inference.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/grpc_server.h"
#include "tests/server/fake_engine.h"
#include "tests/server/fake_model.h"

namespace fairlead {

struct GrpcFixture {
  explicit GrpcFixture(KeyStore key_store = KeyStore::AllowAnonymous(),
                       GrpcServerOptions options = {})
      : keys(std::move(key_store)) {
    options.port = 0;
    options.info.set_version("1.2.3");
    auto started = GrpcServer::Start(options, keys, service, metrics);
    EXPECT_TRUE(started.ok()) << started.status();
    server = *std::move(started);
  }
  ~GrpcFixture() {
    engine.Drain(absl::InfinitePast());
    server->Drain(absl::InfinitePast());
  }

  std::string address() const { return "127.0.0.1:" + std::to_string(server->port()); }
  // Each one is a connection of its own.
  std::shared_ptr<grpc::Channel> Channel() const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(address(), grpc::InsecureChannelCredentials(), arguments);
  }

  static KeyStore OneKey(const std::string& key) {
    const auto path = std::filesystem::path(testing::TempDir()) / "grpc_fixture_keys";
    std::ofstream(path) << key << "\n";
    return *KeyStore::FromFile(path.string());
  }

  FakeTokenizer tokenizer;
  ChatFormat chat_format = FakeChatFormat();
  FakeEngine engine;
  Metrics metrics{BuildInfo{}};
  KeyStore keys;
  GenerateService service{FakeServedModel(&tokenizer, &chat_format), engine, metrics, 2};
  std::unique_ptr<GrpcServer> server;
};

}  // namespace fairlead

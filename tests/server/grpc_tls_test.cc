// SPDX-License-Identifier: Apache-2.0
// TLS on the gRPC port.
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <chrono>

#include "tests/server/grpc_fixture.h"
#include "tests/server/tls_material.h"

namespace fairlead {
namespace {

TEST(GrpcTls, ServesWhoTrustsTheCertificateOnly) {
  const TlsMaterial material = MakeTlsMaterial();
  const TlsIdentity identity{material.certificate, material.key};
  GrpcServerOptions options;
  options.tls = &identity;
  GrpcFixture fixture(KeyStore::AllowAnonymous(), options);
  const auto call = [](const std::shared_ptr<grpc::Channel>& channel) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    pb::ListModelsResponse response;
    return pb::Inference::NewStub(channel)->ListModels(&context, {}, &response);
  };
  grpc::SslCredentialsOptions trusting;
  trusting.pem_root_certs = material.certificate;
  const std::string address = fixture.address();
  const auto trusted = call(grpc::CreateChannel(address, grpc::SslCredentials(trusting)));
  EXPECT_TRUE(trusted.ok()) << trusted.error_message();

  grpc::SslCredentialsOptions distrusting;
  distrusting.pem_root_certs = MakeTlsMaterial().certificate;
  EXPECT_EQ(call(grpc::CreateChannel(address, grpc::SslCredentials(distrusting))).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(call(fixture.Channel()).error_code(), grpc::StatusCode::UNAVAILABLE);  // plain text
}

}  // namespace
}  // namespace fairlead

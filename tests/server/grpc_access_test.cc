// SPDX-License-Identifier: Apache-2.0
// Who gets in on the gRPC port: keys before routing, on every method there is and on those that
// are not; health for everybody; reflection.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <optional>
#include <set>

#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "tests/server/grpc_fixture.h"

namespace fairlead {
namespace {

namespace health = grpc::health::v1;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;

// One empty message to any method; the call's status.
grpc::Status CallAny(const GrpcFixture& fixture, const std::string& method,
                     const std::optional<std::string>& authorization) {
  grpc::GenericStub stub(fixture.Channel());
  grpc::ClientContext context;
  if (authorization) context.AddMetadata("authorization", *authorization);
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, method, &queue);
  const auto wait = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    return ok;
  };
  call->StartCall(nullptr);
  if (wait()) {
    const grpc::Slice empty;
    call->WriteLast(grpc::ByteBuffer(&empty, 1), {}, nullptr);
    wait();
    // A health watch does not end by itself.
    grpc::ByteBuffer answer;
    call->Read(&answer, nullptr);
    if (wait()) context.TryCancel();
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  wait();
  return status;
}

const char* const kWrongKeys[] = {"",
                                  "Bearer",
                                  "Bearer wrong",
                                  "Basic right-key",
                                  "right-key",
                                  "Bearer right-key2",
                                  "Bearer right-ke"};

TEST(GrpcAccess, EveryMethodButHealthNeedsAKey) {
  GrpcFixture fixture(GrpcFixture::OneKey("right-key"));
  std::vector<std::string> methods = {"/fairlead.v1.Inference/NoSuchMethod", "/no.such.Service/Do",
                                      "/grpc.health.v1.Health/NoSuchMethod", "/"};
  for (const GrpcMethodInfo& method : GrpcMethods()) {
    if (!method.is_public) methods.push_back(method.path);
  }
  for (const std::string& method : methods) {
    EXPECT_EQ(CallAny(fixture, method, std::nullopt).error_code(),
              grpc::StatusCode::UNAUTHENTICATED)
        << method;
    for (const char* key : kWrongKeys) {
      EXPECT_EQ(CallAny(fixture, method, key).error_code(), grpc::StatusCode::UNAUTHENTICATED)
          << method << " with " << key;
    }
    EXPECT_NE(CallAny(fixture, method, "Bearer right-key").error_code(),
              grpc::StatusCode::UNAUTHENTICATED)
        << method;
  }
  EXPECT_TRUE(fixture.engine.requests().empty());
  EXPECT_THAT(fixture.metrics.Scrape(),
              HasSubstr(R"(fairlead_auth_denied_total{protocol="grpc"})"));
}

TEST(GrpcAccess, TheListOfMethodsIsComplete) {
  std::set<std::string> known;
  for (const GrpcMethodInfo& method : GrpcMethods()) {
    known.insert(method.path);
    EXPECT_EQ(method.is_public, method.path.rfind("/grpc.health.v1.Health/", 0) == 0);
  }
  for (const char* name :
       {"fairlead.v1.Inference", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection"}) {
    const auto* service =
        google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(name);
    ASSERT_NE(service, nullptr) << name;
    for (int i = 0; i < service->method_count(); ++i) {
      EXPECT_EQ(known.erase("/" + service->full_name() + "/" + service->method(i)->name()), 1u)
          << service->method(i)->full_name();
    }
  }
  EXPECT_TRUE(known.empty());
}

TEST(GrpcAccess, UnknownMethodsAreUnimplementedForWhoHasAKey) {
  GrpcFixture fixture(GrpcFixture::OneKey("right-key"));
  EXPECT_EQ(CallAny(fixture, "/no.such.Service/Do", "bearer right-key").error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST(GrpcAccess, TwoKeysAreOneTooMany) {
  GrpcFixture fixture(GrpcFixture::OneKey("right-key"));
  const auto stub = pb::Inference::NewStub(fixture.Channel());
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer wrong");
  context.AddMetadata("authorization", "Bearer right-key");
  pb::ListModelsResponse response;
  EXPECT_EQ(stub->ListModels(&context, {}, &response).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
}

TEST(GrpcAccess, TenantsHaveSaltsOfTheirOwn) {
  GrpcFixture fixture(GrpcFixture::OneKey("one\ntwo"));
  fixture.engine.AnswerWith(TokensOf("x"));
  const auto stub = pb::Inference::NewStub(fixture.Channel());
  for (const char* key : {"Bearer one", "Bearer two", "Bearer one"}) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", key);
    pb::GenerateRequest request;
    request.set_prompt("hi");
    pb::GenerateResponse response;
    ASSERT_TRUE(stub->GenerateOnce(&context, request, &response).ok());
  }
  const auto requests = fixture.engine.requests();
  EXPECT_NE(requests[0].cache_salt, requests[1].cache_salt);
  EXPECT_EQ(requests[0].cache_salt, requests[2].cache_salt);
  EXPECT_NE(requests[0].cache_salt, 0u);
}

TEST(GrpcAccess, HealthIsPublicAndFollowsServing) {
  GrpcFixture fixture(GrpcFixture::OneKey("right-key"));
  const auto stub = health::Health::NewStub(fixture.Channel());
  const auto check = [&stub](const std::string& service) {
    grpc::ClientContext context;
    health::HealthCheckRequest request;
    request.set_service(service);
    health::HealthCheckResponse response;
    const grpc::Status status = stub->Check(&context, request, &response);
    return status.ok() ? static_cast<int>(response.status())
                       : -static_cast<int>(status.error_code());
  };
  for (const bool serving : {false, true, false}) {
    if (serving) fixture.server->SetServing(true);
    const int expected =
        serving ? health::HealthCheckResponse::SERVING : health::HealthCheckResponse::NOT_SERVING;
    for (const char* name : {"", "fairlead.v1.Inference", "readiness"})
      EXPECT_EQ(check(name), expected) << name;
    EXPECT_EQ(check("liveness"), static_cast<int>(health::HealthCheckResponse::SERVING));
    fixture.server->SetServing(false);
  }
  EXPECT_EQ(check("no.such.Service"), -static_cast<int>(grpc::StatusCode::NOT_FOUND));
  grpc::ClientContext context;
  health::HealthListResponse list;
  ASSERT_TRUE(stub->List(&context, {}, &list).ok());
  EXPECT_EQ(list.statuses().count("readiness"), 1u);
}

TEST(GrpcAccess, WatchTellsChanges) {
  GrpcFixture fixture;
  const auto stub = health::Health::NewStub(fixture.Channel());
  grpc::ClientContext context;
  health::HealthCheckRequest request;
  request.set_service("fairlead.v1.Inference");
  const auto watch = stub->Watch(&context, request);
  health::HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), health::HealthCheckResponse::NOT_SERVING);
  fixture.server->SetServing(true);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), health::HealthCheckResponse::SERVING);
  context.TryCancel();
  EXPECT_FALSE(watch->Read(&response));

  grpc::ClientContext unknown_context;
  request.set_service("no.such.Service");
  const auto unknown = stub->Watch(&unknown_context, request);
  ASSERT_TRUE(unknown->Read(&response));
  EXPECT_EQ(response.status(), health::HealthCheckResponse::SERVICE_UNKNOWN);
  unknown_context.TryCancel();
}

// A client that knows nothing builds the service's descriptors from what reflection says.
template <typename Stub, typename Request, typename Response>
void ReflectEverything(const GrpcFixture& fixture) {
  const auto stub = Stub::NewStub(fixture.Channel());
  grpc::ClientContext context;
  const auto stream = stub->ServerReflectionInfo(&context);
  Request request;
  Response response;
  request.set_list_services("");
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  std::vector<std::string> names;
  for (const auto& service : response.list_services_response().service())
    names.push_back(service.name());
  EXPECT_THAT(names, IsSupersetOf({"fairlead.v1.Inference", "grpc.health.v1.Health"}));

  request.set_file_containing_symbol("fairlead.v1.Inference");
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  google::protobuf::DescriptorPool pool;
  for (const std::string& bytes : response.file_descriptor_response().file_descriptor_proto()) {
    google::protobuf::FileDescriptorProto file;
    ASSERT_TRUE(file.ParseFromString(bytes));
    ASSERT_NE(pool.BuildFile(file), nullptr) << file.name();
  }
  const auto* service = pool.FindServiceByName("fairlead.v1.Inference");
  ASSERT_NE(service, nullptr);
  EXPECT_EQ(service->method_count(), 7);

  request.set_file_by_filename("google/rpc/error_details.proto");
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.file_descriptor_response().file_descriptor_proto_size(), 2);  // and Duration

  request.set_file_containing_symbol("no.such.Symbol");
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.error_response().error_code(), static_cast<int>(grpc::StatusCode::NOT_FOUND));
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST(GrpcAccess, ReflectionDescribesTheServices) {
  namespace v1 = grpc::reflection::v1;
  namespace v1alpha = grpc::reflection::v1alpha;
  GrpcFixture fixture;
  ReflectEverything<v1::ServerReflection, v1::ServerReflectionRequest,
                    v1::ServerReflectionResponse>(fixture);
  ReflectEverything<v1alpha::ServerReflection, v1alpha::ServerReflectionRequest,
                    v1alpha::ServerReflectionResponse>(fixture);
}

TEST(GrpcAccess, ReflectionCanBeOff) {
  GrpcServerOptions options;
  options.reflection = false;
  GrpcFixture fixture(KeyStore::AllowAnonymous(), options);
  for (const char* version : {"v1", "v1alpha"}) {
    const std::string method =
        std::string("/grpc.reflection.") + version + ".ServerReflection/ServerReflectionInfo";
    EXPECT_EQ(CallAny(fixture, method, std::nullopt).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  }
}

}  // namespace
}  // namespace fairlead

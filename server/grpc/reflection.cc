// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/reflection.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "grpc/reflection/v1/reflection.pb.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"

namespace fairlead {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;

const DescriptorPool& Pool() { return *DescriptorPool::generated_pool(); }

// The file and all it imports, each once, imported ones first.
template <typename Response>
void AddFiles(const FileDescriptor& file, std::set<const FileDescriptor*>& seen,
              Response& response) {
  if (!seen.insert(&file).second) return;
  for (int i = 0; i < file.dependency_count(); ++i) AddFiles(*file.dependency(i), seen, response);
  google::protobuf::FileDescriptorProto proto;
  file.CopyTo(&proto);
  response.add_file_descriptor_proto(proto.SerializeAsString());
}

// Both versions have messages of the same names and fields.
template <typename Request, typename Response>
class ReflectionCall final : public QueuedCall {
 public:
  ReflectionCall(const std::vector<std::string>& services, LongCalls& calls)
      : services_(services), calls_(calls) {}

 private:
  void OnRequest(grpc::ByteBuffer& bytes) override {
    Request request;
    if (absl::Status status = ParseRequest(bytes, request); !status.ok()) return Finish(status);
    if (!registered_) {
      registered_ = true;
      if (!calls_.Add(shared_from_this()))
        return Finish(absl::UnavailableError("the server is shutting down"));
    }
    Response response;
    response.set_valid_host(request.host());
    *response.mutable_original_request() = request;
    Answer(request, response);
    Send(response);
  }

  // One question at a time: what waits to be written is bounded, however fast a client asks.
  void OnWritten() override { ReadNext(); }

  void OnHalfClose() override { Finish(absl::OkStatus()); }
  void OnAbandoned() override { Finish(absl::CancelledError("the client has left")); }

  void Answer(const Request& request, Response& response) const {
    switch (request.message_request_case()) {
      case Request::kFileByFilename:
        return AnswerFile(Pool().FindFileByName(request.file_by_filename()), response);
      case Request::kFileContainingSymbol:
        return AnswerFile(Pool().FindFileContainingSymbol(request.file_containing_symbol()),
                          response);
      case Request::kFileContainingExtension: {
        const auto& wanted = request.file_containing_extension();
        const Descriptor* type = Pool().FindMessageTypeByName(wanted.containing_type());
        const FieldDescriptor* extension =
            type == nullptr ? nullptr
                            : Pool().FindExtensionByNumber(type, wanted.extension_number());
        return AnswerFile(extension == nullptr ? nullptr : extension->file(), response);
      }
      case Request::kAllExtensionNumbersOfType: {
        const Descriptor* type =
            Pool().FindMessageTypeByName(request.all_extension_numbers_of_type());
        if (type == nullptr)
          return AnswerError(absl::StatusCode::kNotFound, "no such type", response);
        std::vector<const FieldDescriptor*> extensions;
        Pool().FindAllExtensions(type, &extensions);
        auto& numbers = *response.mutable_all_extension_numbers_response();
        numbers.set_base_type_name(type->full_name());
        for (const FieldDescriptor* extension : extensions)
          numbers.add_extension_number(extension->number());
        return;
      }
      case Request::kListServices:
        for (const std::string& name : services_)
          response.mutable_list_services_response()->add_service()->set_name(name);
        return;
      case Request::MESSAGE_REQUEST_NOT_SET:
        return AnswerError(absl::StatusCode::kInvalidArgument, "the request asks for nothing",
                           response);
    }
  }

  static void AnswerFile(const FileDescriptor* file, Response& response) {
    if (file == nullptr) return AnswerError(absl::StatusCode::kNotFound, "not found", response);
    std::set<const FileDescriptor*> seen;
    AddFiles(*file, seen, *response.mutable_file_descriptor_response());
  }

  static void AnswerError(absl::StatusCode code, const char* message, Response& response) {
    response.mutable_error_response()->set_error_code(static_cast<int>(code));
    response.mutable_error_response()->set_error_message(message);
  }

  const std::vector<std::string>& services_;
  LongCalls& calls_;
  bool registered_ = false;
};

}  // namespace

std::shared_ptr<GrpcCall> MakeReflectionV1Call(const std::vector<std::string>& services,
                                               LongCalls& calls) {
  namespace v1 = grpc::reflection::v1;
  return std::make_shared<
      ReflectionCall<v1::ServerReflectionRequest, v1::ServerReflectionResponse>>(services, calls);
}

std::shared_ptr<GrpcCall> MakeReflectionV1AlphaCall(const std::vector<std::string>& services,
                                                    LongCalls& calls) {
  namespace v1alpha = grpc::reflection::v1alpha;
  return std::make_shared<
      ReflectionCall<v1alpha::ServerReflectionRequest, v1alpha::ServerReflectionResponse>>(services,
                                                                                           calls);
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// fairlead.v1.Inference by gRPC's callback API: its threads read the streams.
#include <google/protobuf/util/json_util.h>
#include <grpcpp/grpcpp.h>

#include <fstream>
#include <sstream>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "bench/serve/openai_wire.h"
#include "bench/serve/target.h"
#include "fairlead/v1/inference.grpc.pb.h"

namespace fairlead::serve_bench {
namespace {

namespace pb = fairlead::v1;

constexpr double kDescribeTimeoutS = 30;

std::chrono::system_clock::time_point Deadline(double timeout_s) {
  return std::chrono::system_clock::now() +
         std::chrono::milliseconds(static_cast<int64_t>(timeout_s * 1000));
}

void Authorize(grpc::ClientContext& context, const std::string& key) {
  if (!key.empty()) context.AddMetadata("authorization", "Bearer " + key);
}

pb::GenerateRequest MessageOf(const Request& request, const TargetOptions& options) {
  pb::GenerateRequest message;
  message.set_model(options.model);
  if (const auto* ids = std::get_if<TokenIds>(&request.prompt)) {
    message.mutable_prompt_tokens()->mutable_ids()->Add(ids->begin(), ids->end());
  } else if (const auto* text = std::get_if<std::string>(&request.prompt)) {
    message.set_prompt(*text);
  } else {
    for (const ChatMessage& from : std::get<Chat>(request.prompt)) {
      pb::Message& to = *message.mutable_chat()->add_messages();
      to.set_role(from.role);
      to.set_content(from.content);
    }
  }
  message.mutable_sampling()->set_temperature(static_cast<float>(options.temperature));
  message.mutable_stop()->set_max_tokens(request.max_tokens);
  message.mutable_stop()->set_ignore_eos(options.ignore_eos);
  message.mutable_output()->set_return_token_ids(options.return_token_ids ||
                                                 request.wants_answer_ids);
  return message;
}

const char* NameOf(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::INVALID_ARGUMENT:
      return "INVALID_ARGUMENT";
    case grpc::StatusCode::NOT_FOUND:
      return "NOT_FOUND";
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return "RESOURCE_EXHAUSTED";
    case grpc::StatusCode::FAILED_PRECONDITION:
      return "FAILED_PRECONDITION";
    case grpc::StatusCode::UNAUTHENTICATED:
      return "UNAUTHENTICATED";
    case grpc::StatusCode::PERMISSION_DENIED:
      return "PERMISSION_DENIED";
    case grpc::StatusCode::UNIMPLEMENTED:
      return "UNIMPLEMENTED";
    case grpc::StatusCode::INTERNAL:
      return "INTERNAL";
    case grpc::StatusCode::UNAVAILABLE:
      return "UNAVAILABLE";
    case grpc::StatusCode::CANCELLED:
      return "CANCELLED";
    default:
      return "UNKNOWN";
  }
}

// One stream. gRPC calls it from one thread at a time; it deletes itself at the end.
class Call : public grpc::ClientReadReactor<pb::GenerateEvent> {
 public:
  Call(pb::GenerateRequest request, int cancel_after, OnRecord done)
      : request_(std::move(request)), cancel_after_(cancel_after), done_(std::move(done)) {}

  void Start(pb::Inference::Stub& stub, const TargetOptions& options) {
    context_.set_deadline(Deadline(options.timeout_s));
    Authorize(context_, options.key);
    stub.async()->Generate(&context_, &request_, this);
    StartRead(&event_);
    record_.sent = Clock::now();
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    Read(Clock::now());
    StartRead(&event_);
  }

  void OnDone(const grpc::Status& status) override {
    record_.ended = Clock::now();
    Judge(status);
    done_(std::move(record_));
    delete this;
  }

 private:
  void Read(Time now) {
    if (event_.has_delta()) {
      const pb::Delta& delta = event_.delta();
      if (delta.num_tokens() > 0) record_.token_events.push_back(now);
      record_.answer_text += delta.text();
      record_.answer_ids.insert(record_.answer_ids.end(), delta.token_ids().begin(),
                                delta.token_ids().end());
    } else if (event_.has_usage()) {
      has_usage_ = true;
      record_.prompt_tokens = event_.usage().prompt_tokens();
      record_.completion_tokens = event_.usage().completion_tokens();
      record_.cached_tokens = event_.usage().cached_prompt_tokens();
    }
    if (cancel_after_ > 0 && record_.outcome == Outcome::kOk &&
        record_.token_events.size() >= static_cast<size_t>(cancel_after_)) {
      record_.outcome = Outcome::kCancelled;
      context_.TryCancel();
    }
  }

  void Judge(const grpc::Status& status) {
    if (record_.outcome == Outcome::kCancelled) return;
    if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
      Fail(record_, "timeout", status.error_message());
    } else if (!status.ok()) {
      Fail(record_, absl::StrCat("grpc_", NameOf(status.error_code())), status.error_message());
    } else if (!has_usage_) {
      Fail(record_, "no_usage", "the stream ended without usage");
    }
  }

  grpc::ClientContext context_;
  const pb::GenerateRequest request_;
  const int cancel_after_;
  const OnRecord done_;
  pb::GenerateEvent event_;
  Record record_;
  bool has_usage_ = false;
};

absl::Status Unavailable(const std::string& address, const grpc::Status& status) {
  return absl::UnavailableError(
      absl::StrCat(address, ": gRPC ", NameOf(status.error_code()), ": ", status.error_message()));
}

absl::StatusOr<Json> ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions names;
  names.preserve_proto_field_names = true;
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(message, &text, names).ok())
    return absl::InternalError("a message cannot be written as JSON");
  return ParseJson(text);
}

class GrpcTarget : public Target {
 public:
  GrpcTarget(std::string address, const std::shared_ptr<grpc::ChannelCredentials>& credentials,
             TargetOptions options)
      : address_(std::move(address)),
        options_(std::move(options)),
        stub_(
            pb::Inference::NewStub(grpc::CreateCustomChannel(address_, credentials, Arguments()))) {
  }

  absl::StatusOr<Json> Describe() override {
    pb::ServerInfoResponse info;
    grpc::ClientContext info_context;
    info_context.set_deadline(Deadline(kDescribeTimeoutS));
    Authorize(info_context, options_.key);
    grpc::Status status = stub_->ServerInfo(&info_context, {}, &info);
    if (!status.ok()) return Unavailable(address_, status);
    pb::ListModelsResponse models;
    grpc::ClientContext models_context;
    models_context.set_deadline(Deadline(kDescribeTimeoutS));
    Authorize(models_context, options_.key);
    status = stub_->ListModels(&models_context, {}, &models);
    if (!status.ok()) return Unavailable(address_, status);
    const absl::StatusOr<Json> info_json = ToJson(info), models_json = ToJson(models);
    if (!info_json.ok()) return info_json.status();
    if (!models_json.ok()) return models_json.status();
    return Json{{"protocol", "grpc"},
                {"address", address_},
                {"model", options_.model.empty() ? info.model() : options_.model},
                {"models", *models_json},
                {"config", *info_json}};
  }

  void Send(Request request, OnRecord done) override {
    auto* call = new Call(MessageOf(request, options_), request.cancel_after, std::move(done));
    call->Start(*stub_, options_);
  }

 private:
  static grpc::ChannelArguments Arguments() {
    grpc::ChannelArguments arguments;
    arguments.SetInt("grpc.enable_http_proxy", 0);  // it would be measured too
    arguments.SetMaxReceiveMessageSize(-1);
    return arguments;
  }

  const std::string address_;
  const TargetOptions options_;
  const std::unique_ptr<pb::Inference::Stub> stub_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Target>> MakeGrpcTarget(const std::string& address, bool tls,
                                                       TargetOptions options) {
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (tls) {
    grpc::SslCredentialsOptions ssl;
    if (!options.ca_file.empty()) {
      std::ifstream file(options.ca_file);
      std::ostringstream pem;
      pem << file.rdbuf();
      if (!file || pem.str().empty())
        return absl::InvalidArgumentError(
            absl::StrCat("--ca-file ", options.ca_file, " cannot be read"));
      ssl.pem_root_certs = pem.str();
    }
    credentials = grpc::SslCredentials(ssl);
  }
  return std::make_unique<GrpcTarget>(address, credentials, std::move(options));
}

}  // namespace fairlead::serve_bench

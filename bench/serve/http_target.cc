// SPDX-License-Identifier: Apache-2.0
// OpenAI's HTTP API by libcurl: one thread drives every transfer, connections are kept and reused.
#include <curl/curl.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "bench/serve/openai_wire.h"
#include "bench/serve/sse_parser.h"
#include "bench/serve/target.h"

namespace fairlead::serve_bench {
namespace {

constexpr size_t kMaxErrorBody = 64 << 10;
constexpr size_t kMaxDescription = 4 << 20;
constexpr double kDescribeTimeoutS = 30;
constexpr long kMaxConnections = 100000;  // idle ones that are kept: as many as were needed
constexpr int kPollMs = 1000;             // Send wakes the poll; this only bounds a lost wake-up

struct CurlDeleter {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using EasyHandle = std::unique_ptr<CURL, CurlDeleter>;
using HeaderList = std::unique_ptr<curl_slist, CurlDeleter>;

// What every transfer shares. Options that take a long must be given one.
void SetCommon(CURL* easy, const std::string& url, const TargetOptions& options, double timeout_s) {
  curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_PROXY,
                   "");  // never by the environment's: it would be measured too
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(timeout_s * 1000));
  if (!options.ca_file.empty()) curl_easy_setopt(easy, CURLOPT_CAINFO, options.ca_file.c_str());
}

HeaderList MakeHeaders(const TargetOptions& options) {
  curl_slist* list = curl_slist_append(nullptr, "Content-Type: application/json");
  list = curl_slist_append(list, "Expect:");  // no round trip before a long body
  if (!options.key.empty())
    list = curl_slist_append(list, absl::StrCat("Authorization: Bearer ", options.key).c_str());
  return HeaderList(list);
}

// One request on its way. The loop's thread alone touches it once it is started.
struct Transfer {
  Transfer(Request request, OnRecord done_function)
      : cancel_after(request.cancel_after),
        done(std::move(done_function)),
        reader(record),
        events([this](std::string_view data) { reader.OnData(data, now); }) {}

  EasyHandle easy;
  std::string body;
  const int cancel_after;
  const OnRecord done;
  Record record;
  AnswerReader reader;
  SseParser events;
  Time now;  // of the bytes that are being read
  long status = 0;
  bool got_bytes = false;
  std::string error_body;
};

size_t OnBytes(char* data, size_t, size_t size, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  transfer.now = Clock::now();
  if (transfer.status == 0)
    curl_easy_getinfo(transfer.easy.get(), CURLINFO_RESPONSE_CODE, &transfer.status);
  transfer.got_bytes = true;
  if (transfer.status != 200) {
    if (transfer.error_body.size() < kMaxErrorBody) transfer.error_body.append(data, size);
    return size;
  }
  transfer.events.Add({data, size});
  if (transfer.cancel_after > 0 && !transfer.reader.failed() &&
      transfer.record.token_events.size() >= static_cast<size_t>(transfer.cancel_after)) {
    transfer.record.outcome = Outcome::kCancelled;
  }
  // Anything but `size` makes curl drop the connection: the hang-up of a cancelled request.
  return transfer.record.outcome == Outcome::kOk ? size : 0;
}

std::string KindOf(CURLcode code, bool got_bytes) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
      return "connect";
    case CURLE_OPERATION_TIMEDOUT:
      return "timeout";
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
      return "tls";
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE:
      return "disconnect";
    default:
      return got_bytes ? "disconnect" : "transport";
  }
}

void Judge(Transfer& transfer, CURLcode code) {
  Record& record = transfer.record;
  record.ended = Clock::now();
  if (record.outcome != Outcome::kOk) return;  // cancelled, or the reader's error
  if (code != CURLE_OK)
    return Fail(record, KindOf(code, transfer.got_bytes), curl_easy_strerror(code));
  curl_easy_getinfo(transfer.easy.get(), CURLINFO_RESPONSE_CODE, &transfer.status);
  if (transfer.status != 200) {
    return Fail(record, absl::StrCat("http_", transfer.status), ErrorMessage(transfer.error_body));
  }
  transfer.reader.OnEnd();
}

class HttpTarget : public Target {
 public:
  HttpTarget(std::string url, TargetOptions options)
      : url_(std::move(url)),
        options_(std::move(options)),
        headers_(MakeHeaders(options_)),
        multi_(curl_multi_init()) {
    curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, kMaxConnections);
    loop_ = std::thread([this] { Loop(); });
  }

  ~HttpTarget() override {
    stop_ = true;
    curl_multi_wakeup(multi_);
    loop_.join();
    curl_multi_cleanup(multi_);
  }

  absl::StatusOr<Json> Describe() override;
  void Send(Request request, OnRecord done) override;

 private:
  absl::StatusOr<Json> Get(const std::string& path) const;
  void Loop();
  void StartWaiting();
  void FinishDone();

  const std::string url_;
  TargetOptions options_;  // Describe may fill in the model, before any Send
  const HeaderList headers_;
  CURLM* const multi_;
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::vector<std::unique_ptr<Transfer>> waiting_;  // guarded by mutex_
  std::thread loop_;
};

void HttpTarget::Send(Request request, OnRecord done) {
  auto transfer = std::make_unique<Transfer>(request, std::move(done));
  transfer->body = BodyOf(request, options_);
  transfer->easy.reset(curl_easy_init());
  CURL* easy = transfer->easy.get();
  SetCommon(easy, url_ + PathOf(request), options_, options_.timeout_s);
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers_.get());
  curl_easy_setopt(easy, CURLOPT_POSTFIELDS, transfer->body.data());
  curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                   static_cast<curl_off_t>(transfer->body.size()));
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, OnBytes);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer.get());
  curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer.get());
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting_.push_back(std::move(transfer));
  }
  curl_multi_wakeup(multi_);
}

void HttpTarget::StartWaiting() {
  std::vector<std::unique_ptr<Transfer>> ready;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ready.swap(waiting_);
  }
  for (std::unique_ptr<Transfer>& transfer : ready) {
    transfer->record.sent = Clock::now();
    // Owned by the multi handle's list of transfers until FinishDone takes it back.
    curl_multi_add_handle(multi_, transfer.release()->easy.get());
  }
}

void HttpTarget::FinishDone() {
  int left = 0;
  while (CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    const CURLcode code = message->data.result;
    char* user = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &user);
    const std::unique_ptr<Transfer> transfer(reinterpret_cast<Transfer*>(user));
    Judge(*transfer, code);
    curl_multi_remove_handle(multi_, transfer->easy.get());
    transfer->done(std::move(transfer->record));
  }
}

void HttpTarget::Loop() {
  while (!stop_) {
    StartWaiting();
    int running = 0;
    curl_multi_perform(multi_, &running);
    FinishDone();
    bool idle;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      idle = waiting_.empty();
    }
    if (idle) curl_multi_poll(multi_, nullptr, 0, kPollMs, nullptr);
  }
}

absl::StatusOr<Json> HttpTarget::Get(const std::string& path) const {
  const EasyHandle easy(curl_easy_init());
  SetCommon(easy.get(), url_ + path, options_, kDescribeTimeoutS);
  curl_easy_setopt(easy.get(), CURLOPT_HTTPHEADER, headers_.get());
  std::string body;
  curl_easy_setopt(easy.get(), CURLOPT_WRITEDATA, &body);
  const auto append = [](char* data, size_t, size_t size, void* user) -> size_t {
    auto& text = *static_cast<std::string*>(user);
    if (text.size() + size > kMaxDescription) return 0;
    text.append(data, size);
    return size;
  };
  curl_easy_setopt(easy.get(), CURLOPT_WRITEFUNCTION,
                   static_cast<size_t (*)(char*, size_t, size_t, void*)>(append));
  if (const CURLcode code = curl_easy_perform(easy.get()); code != CURLE_OK)
    return absl::UnavailableError(absl::StrCat(url_, path, ": ", curl_easy_strerror(code)));
  long status = 0;
  curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &status);
  if (status != 200) {
    return absl::FailedPreconditionError(
        absl::StrCat(url_, path, ": HTTP status ", status, ": ", ErrorMessage(body)));
  }
  absl::StatusOr<Json> json = ParseJson(body);
  if (json.ok()) return json;
  return absl::FailedPreconditionError(absl::StrCat(url_, path, ": ", json.status().message()));
}

absl::StatusOr<Json> HttpTarget::Describe() {
  absl::StatusOr<Json> models = Get("/v1/models");
  if (!models.ok()) return models.status();
  if (options_.model.empty()) {
    const auto data = models->is_object() ? models->find("data") : models->end();
    if (!models->is_object() || data == models->end() || !data->is_array() || data->empty() ||
        !data->front().is_object() || !data->front().value("id", Json()).is_string()) {
      return absl::FailedPreconditionError(
          absl::StrCat(url_, "/v1/models names no model; give --model"));
    }
    options_.model = data->front()["id"].get<std::string>();
  }
  Json out = {{"protocol", "http"}, {"url", url_}, {"model", options_.model}, {"models", *models}};
  // What else servers tell about themselves: ours and vLLM's version, our configuration,
  // llama.cpp's.
  for (const char* name : {"version", "config", "props"}) {
    if (const absl::StatusOr<Json> answer = Get(absl::StrCat("/", name)); answer.ok())
      out[name] = *answer;
  }
  return out;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Target>> MakeHttpTarget(std::string url, TargetOptions options) {
  if (!absl::StartsWith(url, "http://") && !absl::StartsWith(url, "https://")) {
    return absl::InvalidArgumentError(
        absl::StrCat("--http '", url, "' is not a URL such as http://127.0.0.1:8000"));
  }
  absl::string_view base = url;
  while (absl::ConsumeSuffix(&base, "/")) {
  }
  absl::ConsumeSuffix(&base, "/v1");
  curl_global_init(CURL_GLOBAL_DEFAULT);
  return std::make_unique<HttpTarget>(std::string(base), std::move(options));
}

}  // namespace fairlead::serve_bench

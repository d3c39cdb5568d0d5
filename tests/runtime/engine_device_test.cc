// SPDX-License-Identifier: Apache-2.0
// The engine with real (tiny) decoders, one on every device at hand, others of other families: a
// request gives the same tokens and the same bits of logprobs alone, in a batch, in chunks, after a
// prefix hit, after a preemption, with drafts verified, and with one thread or two. The guarded
// device shows that the engine never looks into device memory and never moves host memory under a
// copy.
#include <atomic>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <tuple>

#include "absl/strings/str_replace.h"
#include "gtest/gtest.h"
#include "models/model.h"
#include "models/weights.h"
#include "runtime/engine.h"
#include "tests/guarded_device.h"
#include "tests/reference/reference_device.h"
#include "tests/runtime/collecting_sink.h"
#include "tests/sanitized.h"

namespace fairlead {
namespace {

constexpr int kSlowRequests = 12;
constexpr int kRequests = kSanitized ? 16 : 32;
constexpr int kMaxModelLen = 160;
constexpr int kBlockTokens = 16;

std::unique_ptr<Device> Cpu(int threads, const char* name = "cpu") {
  auto device = OpenDevice(name, {.threads = threads, .numerics = Numerics::kPrecise});
  EXPECT_TRUE(device.ok()) << device.status();
  return *std::move(device);
}

struct DeviceCase {
  std::string name;
  std::function<std::unique_ptr<Device>()> make;
  int requests = kRequests;
  std::string checkpoint = "llama-gqa";
  bool drafts = true;  // verified, too
};

void PrintTo(const DeviceCase& device_case, std::ostream* out) {
  *out << device_case.checkpoint << " on " << device_case.name;
}

// Beside that one: windows smaller than a KV block, experts, windows on some layers with a RoPE of
// their own, and all that with sinks.
constexpr const char* kFamilies[] = {"mistral-window8", "qwen3-moe", "gemma3-7layers",
                                     "gpt-oss-3layers"};

std::vector<DeviceCase> DeviceCases() {
  std::vector<DeviceCase> cases = {
      {"Reference", [] { return reference::MakeReferenceDevice(); }},
      {"Cpu1", [] { return Cpu(1); }},
      {"Cpu2", [] { return Cpu(2); }},
      {"GuardedCpu2", [] { return MakeGuardedDevice(Cpu(2)); }},
  };
  // ThreadSanitizer wants a context of its own for each start of a fiber, which is slow; the
  // executor's own checks of races are in tests/gpu.
#if !defined(__SANITIZE_THREAD__)
  cases.push_back({"HostSimt32", [] { return Cpu(0, "host-simt:32"); }, kSlowRequests});
  cases.push_back({"HostSimt64", [] { return Cpu(0, "host-simt:64"); }, kSlowRequests});
#endif
  return cases;
}

// On one of each kind of device; drafts, which no kernel knows of, on the fast one.
std::vector<DeviceCase> FamilyCases() {
  std::vector<DeviceCase> cases;
  for (const char* family : kFamilies) {
    for (DeviceCase& each : DeviceCases()) {
      if (each.name != "Cpu2" && each.name != "HostSimt32") continue;
      each.checkpoint = family;
      each.drafts = each.name == "Cpu2";
      cases.push_back(std::move(each));
    }
  }
  return cases;
}

std::string CaseName(const testing::TestParamInfo<DeviceCase>& info) {
  return absl::StrReplaceAll(info.param.checkpoint + "_" + info.param.name, {{"-", "_"}});
}

struct Answer {
  std::vector<CollectedOutput> outputs, prompt;
  FinishReason reason;
  bool operator==(const Answer&) const = default;
};

// A device with the model, and what all requests answer under some options.
class LoadedDevice {
 public:
  explicit LoadedDevice(const DeviceCase& device_case)
      : device_(device_case.make()),
        num_requests_(device_case.requests),
        preempts_with_drafts_(device_case.checkpoint == DeviceCase().checkpoint) {
    const auto source =
        OpenWeights(std::string(FAIRLEAD_GOLDEN_DIR) + "/models/" + device_case.checkpoint);
    EXPECT_TRUE(source.ok()) << source.status();
    auto model = LoadModel(**source, *device_, kMaxModelLen);
    EXPECT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }

  std::vector<EngineRequest> Requests() const {
    std::mt19937 random(3);
    const auto draw = [&random](int n) {
      return static_cast<int>(random() % static_cast<uint32_t>(n));
    };
    std::vector<EngineRequest> requests;
    for (int i = 0; i < num_requests_; ++i) {
      EngineRequest request;
      const int family = draw(4), length = 1 + draw(70);
      for (int t = 0; t < length; ++t)
        request.prompt.push_back((family * 97 + t * t) % model_->config().vocab);
      request.max_tokens = draw(30);
      request.sampling.temperature = i % 2 == 0 ? 0.0f : 0.8f;
      request.sampling.top_p = i % 3 == 0 ? 0.9f : 1.0f;
      request.sampling.seed = random();
      if (i % 4 == 0) request.sampling.repetition_penalty = 1.2f;
      // Few tokens to choose from: the output repeats itself, and drafts are often right.
      if (i % 5 < 2) request.sampling.logit_bias = {{1, 100.0f}, {2, 100.0f}};
      request.logprobs = 2;
      if (i % 8 == 7) request.prompt_logprobs = 1;
      requests.push_back(request);
    }
    return requests;
  }

  // Whose steps need not wait for the tokens of the one before.
  std::vector<EngineRequest> PlainRequests() const {
    std::vector<EngineRequest> requests;
    // 9 rows have no graph of their own; the last needs a second split of keys and a larger block
    // table while it decodes.
    for (int i = 0; i < 10; ++i) {
      EngineRequest request;
      for (int t = 0; t < (i == 9 ? 122 : 1 + 3 * i); ++t)
        request.prompt.push_back((i % 3 * 31 + t * t) % model_->config().vocab);
      request.max_tokens = 9 + i % 4;
      request.sampling.temperature = i % 2 == 0 ? 0.0f : 0.8f;
      request.sampling.seed = 100 + i;
      request.logprobs = i % 3 - 1;
      requests.push_back(request);
    }
    return requests;
  }
  bool preempts_with_drafts() const { return preempts_with_drafts_; }
  bool asynchronous() const { return device_->info().asynchronous; }

  // concurrent: all at once, else one after the other.
  std::vector<Answer> Run(SchedulerLimits limits, int num_blocks, bool prefix_cache,
                          bool concurrent, EngineStats* stats = nullptr) {
    return Run(Requests(), limits, num_blocks, prefix_cache, concurrent, stats);
  }
  std::vector<Answer> Run(std::vector<EngineRequest> requests, SchedulerLimits limits,
                          int num_blocks, bool prefix_cache, bool concurrent,
                          EngineStats* stats = nullptr, bool graphs_and_ahead = true) {
    const ModelConfig& config = model_->config();
    const KvShape shape = {
        .kv_heads = config.kv_heads, .head_dim = config.head_dim, .block_tokens = kBlockTokens};
    EngineOptions options;
    options.scheduler = limits;
    options.kv_cache_bytes =
        device_->KvBlockBytes(shape) * static_cast<size_t>(config.layers * num_blocks);
    options.max_model_len = kMaxModelLen;
    options.block_tokens = kBlockTokens;
    options.prefix_cache = prefix_cache;
    options.graphs = options.async_scheduling = graphs_and_ahead;
    // Every step takes a tick or two, so drafting pays. The engine's thread, which asks at the
    // start of a step, waits until all requests are there, so that they do meet.
    const auto ticks = std::make_shared<std::atomic<int64_t>>(0);
    const auto all_there = std::make_shared<std::atomic<bool>>(!concurrent);
    options.clock = [ticks, all_there, submitter = std::this_thread::get_id()] {
      if (std::this_thread::get_id() != submitter) all_there->wait(false);
      return absl::FromUnixMillis(++*ticks);
    };
    auto engine = Engine::Create(*device_, *model_, options);
    EXPECT_TRUE(engine.ok()) << engine.status();
    std::vector<std::shared_ptr<CollectingSink>> sinks;
    for (EngineRequest& request : requests) {
      sinks.push_back(std::make_shared<CollectingSink>());
      EXPECT_TRUE((*engine)->Submit(std::move(request), sinks.back()).ok());
      if (!concurrent) sinks.back()->WaitForClose();
    }
    *all_there = true;
    all_there->notify_all();
    std::vector<Answer> answers;
    for (const auto& sink : sinks) {
      const FinishReason reason = sink->WaitForClose().reason;
      answers.push_back({sink->outputs(), sink->prompt(), reason});
    }
    if (stats != nullptr) *stats = (*engine)->stats();
    EXPECT_EQ((*engine)->stats().kv_blocks_used, 0);
    return answers;
  }

  std::vector<Answer> Alone() {
    return Run({.max_batched_tokens = 256, .max_num_seqs = 1}, 32, false, false);
  }

 private:
  std::unique_ptr<Device> device_;
  const int num_requests_;
  const bool preempts_with_drafts_;
  std::unique_ptr<Model> model_;
};

void ExpectSame(const std::vector<Answer>& answers, const std::vector<Answer>& expected) {
  ASSERT_EQ(answers.size(), expected.size());
  for (size_t i = 0; i < answers.size(); ++i)
    EXPECT_TRUE(answers[i] == expected[i]) << "request " << i;
}

// Drafts, verified in the batch or alone, change nothing either.
void ExpectSameWithDrafts(LoadedDevice& device, const std::vector<Answer>& alone) {
  for (const auto& [limits, num_blocks, concurrent] :
       {std::tuple(SchedulerLimits{256, 1, 8}, 32, false),
        std::tuple(SchedulerLimits{512, 8, 8}, 512, true),
        std::tuple(SchedulerLimits{7, 2, 3}, 512, true),
        std::tuple(SchedulerLimits{64, 16, 8}, 10, true)}) {
    SCOPED_TRACE(testing::Message()
                 << limits.max_batched_tokens << " tokens a step, " << num_blocks << " KV blocks");
    EngineStats stats;
    ExpectSame(device.Run(limits, num_blocks, true, concurrent, &stats), alone);
    EXPECT_GT(stats.accepted_draft_tokens, 20);
    EXPECT_GT(stats.draft_tokens, stats.accepted_draft_tokens);
    EXPECT_GT(stats.prefix_hit_tokens, 0);
    // Which requests meet in a small cache depends on the drafts that are right, so on the weights.
    if (num_blocks > 10) {
      EXPECT_EQ(stats.preemptions, 0);
    } else if (device.preempts_with_drafts()) {
      EXPECT_GT(stats.preemptions, 0);
    }
  }
}

// Graphs, and steps begun before the one before has ended, change nothing either.
void ExpectSameAhead(LoadedDevice& device) {
  EngineStats stats;
  const std::vector<Answer> alone =
      device.Run(device.PlainRequests(), {256, 1}, 32, false, false, &stats, false);
  EXPECT_EQ(stats.graph_steps + stats.ahead_steps, 0);
  for (const auto& [limits, num_blocks] :
       {std::pair(SchedulerLimits{512, 16}, 200), std::pair(SchedulerLimits{16, 16}, 16)}) {
    ExpectSame(device.Run(device.PlainRequests(), limits, num_blocks, true, true, &stats), alone);
    EXPECT_EQ(stats.graph_steps > 0, device.asynchronous());
    EXPECT_EQ(stats.ahead_steps > 0, device.asynchronous());
  }
}

class EngineDeviceTest : public ::testing::TestWithParam<DeviceCase> {};

INSTANTIATE_TEST_SUITE_P(Devices, EngineDeviceTest, ::testing::ValuesIn(DeviceCases()), CaseName);
INSTANTIATE_TEST_SUITE_P(Families, EngineDeviceTest, ::testing::ValuesIn(FamilyCases()), CaseName);

TEST_P(EngineDeviceTest, TheAnswerDependsOnTheRequestAlone) {
  LoadedDevice device(GetParam());
  const std::vector<Answer> alone = device.Alone();
  for (const Answer& answer : alone) EXPECT_EQ(answer.reason, FinishReason::kLength);
  EngineStats stats;
  ExpectSame(device.Run({.max_batched_tokens = 512, .max_num_seqs = 32}, 512, false, true), alone);
  ExpectSame(device.Run({.max_batched_tokens = 7, .max_num_seqs = 32}, 512, true, true), alone);
  ExpectSame(device.Run({.max_batched_tokens = 512, .max_num_seqs = 4}, 512, true, true, &stats),
             alone);
  EXPECT_GT(stats.prefix_hit_tokens, 0);
  ExpectSame(device.Run({.max_batched_tokens = 64, .max_num_seqs = 16}, 10, true, true, &stats),
             alone);
  EXPECT_GT(stats.preemptions, 0);
  if (GetParam().drafts) ExpectSameWithDrafts(device, alone);
  ExpectSameAhead(device);
}

TEST(EngineDevicesTest, ThreadsAndTheKindOfStreamDoNotCount) {
  std::vector<std::string> checkpoints = {"llama-gqa"};
  checkpoints.insert(checkpoints.end(), std::begin(kFamilies), std::end(kFamilies));
  for (const std::string& checkpoint : checkpoints) {
    SCOPED_TRACE(checkpoint);
    std::vector<DeviceCase> cases = DeviceCases();
    for (DeviceCase& each : cases) each.checkpoint = checkpoint;
    const std::vector<Answer> expected = LoadedDevice(cases[1]).Alone();
    ExpectSame(LoadedDevice(cases[2]).Alone(), expected);
    ExpectSame(LoadedDevice(cases[3]).Alone(), expected);
  }
}

}  // namespace
}  // namespace fairlead

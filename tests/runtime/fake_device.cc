// SPDX-License-Identifier: Apache-2.0
#include "tests/runtime/fake_device.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "tests/reference/reference_sampling.h"

namespace fairlead {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class UnusedOps : public Ops {
 public:
#define FAIRLEAD_UNUSED_OP(name) \
  void name(Stream&, const name##Args&) const override { Unused(); }
  FAIRLEAD_OPS(FAIRLEAD_UNUSED_OP)
#undef FAIRLEAD_UNUSED_OP

 private:
  [[noreturn]] static void Unused() {
    FAIRLEAD_CHECK(false && "FakeModel computes without ops");
    std::abort();
  }
};

class FakeOps final : public UnusedOps {
 public:
  explicit FakeOps(SampleObserver observe) : observe_(std::move(observe)) {}

  void SelectTokens(Stream& stream, const SelectTokensArgs& args) const override {
    static_cast<FakeStream&>(stream).Run([args] {
      for (int64_t t = 0; t < args.token.dim[0]; ++t) {
        const int32_t source = args.source.As<int32_t>()[t];
        args.out.As<int32_t>()[t] = source < 0 ? args.token.As<int32_t>()[t]
                                               : std::max(args.drawn.As<int32_t>()[source], 0);
      }
    });
  }

  void Sample(Stream& stream, const SampleArgs& args) const override {
    static_cast<FakeStream&>(stream).Run([this, args] {
      if (observe_) observe_(args);
      for (int64_t r = 0; r < args.logits.dim[0]; ++r) args.out.As<int32_t>()[r] = Draw(args, r);
    });
  }

  void Logprobs(Stream& stream, const LogprobsArgs& args) const override {
    static_cast<FakeStream&>(stream).Run([args] {
      for (int64_t r = 0; r < args.logits.dim[0]; ++r) Score(args, r);
    });
  }

 private:
  static float Edited(const SampleArgs& args, int64_t row, int32_t token) {
    if (!reference::Allows(args, row, token)) return -kInfinity;
    float l = args.logits.As<float>()[row * args.logits.dim[1] + token];
    if (!args.edits.start) return l;
    const int32_t* start = args.edits.start.As<int32_t>();
    for (int32_t e = start[row]; e < start[row + 1]; ++e) {
      if (args.edits.token.As<int32_t>()[e] != token) continue;
      const float repetition = args.edits.repetition.As<float>()[e];
      l = (l > 0 ? l / repetition : l * repetition) + args.edits.add.As<float>()[e];
    }
    return l;
  }

  static int32_t Draw(const SampleArgs& args, int64_t row) {
    if (args.temperature.As<float>()[row] > 0) {
      return reference::SampleRow(reference::ReadSamplingRow(args, row));
    }
    int32_t best = -1;
    float best_logit = -kInfinity;
    for (int32_t v = 0; v < args.logits.dim[1]; ++v) {
      const float l = Edited(args, row, v);
      if (std::isnan(l) || l == kInfinity) return -1;
      if (l > best_logit) best = v, best_logit = l;
    }
    return best;
  }

  // True when token a comes before token b in the order of logprobs.
  static bool Above(const float* logits, int32_t a, int32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  }

  static void Score(const LogprobsArgs& args, int64_t row) {
    const int32_t vocab = static_cast<int32_t>(args.logits.dim[1]);
    const float* logits = args.logits.As<float>() + row * vocab;
    double sum = 0;
    for (int32_t v = 0; v < vocab; ++v) sum += std::exp(static_cast<double>(logits[v]));
    const double log_sum = std::log(sum);
    const int32_t target = args.target.As<int32_t>()[row];
    const bool valid = target >= 0 && target < vocab;
    int32_t rank = valid ? 1 : 0;
    for (int32_t v = 0; valid && v < vocab; ++v) rank += Above(logits, v, target);
    args.out_logprob.As<float>()[row] = valid ? static_cast<float>(logits[target] - log_sum) : 0;
    args.out_rank.As<int32_t>()[row] = rank;
    const int64_t n = args.top_token ? args.top_token.dim[1] : 0;
    int32_t last = -1;
    for (int64_t i = 0; i < n; ++i) {
      int32_t best = -1;
      for (int32_t v = 0; v < vocab; ++v) {
        const bool left = last < 0 || Above(logits, last, v);
        if (left && (best < 0 || Above(logits, v, best))) best = v;
      }
      last = best < 0 ? 0 : best;
      args.top_token.As<int32_t>()[row * n + i] = last;
      args.top_logprob.As<float>()[row * n + i] = static_cast<float>(logits[last] - log_sum);
    }
  }

  const SampleObserver observe_;
};

}  // namespace

void FakeStream::CopyToDevice(void* device, const void* host, size_t bytes) {
  FAIRLEAD_CHECK(recorded_ == nullptr);
  Run([=] { std::memcpy(device, host, bytes); });
}

void FakeStream::CopyToHost(void* host, const void* device, size_t bytes) {
  FAIRLEAD_CHECK(recorded_ == nullptr);
  Run([=] { std::memcpy(host, device, bytes); });
}

void FakeStream::RunUntil(size_t end) {
  for (size_t i = 0; i < end; ++i) queue_[i]();
  queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(end));
}

void FakeStream::Wait() {
  FAIRLEAD_CHECK(recorded_ == nullptr);
  RunUntil(queue_.size());
  passed_ += static_cast<int64_t>(fences_.size());
  fences_.clear();
}

int64_t FakeStream::Fence() {
  FAIRLEAD_CHECK(recorded_ == nullptr);
  if (fences_.size() == 2) WaitFor(passed_);
  fences_.push_back(queue_.size());
  return passed_ + static_cast<int64_t>(fences_.size()) - 1;
}

void FakeStream::WaitFor(int64_t fence) {
  while (passed_ <= fence) {
    const size_t done = fences_.front();
    RunUntil(done);
    fences_.erase(fences_.begin());
    for (size_t& later : fences_) later -= done;
    ++passed_;
  }
}

void FakeStream::BeginCapture() {
  FAIRLEAD_CHECK(recorded_ == nullptr);
  recorded_ = std::make_unique<FakeGraph>();
}

std::unique_ptr<Graph> FakeStream::EndCapture() {
  std::unique_ptr<FakeGraph> graph = std::move(recorded_);
  if (fail_captures_) return nullptr;
  return graph;
}

void FakeStream::Launch(const Graph& graph) {
  for (const auto& work : static_cast<const FakeGraph&>(graph).work) Run(work);
}

FakeDevice::FakeDevice(Options options)
    : options_(std::move(options)),
      free_bytes_(options_.memory_bytes),
      ops_(std::make_unique<FakeOps>(options_.observe_sample)) {
  info_.name = "fake";
  info_.memory_bytes = options_.memory_bytes;
  info_.graphs = info_.asynchronous = options_.asynchronous;
}

FakeDevice::~FakeDevice() { FAIRLEAD_CHECK(free_bytes_ == options_.memory_bytes); }

absl::StatusOr<Buffer> FakeDevice::Allocate(size_t bytes) {
  if (bytes > free_bytes_)
    return absl::ResourceExhaustedError(absl::StrCat(bytes, " bytes do not fit"));
  free_bytes_ -= bytes;
  const size_t rounded = (bytes + 63) / 64 * 64 + 64;
  void* const data = std::aligned_alloc(64, rounded);
  std::memset(data, 0, rounded);
  return Buffer(data, bytes, [this, bytes](void* p) {
    free_bytes_ += bytes;
    std::free(p);
  });
}

absl::StatusOr<std::unique_ptr<PackedWeight>> FakeDevice::PackWeight(const PackWeightArgs&) {
  return absl::UnimplementedError("the fake device has no weights");
}

std::unique_ptr<Stream> FakeDevice::NewStream() {
  return std::make_unique<FakeStream>(options_.late, options_.fail_captures);
}

}  // namespace fairlead

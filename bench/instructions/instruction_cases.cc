// SPDX-License-Identifier: Apache-2.0
// instruction_cases: fixed pieces of work for valgrind's callgrind, which counts the instructions
// inside MeasuredCase. Seconds depend on the neighbours, these counts on the code alone.
//   instruction_cases             the names
//   instruction_cases NAME...     runs each of these cases once after a warm-up
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "bench/ops/work.h"
#include "kernels/check.h"
#include "kernels/strings.h"
#include "models/json.h"
#include "models/tokenizer.h"
#include "server/openai_request.h"

// Outside every namespace, so that callgrind's --toggle-collect finds it by this name.
extern "C" __attribute__((noinline)) void MeasuredCase(const std::function<void()>& work) {
  work();
  asm volatile("");  // nothing may be moved behind the call
}

namespace fairlead::bench {
namespace {

// One thread: the caller does all the work, and counts repeat.
Device& OneThread() {
  static const std::unique_ptr<Device> device = *OpenDevice("cpu", {.threads = 1});
  return *device;
}

std::function<void()> OpCaseOf(const std::function<void(Work&)>& set_up) {
  auto work = std::make_shared<Work>(OneThread());
  work->max_copies = 1;
  set_up(*work);
  return [work] { work->launch(); };
}

// About 2 KB of prose, code and numbers.
std::string SampleText() {
  std::string text;
  for (int i = 0; i < 20; ++i) {
    StrAppend(&text, "The quick brown fox jumps over the lazy dog, and the ", i,
              " others watch it. if (x[", i, "] > 0.5) { return f(x, y); }\n");
  }
  return text;
}

std::function<void()> EncodeCase() {
  auto tokenizer = LoadTokenizerFromPath(std::string(FAIRLEAD_GOLDEN_DIR) +
                                         "/tokenizers/bpe-smollm/tokenizer.json");
  FAIRLEAD_CHECK(tokenizer.ok());
  const std::shared_ptr<Tokenizer> shared = *std::move(tokenizer);
  return [shared, text = SampleText()] { FAIRLEAD_CHECK(!shared->Encode(text).empty()); };
}

std::function<void()> RequestCase() {
  const Json body = {{"model", "m"},
                     {"messages",
                      {{{"role", "system"}, {"content", "Answer briefly."}},
                       {{"role", "user"}, {"content", SampleText()}}}},
                     {"temperature", 0.7},
                     {"top_p", 0.9},
                     {"max_tokens", 128},
                     {"stop", {"\n\n", "###"}},
                     {"stream", true},
                     {"stream_options", {{"include_usage", true}}}};
  return [text = body.dump()] {
    const auto json = ParseJson(text);
    FAIRLEAD_CHECK(json.ok());
    FAIRLEAD_CHECK(ParseChatRequest(*json).ok());
  };
}

using Make = std::function<std::function<void()>()>;

std::map<std::string, Make> AllCases() {
  const ModelShape& shape = kModelShapes[0];
  std::map<std::string, Make> cases;
  for (const DType dtype : OneThread().info().weight_dtypes) {
    // Four blocks of 256, the largest block of a weight type.
    constexpr int kRows = 1024, kColumns = 1024;
    for (const int tokens : {1, 32}) {
      cases[StrCat("matmul_", Info(dtype).name, "_m", tokens)] = [=] {
        return OpCaseOf([=](Work& work) { SetUpMatmul(work, dtype, kRows, kColumns, tokens); });
      };
    }
  }
  cases["attention_decode_512"] = [&shape] {
    return OpCaseOf([&](Work& work) { SetUpAttention(work, shape, 1, 1, 512); });
  };
  cases["sample_greedy"] = [&shape] {
    return OpCaseOf([&](Work& work) { SetUpSample(work, shape, 1, 0); });
  };
  cases["sample_top_k_top_p"] = [&shape] {
    return OpCaseOf([&](Work& work) { SetUpSample(work, shape, 1, 0.8f); });
  };
  cases["tokenizer_encode"] = EncodeCase;
  cases["request_from_json"] = RequestCase;
  return cases;
}

}  // namespace
}  // namespace fairlead::bench

int main(int argc, char** argv) {
  const auto cases = fairlead::bench::AllCases();
  if (argc < 2) {
    for (const auto& [name, make] : cases) std::puts(name.c_str());
    return 0;
  }
  for (const char* name : std::span(argv + 1, argv + argc)) {
    const auto found = cases.find(name);
    if (found == cases.end()) {
      std::fprintf(stderr, "error: there is no case '%s'; without one, the names are listed\n",
                   name);
      return 2;
    }
    const std::function<void()> work = found->second();
    work();
    MeasuredCase(work);
  }
  return 0;
}

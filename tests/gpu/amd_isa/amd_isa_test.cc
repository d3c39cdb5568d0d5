// SPDX-License-Identifier: Apache-2.0
// The instructions that hipcc emitted: libfairlead_hip.so as it is shipped, on a runtime
// (hip_runtime.cc) that gives its kernels to an emulator, on op cases of the list that all backends
// run. The GPU's architecture is FAIRLEAD_TEST_HIP_ARCHITECTURE. Prints how often each kernel ran.
#include <cxxabi.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <regex>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "tests/kernels/op_cases.h"
#include "tests/reference/reference_device.h"

extern "C" std::string* FairleadHipLaunches();
extern "C" std::string* FairleadHipFailures();

namespace fairlead {
namespace {

// Small ones, odd sizes among them, that reach every kernel: an emulated GPU runs some 10^5 threads
// a second.
constexpr const char* kChosen =
    "Embed_.*_t(1_v1|3_v5|2_v33)_.*|"
    "RmsNorm_t3_h(1|33|65|576)|RmsNorm_t(5_h65_in_place|17_h48)|RmsNorm_t3_h(17|576)_accumulate|"
    "ActivateAndMul_.*_t3_f(1|33|257)|GatherRows_t(1_r1_h1|20_r17_h24|9_r5_h(63|576))|"
    "Pool_(h(17|257)|empty|nan)_.*|"
    "Matmul_.*_t(1|2|3|5|17)_n35_k(96|768)|Matmul_.*_t(1|18)_n19_k(33|257|1056)|"
    "Matmul_.*_t4_n33_k(96|768)_bias_accumulate_columns5_3|"
    "Route_t(3_e(33|257)_s2|2_e60_s31)(_normalize)?|Route_t9_e100_s3_unusable|"
    "GroupedMatmul_.*_t(1_s8_e16_n33|17_s2_e5_n19)_.*|GroupedMatmul_.*_t17_s2_e10_n21_.*|"
    "CombineExperts_t3_s2_h257(_accumulate)?|CombineExperts_t2_s8_h33|"
    "RopeAndWriteKv_t5_h3_kv1_d(20|64)_r.*|RopeAndWriteKv_t17_h4_kv2_d32_.*|"
    "Attention_(decode(17|257)|prefill(15|33)|d20_.*|group9|poison|no_queries|norm_d20_.*)|"
    "Sample_(greedy_v65|all_r15|tied_greedy_v17|greedy_edits17|unusable_v17|masked_greedy_v300)|"
    "Sample_grammar_(greedy_v33|edits_v65)|SelectTokens_t(1|33|257)(_in_place)?|"
    "RmsNorm_t3_h33_slice|Scale_h(1|257)(_capped)?|Scale_both|Embed_(f32|q4_k)_.*_accumulate|"
    "LayerNorm_t3_h(1|33|65|384)|LayerNorm_t3_h33_plain|LayerNorm_t5_h33_in_place|"
    "ActivateAndMul_.*_f(33|257)_alone|Attention_bidirectional_(t9|t49|poison)|"
    "Route_.*_sigmoid_(bias_groups|groups8|groups32)|Route_.*_softmax_(scale|bias|groups3)|"
    "Logprobs_(r1|v65_n5|v257_n1|masked)";

// An output of many blocks, for which there is a matmul of its own; the list's are smaller.
constexpr const char* kWide = "WideMatmul";
void BuildWideMatmul(CaseRun& run, DType dtype) {
  constexpr int kTokens = 65, kRows = 12290;
  const int k = std::max(32, Info(dtype).block_elements);
  const std::vector<float> x = run.Rounded(run.random().Normals(int64_t{kTokens} * k));
  // The products' errors together, and a single one's: no element of a weight is larger than 16.
  FloatBound bound = {{}, MatmulNmse(run.info().numerics)};
  for (int t = 0; t < kTokens; ++t) {
    double sum = 0;
    for (int i = 0; i < k; ++i) sum += std::fabs(x[t * k + i]);
    bound.max_error.insert(bound.max_error.end(), kRows,
                           16 * sum * MatmulRounding(run.info().numerics));
  }
  const MatmulArgs args = {
      .x = run.Activations(x, {kTokens, k}),
      .weight =
          run.Weight(dtype, k, {RandomWeights(run.random(), dtype, int64_t{kRows} * k, 0.5f)}),
      .out = run.OutputActivations("out", {kTokens, kRows}, bound)};
  run.Launch([args](const Ops& ops, Stream& stream) { ops.Matmul(stream, args); });
}

// The same for experts.
void BuildWideGroupedMatmul(CaseRun& run, DType dtype) {
  constexpr int kTokens = 70, kExperts = 2, kRows = 6146;
  const int k = std::max(32, Info(dtype).block_elements);
  const std::vector<float> x = run.Rounded(run.random().Normals(int64_t{kTokens} * k));
  std::vector<int32_t> expert;
  FloatBound bound = {{}, MatmulNmse(run.info().numerics)};
  for (int t = 0; t < kTokens; ++t) {
    expert.push_back(run.random().Int(0, kExperts - 1));
    double sum = 0;
    for (int i = 0; i < k; ++i) sum += std::fabs(x[t * k + i]);
    bound.max_error.insert(bound.max_error.end(), kRows,
                           16 * sum * MatmulRounding(run.info().numerics));
  }
  const GroupedMatmulArgs args = {
      .x = run.Activations(x, {kTokens, k}),
      .expert = run.Ints(expert, {kTokens, 1}),
      .weight = run.Weight(
          dtype, k, {RandomWeights(run.random(), dtype, int64_t{kExperts} * kRows * k, 0.5f)},
          false, kExperts),
      .out = run.OutputActivations("out", {kTokens, kRows}, bound)};
  run.Launch([args](const Ops& ops, Stream& stream) { ops.GroupedMatmul(stream, args); });
}

const std::vector<OpCase>& Cases() {
  static const auto* const cases = [] {
    auto* chosen = new std::vector<OpCase>;
    for (OpCase& c : AllOpCases()) {
      if (std::regex_match(c.name, std::regex(kChosen))) chosen->push_back(std::move(c));
    }
    for (const DType d : {DType::kF16, DType::kBF16, DType::kQ4_0, DType::kQ8_0, DType::kQ6_K}) {
      chosen->push_back({kWide, std::string(kWide) + "_" + std::string(Info(d).name), d,
                         [d](CaseRun& run) { BuildWideMatmul(run, d); }});
    }
    for (const DType d : {DType::kBF16, DType::kQ4_K}) {
      chosen->push_back({kWide, std::string(kWide) + "_experts_" + std::string(Info(d).name), d,
                         [d](CaseRun& run) { BuildWideGroupedMatmul(run, d); }});
    }
    return chosen;
  }();
  return *cases;
}

// Launches by kernel, and the cases in which it was launched; of all kernels that the library has.
struct Count {
  int launches = 0, cases = 0;
};
std::map<std::string, Count>& Counts() {
  static auto* const counts = new std::map<std::string, Count>;
  return *counts;
}

// "MatmulFew<fairlead::...>" of the mangled name.
std::string KernelName(const std::string& mangled) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status), &std::free);
  std::string name = status == 0 ? text.get() : mangled;
  name = std::regex_replace(
      name, std::regex("fairlead::|gpu_hip[0-9]+::|\\(anonymous namespace\\)::|^void "), "");
  return name.substr(0, name.find('('));
}

struct Setup {
  Numerics numerics = Numerics::kFloat32;
  std::optional<DType> kv_dtype;  // of the cache; none: the numerics'
  auto operator<=>(const Setup&) const = default;
};
Device& HipDevice(const Setup& setup);

void CountLaunches() {
  std::istringstream lines(*FairleadHipLaunches());
  int launches;
  std::map<std::string, int> now;
  // The library has them for both sizes of warps.
  const bool wide = HipDevice({}).info().description.find(" gfx9") != std::string::npos;
  for (std::string name; lines >> launches >> name;) {
    if (name.find(wide ? "gpu_hip64" : "gpu_hip32") != std::string::npos) {
      now[KernelName(name)] += launches;
    }
  }
  for (const auto& [name, total] : now) {
    Count& count = Counts()[name];
    if (total > count.launches) ++count.cases;
    count.launches = total;
  }
}

Device& HipDevice(const Setup& setup) {
  static auto* const devices = new std::map<Setup, std::unique_ptr<Device>>;
  std::unique_ptr<Device>& device = (*devices)[setup];
  if (device == nullptr) {
    auto opened = OpenDevice("hip:0", {.numerics = setup.numerics, .kv_dtype = setup.kv_dtype});
    if (!opened.ok()) {
      ADD_FAILURE() << opened.status();
      std::abort();
    }
    device = *std::move(opened);
    std::cout << "device " << device->info().description << "; seed " << kCaseSeed << "\n";
  }
  return *device;
}

class AmdIsaTest : public testing::TestWithParam<std::tuple<Setup, size_t>> {};

TEST_P(AmdIsaTest, MatchesTheReference) {
  const auto [setup, index] = GetParam();
  const OpCase& op_case = Cases()[index];
  Device& device = HipDevice(setup);
  const auto reference = reference::MakeReferenceDevice({.kv_dtype = device.info().kv_dtype});
  const std::vector<std::string> all_wrong = CheckCase(op_case, device, *reference);
  const std::string not_run = *FairleadHipFailures();
  EXPECT_EQ(not_run, "") << "the emulator could not run this";
  for (const std::string& wrong : not_run.empty() ? all_wrong : std::vector<std::string>()) {
    ADD_FAILURE() << op_case.name << " (seed " << SeedOf(op_case) << "): " << wrong;
  }
  CountLaunches();
}

// What the numerics change: the cache's dtype, and matmul, which is by matrix cores then.
std::vector<size_t> CasesOf(Numerics numerics) {
  std::vector<size_t> list;
  for (size_t i = 0; i < Cases().size(); ++i) {
    const std::string& op = Cases()[i].op;
    const bool changes = op == "Attention" || op == "RopeAndWriteKv" || op == "Matmul" ||
                         op == "GroupedMatmul" || op == kWide;
    if (numerics == Numerics::kFloat32 ? op != kWide : changes) list.push_back(i);
  }
  return list;
}

std::vector<size_t> CasesOfCaches() {
  std::vector<size_t> list;
  const std::regex names(
      "RopeAndWriteKv_t(5_h3_kv1_d64|17_h4_kv2_d32)_.*|Attention_(decode17|prefill(15|33))");
  for (size_t i = 0; i < Cases().size(); ++i) {
    if (std::regex_match(Cases()[i].name, names)) list.push_back(i);
  }
  return list;
}

std::string CaseName(const testing::TestParamInfo<AmdIsaTest::ParamType>& info) {
  const Setup& setup = std::get<0>(info.param);
  std::string name(NumericsName(setup.numerics));
  if (setup.kv_dtype) name += "_" + std::string(Info(*setup.kv_dtype).name);
  return name + "_" + Cases()[std::get<1>(info.param)].name;
}

INSTANTIATE_TEST_SUITE_P(All, AmdIsaTest,
                         testing::Combine(testing::Values(Setup{}),
                                          testing::ValuesIn(CasesOf(Numerics::kFloat32))),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Precise, AmdIsaTest,
                         testing::Combine(testing::Values(Setup{Numerics::kPrecise, std::nullopt}),
                                          testing::ValuesIn(CasesOf(Numerics::kPrecise))),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Caches, AmdIsaTest,
                         testing::Combine(testing::Values(Setup{Numerics::kPrecise, DType::kBF16},
                                                          Setup{Numerics::kPrecise, DType::kQ8_0},
                                                          Setup{Numerics::kPrecise,
                                                                DType::kF8_E4M3}),
                                          testing::ValuesIn(CasesOfCaches())),
                         CaseName);

// After all others. Templates of one name count together.
class Coverage : public testing::Environment {
 public:
  void TearDown() override {
    std::map<std::string, int> cases;
    for (const auto& [name, count] : Counts()) {
      std::cout << count.cases << " cases, " << count.launches << " launches: " << name << "\n";
      cases[name.substr(0, name.find('<'))] += count.cases;
    }
    if (testing::GTEST_FLAG(filter) != "*") return;
    for (const auto& [name, count] : cases) EXPECT_GE(count, 3) << name;
    EXPECT_GE(cases.size(), 9u);
  }
};
const auto* const kCoverage = testing::AddGlobalTestEnvironment(new Coverage);

}  // namespace
}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// The op cases are a net; this test is about its holes. The reference device passes all of them,
// and a device that is wrong in one small way, which is every mistake below in turn, fails at least
// one.
#include "tests/kernels/op_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <deque>
#include <functional>
#include <iostream>
#include <memory>
#include <utility>
#include <vector>

#include "tests/reference/reference_device.h"
#include "tests/sanitized.h"

namespace fairlead {
namespace {

using reference::MakeReferenceDevice;

class RightOps : public Ops {
 public:
  explicit RightOps(const Ops& right) : right_(right) {}
#define FAIRLEAD_RIGHT_OP(name) \
  void name(Stream& s, const name##Args& a) const override { right_.name(s, a); }
  FAIRLEAD_OPS(FAIRLEAD_RIGHT_OP)
#undef FAIRLEAD_RIGHT_OP

 protected:
  const Ops& right_;
};

// The reference's ops with one change. Its memory is the host's and its streams run at once, so a
// mistake may also look at tensors and spoil results after the op.
class MistakenOps : public RightOps {
 public:
  using RightOps::RightOps;

  std::function<void(EmbedArgs&)> before_embed;
  std::function<void(RmsNormArgs&)> before_norm;
  std::function<void(LayerNormArgs&)> before_layer_norm;
  std::function<void(MatmulArgs&)> before_matmul;
  std::function<void(RopeAndWriteKvArgs&)> before_rope;
  std::function<void(AttentionArgs&)> before_attention;
  std::function<void(ActivateAndMulArgs&)> before_activate;
  std::function<void(GatherRowsArgs&)> before_gather;
  std::function<void(ScaleArgs&)> before_scale;
  std::function<void(SelectTokensArgs&)> before_select;
  std::function<void(PoolArgs&)> before_pool;
  std::function<void(RouteArgs&)> before_route;
  std::function<void(GroupedMatmulArgs&)> before_grouped;
  std::function<void(CombineExpertsArgs&)> before_combine;
  std::function<void(SampleArgs&)> before_sample;
  std::function<void(LogprobsArgs&)> before_logprobs;
  std::function<void(const Tensor&)> after;  // the output of every op

  void Embed(Stream& s, const EmbedArgs& a) const override {
    Run(a, before_embed, a.out, [&](const EmbedArgs& x) { right_.Embed(s, x); });
  }
  void RmsNorm(Stream& s, const RmsNormArgs& a) const override {
    Run(a, before_norm, a.out, [&](const RmsNormArgs& x) { right_.RmsNorm(s, x); });
  }
  void LayerNorm(Stream& s, const LayerNormArgs& a) const override {
    Run(a, before_layer_norm, a.out, [&](const LayerNormArgs& x) { right_.LayerNorm(s, x); });
  }
  void Matmul(Stream& s, const MatmulArgs& a) const override {
    Run(a, before_matmul, a.out, [&](const MatmulArgs& x) { right_.Matmul(s, x); });
  }
  void RopeAndWriteKv(Stream& s, const RopeAndWriteKvArgs& a) const override {
    Run(a, before_rope, a.qkv, [&](const RopeAndWriteKvArgs& x) { right_.RopeAndWriteKv(s, x); });
  }
  void Attention(Stream& s, const AttentionArgs& a) const override {
    Run(a, before_attention, a.out, [&](const AttentionArgs& x) { right_.Attention(s, x); });
  }
  void ActivateAndMul(Stream& s, const ActivateAndMulArgs& a) const override {
    Run(a, before_activate, a.out,
        [&](const ActivateAndMulArgs& x) { right_.ActivateAndMul(s, x); });
  }
  void GatherRows(Stream& s, const GatherRowsArgs& a) const override {
    Run(a, before_gather, a.out, [&](const GatherRowsArgs& x) { right_.GatherRows(s, x); });
  }
  void Scale(Stream& s, const ScaleArgs& a) const override {
    Run(a, before_scale, a.x, [&](const ScaleArgs& x) { right_.Scale(s, x); });
  }
  void SelectTokens(Stream& s, const SelectTokensArgs& a) const override {
    Run(a, before_select, a.out, [&](const SelectTokensArgs& x) { right_.SelectTokens(s, x); });
  }
  void Pool(Stream& s, const PoolArgs& a) const override {
    Run(a, before_pool, a.out, [&](const PoolArgs& x) { right_.Pool(s, x); });
  }
  void Route(Stream& s, const RouteArgs& a) const override {
    Run(a, before_route, a.expert, [&](const RouteArgs& x) { right_.Route(s, x); });
  }
  void GroupedMatmul(Stream& s, const GroupedMatmulArgs& a) const override {
    Run(a, before_grouped, a.out, [&](const GroupedMatmulArgs& x) { right_.GroupedMatmul(s, x); });
  }
  void CombineExperts(Stream& s, const CombineExpertsArgs& a) const override {
    Run(a, before_combine, a.out,
        [&](const CombineExpertsArgs& x) { right_.CombineExperts(s, x); });
  }
  void Sample(Stream& s, const SampleArgs& a) const override {
    Run(a, before_sample, a.out, [&](const SampleArgs& x) { right_.Sample(s, x); });
  }
  void Logprobs(Stream& s, const LogprobsArgs& a) const override {
    Run(a, before_logprobs, a.out_rank, [&](const LogprobsArgs& x) { right_.Logprobs(s, x); });
  }

 private:
  template <typename Args, typename Op>
  void Run(Args args, const std::function<void(Args&)>& before, const Tensor& out, Op op) const {
    if (before) before(args);
    op(args);
    if (after && out.elements() > 0) after(out);
  }
};

class MistakenDevice : public Device {
 public:
  MistakenDevice() : device_(MakeReferenceDevice()), mistakes(device_->ops()) {}

  const DeviceInfo& info() const override { return device_->info(); }
  size_t FreeMemory() const override { return device_->FreeMemory(); }
  absl::StatusOr<Buffer> Allocate(size_t bytes) override { return device_->Allocate(bytes); }
  size_t KvBlockBytes(const KvShape& shape) const override { return device_->KvBlockBytes(shape); }
  size_t PackedBytes(DType dtype, int64_t rows, int64_t cols, int groups) const override {
    return device_->PackedBytes(dtype, rows, cols, groups);
  }
  absl::StatusOr<std::unique_ptr<PackedWeight>> PackWeight(const PackWeightArgs& args) override {
    return device_->PackWeight(args);
  }
  std::unique_ptr<Stream> NewStream() override { return device_->NewStream(); }
  const Ops& ops() const override { return mistakes; }

 private:
  std::unique_ptr<Device> device_;

 public:
  MistakenOps mistakes;
};

// Points `t` at a copy of its data that a mistake may change without touching the caller's input.
Tensor& Copied(Tensor& t) {
  static auto* const copies = new std::deque<std::vector<std::byte>>;
  const auto* data = static_cast<const std::byte*>(t.data);
  copies->emplace_back(data, data + t.bytes());
  t.data = copies->back().data();
  return t;
}

using Mistake = std::function<void(MistakenOps&)>;

// Whether any case of `op` notices.
bool Noticed(const std::string& op, const Mistake& make_mistake) {
  MistakenDevice device;
  make_mistake(device.mistakes);
  const std::unique_ptr<Device> reference = MakeReferenceDevice();
  for (const OpCase& c : AllOpCases()) {
    if (c.op == op && !CheckCase(c, device, *reference).empty()) return true;
  }
  return false;
}

// The share of cases that notice, of every seventh.
double ShareThatNotices(const Mistake& make_mistake) {
  MistakenDevice device;
  make_mistake(device.mistakes);
  const std::unique_ptr<Device> reference = MakeReferenceDevice();
  int cases = 0, noticed = 0;
  for (const OpCase& c : AllOpCases()) {
    if (SeedOf(c) % 7 != 0) continue;
    ++cases;
    noticed += !CheckCase(c, device, *reference).empty();
  }
  return static_cast<double>(noticed) / cases;
}

TEST(OpCases, TheReferencePassesAll) {
  const std::unique_ptr<Device> device = MakeReferenceDevice(), reference = MakeReferenceDevice();
  const std::vector<OpCase> cases = AllOpCases();
  for (const OpCase& c : cases) {
    if (kSanitized && SeedOf(c) % 4 != 0) continue;
    for (const std::string& wrong : CheckCase(c, *device, *reference)) {
      ADD_FAILURE() << c.name << ": " << wrong;
    }
  }
  std::cout << cases.size() << " cases\n";
}

TEST(OpCases, NoticeWrongSelection) {
  EXPECT_TRUE(Noticed("SelectTokens", [](MistakenOps& m) {
    m.before_select = [](SelectTokensArgs& a) {
      if (a.source.dim[0] > 0) Copied(a.source).As<int32_t>()[0] = -1;
    };
  }));
}

TEST(OpCases, NoticeWrongRowOps) {
  EXPECT_TRUE(Noticed("RmsNorm", [](MistakenOps& m) {
    m.before_norm = [](RmsNormArgs& a) { a.epsilon *= 1.1f; };
  }));
  EXPECT_TRUE(Noticed("RmsNorm", [](MistakenOps& m) {
    m.before_norm = [](RmsNormArgs& a) { a.accumulate = false; };
  }));
  EXPECT_TRUE(Noticed(
      "RmsNorm", [](MistakenOps& m) { m.before_norm = [](RmsNormArgs& a) { a.column = 0; }; }));
  EXPECT_TRUE(Noticed("ActivateAndMul", [](MistakenOps& m) {
    m.before_activate = [](ActivateAndMulArgs& a) { a.limit *= 1.01f; };
  }));
  EXPECT_TRUE(Noticed("Scale",
                      [](MistakenOps& m) { m.before_scale = [](ScaleArgs& a) { a.factor = 1; }; }));
  EXPECT_TRUE(Noticed(
      "Scale", [](MistakenOps& m) { m.before_scale = [](ScaleArgs& a) { a.soft_cap = 0; }; }));
  for (const Activation wrong :
       {Activation::kGelu, Activation::kGeluTanh, Activation::kClampedSilu}) {
    EXPECT_TRUE(Noticed("ActivateAndMul", [&](MistakenOps& m) {
      m.before_activate = [&](ActivateAndMulArgs& a) {
        if (a.activation != Activation::kSilu) a.activation = wrong;
      };
    }));
  }
  EXPECT_TRUE(Noticed("GatherRows", [](MistakenOps& m) {
    m.before_gather = [](GatherRowsArgs& a) {
      Copied(a.row);
      for (int r = 0; r + 1 < a.row.dim[0]; r += 2) {
        std::swap(a.row.As<int32_t>()[r], a.row.As<int32_t>()[r + 1]);
      }
    };
  }));
  EXPECT_TRUE(Noticed("Embed", [](MistakenOps& m) {
    m.before_embed = [](EmbedArgs& a) {
      if (a.token.dim[0] > 0) Copied(a.token).As<int32_t>()[a.token.dim[0] - 1] = 0;
    };
  }));
  EXPECT_TRUE(Noticed("Embed", [](MistakenOps& m) {
    m.before_embed = [](EmbedArgs& a) { a.accumulate = !a.accumulate; };
  }));
  EXPECT_TRUE(Noticed("ActivateAndMul", [](MistakenOps& m) {
    m.before_activate = [](ActivateAndMulArgs& a) {
      if (!a.gated) a.activation = Activation::kSilu;
    };
  }));
}

TEST(OpCases, NoticeWrongLayerNorms) {
  const auto noticed = [](const std::function<void(LayerNormArgs&)>& before) {
    return Noticed("LayerNorm", [&](MistakenOps& m) { m.before_layer_norm = before; });
  };
  EXPECT_TRUE(noticed([](LayerNormArgs& a) { a.weight = {}; }));
  EXPECT_TRUE(noticed([](LayerNormArgs& a) { a.bias = {}; }));
  EXPECT_TRUE(noticed([](LayerNormArgs& a) { a.epsilon *= 1.1f; }));
}

TEST(OpCases, NoticeWrongPooling) {
  const auto noticed = [](const std::function<void(PoolArgs&)>& before) {
    return Noticed("Pool", [&](MistakenOps& m) { m.before_pool = before; });
  };
  EXPECT_TRUE(noticed([](PoolArgs& a) { a.normalize = false; }));
  EXPECT_TRUE(noticed([](PoolArgs& a) {
    if (a.pooling == Pooling::kLast) a.pooling = Pooling::kFirst;
  }));
  EXPECT_TRUE(noticed([](PoolArgs& a) {  // the next sequence's first token is taken for this one's
    Copied(a.query_start);
    for (int s = 1; s < a.out.dim[0]; ++s) ++a.query_start.As<int32_t>()[s];
  }));
}

TEST(OpCases, NoticeWrongMatmuls) {
  const auto noticed = [](const std::function<void(MatmulArgs&)>& before) {
    return Noticed("Matmul", [&](MistakenOps& m) { m.before_matmul = before; });
  };
  EXPECT_TRUE(noticed([](MatmulArgs& a) { a.bias = {}; }));
  EXPECT_TRUE(noticed([](MatmulArgs& a) { a.accumulate = false; }));
  EXPECT_TRUE(noticed([](MatmulArgs& a) { a.accumulate = true; }));
  EXPECT_TRUE(noticed([](MatmulArgs& a) { a.out_column = 0; }));
}

TEST(OpCases, NoticeWrongExperts) {
  EXPECT_TRUE(Noticed("Route", [](MistakenOps& m) {
    m.before_route = [](RouteArgs& a) { a.normalize = !a.normalize; };
  }));
  EXPECT_TRUE(Noticed("Route", [](MistakenOps& m) {  // ties go to the higher id
    m.before_route = [](RouteArgs& a) {
      Copied(a.logits);
      for (int64_t i = 0; i < a.logits.elements(); ++i) {
        float& logit = a.logits.As<float>()[i];
        logit += 1e-6f * static_cast<float>(i % a.logits.dim[1]);
      }
    };
  }));
  const auto route_noticed = [](const std::function<void(RouteArgs&)>& before) {
    return Noticed("Route", [&](MistakenOps& m) { m.before_route = before; });
  };
  for (const auto scores : {RouteArgs::Scores::kSoftmax, RouteArgs::Scores::kSigmoid}) {
    EXPECT_TRUE(route_noticed([&](RouteArgs& a) { a.scores = scores; }));
  }
  EXPECT_TRUE(route_noticed([](RouteArgs& a) { a.bias = {}; }));
  EXPECT_TRUE(route_noticed([](RouteArgs& a) { a.groups = a.chosen_groups = 1; }));
  EXPECT_TRUE(route_noticed([](RouteArgs& a) { a.chosen_groups = a.groups; }));
  EXPECT_TRUE(route_noticed([](RouteArgs& a) { a.group_scores = 1; }));
  EXPECT_TRUE(route_noticed([](RouteArgs& a) { a.scale = 1; }));
  const auto noticed = [](const std::function<void(GroupedMatmulArgs&)>& before) {
    return Noticed("GroupedMatmul", [&](MistakenOps& m) { m.before_grouped = before; });
  };
  EXPECT_TRUE(noticed([](GroupedMatmulArgs& a) { a.bias = {}; }));
  EXPECT_TRUE(noticed([](GroupedMatmulArgs& a) {  // the first pair takes the last one's expert
    const int64_t pairs = a.expert.elements();
    if (pairs > 0) Copied(a.expert).As<int32_t>()[0] = a.expert.As<int32_t>()[pairs - 1];
  }));
  EXPECT_TRUE(Noticed("CombineExperts", [](MistakenOps& m) {
    m.before_combine = [](CombineExpertsArgs& a) { a.accumulate = !a.accumulate; };
  }));
}

TEST(OpCases, NoticeWrongRope) {
  const auto noticed = [](const char* op, const std::function<void(RopeAndWriteKvArgs&)>& before) {
    return Noticed(op, [&](MistakenOps& m) { m.before_rope = before; });
  };
  const auto other_pairing = [](RopeAndWriteKvArgs& a) {
    a.pairing = a.pairing == RopePairing::kHalves ? RopePairing::kAdjacent : RopePairing::kHalves;
  };
  const auto shifted_position = [](RopeAndWriteKvArgs& a) {
    Copied(a.position);
    for (int t = 0; t < a.position.dim[0]; ++t) {
      int32_t& position = a.position.As<int32_t>()[t];
      if (position > 0) --position;
    }
  };
  EXPECT_TRUE(noticed("RopeAndWriteKv", other_pairing));
  EXPECT_TRUE(noticed("RopeAndWriteKv", shifted_position));
  EXPECT_TRUE(noticed("RopeAndWriteKv", [](RopeAndWriteKvArgs& a) { a.q_norm = a.k_norm = {}; }));
  EXPECT_TRUE(noticed("RopeAndWriteKv", [](RopeAndWriteKvArgs& a) { a.norm_epsilon = 1e-3f; }));
  EXPECT_TRUE(noticed("Attention", [](RopeAndWriteKvArgs& a) { a.k_norm = a.q_norm; }));
  // Rotated keys and queries keep their products when all of them make the same mistake about
  // adjacent elements, but not about positions 0 and 1, or a cache slot.
  EXPECT_TRUE(noticed("Attention", shifted_position));
  EXPECT_TRUE(noticed("Attention", [](RopeAndWriteKvArgs& a) {
    Copied(a.kv_slot);
    for (int t = 0; t < a.kv_slot.dim[0]; ++t) {
      int32_t& slot = a.kv_slot.As<int32_t>()[t];
      if (slot == -1) slot = 0;
    }
  }));
}

TEST(OpCases, NoticeWrongAttention) {
  const auto noticed = [](const std::function<void(AttentionArgs&)>& before) {
    return Noticed("Attention", [&](MistakenOps& m) { m.before_attention = before; });
  };
  EXPECT_TRUE(noticed([](AttentionArgs& a) { a.scale *= 1.001f; }));
  for (const bool causal : {false, true}) {
    EXPECT_TRUE(noticed([&](AttentionArgs& a) { a.causal = causal; }));
  }
  EXPECT_TRUE(noticed([](AttentionArgs& a) {  // the last query does not see itself
    Copied(a.context_tokens);
    for (int s = 0; s < a.context_tokens.dim[0]; ++s) {
      int32_t& context = a.context_tokens.As<int32_t>()[s];
      const int32_t* start = a.query_start.As<int32_t>() + s;
      if (context > start[1] - start[0]) --context;
    }
  }));
}

TEST(OpCases, NoticeWrongSampling) {
  const auto noticed = [](const std::function<void(SampleArgs&)>& before) {
    return Noticed("Sample", [&](MistakenOps& m) { m.before_sample = before; });
  };
  const auto fill = [](Tensor& t, auto value) {
    std::fill_n(Copied(t).As<decltype(value)>(), t.elements(), value);
  };
  EXPECT_TRUE(noticed([](SampleArgs& a) { a.edits = {}; }));
  EXPECT_TRUE(noticed([](SampleArgs& a) { a.allowed = a.allowed_row = {}; }));
  EXPECT_TRUE(noticed([](SampleArgs& a) {  // masks by row
    if (!a.allowed_row) return;
    Copied(a.allowed_row);
    for (int r = 0; r < std::min(a.allowed_row.dim[0], a.allowed.dim[0]); ++r) {
      a.allowed_row.As<int32_t>()[r] = r;
    }
  }));
  EXPECT_TRUE(noticed([&](SampleArgs& a) { fill(a.top_k, 0); }));
  EXPECT_TRUE(noticed([&](SampleArgs& a) { fill(a.top_p, 1.0f); }));
  EXPECT_TRUE(noticed([&](SampleArgs& a) { fill(a.min_p, 0.0f); }));
  EXPECT_TRUE(noticed([&](SampleArgs& a) { fill(a.position, 1); }));
  EXPECT_TRUE(noticed([](SampleArgs& a) {  // the high half of the seed
    Copied(a.seed);
    for (int r = 0; r < a.logits.dim[0]; ++r) a.seed.As<int32_t>()[2 * r + 1] = 0;
  }));
  EXPECT_TRUE(Noticed("Logprobs", [](MistakenOps& m) {
    m.before_logprobs = [](LogprobsArgs& a) {
      Copied(a.target);
      for (int r = 0; r < a.target.dim[0]; ++r) {
        if (a.target.As<int32_t>()[r] == -1) a.target.As<int32_t>()[r] = 0;
      }
    };
  }));
}

TEST(OpCases, NoticeWritesOutsideAndMissingOnes) {
  // Not by cases without output, as those of zero tokens.
  EXPECT_GT(ShareThatNotices([](MistakenOps& m) {
              m.after = [](const Tensor& out) { out.As<float>()[out.elements()] = 1; };
            }),
            0.9);
  EXPECT_GT(ShareThatNotices([](MistakenOps& m) {
              m.after = [](const Tensor& out) { out.As<float>()[-1] = 1; };
            }),
            0.9);
  // The last element keeps what was there before. Not where -1 is the right answer, k stands last,
  // or any NaN does.
  EXPECT_GT(ShareThatNotices([](MistakenOps& m) {
              m.after = [](const Tensor& out) { out.As<int32_t>()[out.elements() - 1] = -1; };
            }),
            0.8);
  EXPECT_TRUE(Noticed("Matmul", [](MistakenOps& m) {
    m.before_matmul = [](MatmulArgs& a) {
      if (a.x.elements() > 0) a.x.As<float>()[0] = 0;  // an input changed for good
    };
  }));
}

}  // namespace
}  // namespace fairlead

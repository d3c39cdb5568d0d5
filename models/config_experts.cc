// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>
#include <string_view>

#include "kernels/strings.h"
#include "models/config_parts.h"

namespace fairlead {
namespace {

constexpr int kMaxShared = 64;  // they are one expert of as many times the size

void RefuseValue(std::string_view key, const std::string& value, std::string_view known,
                 ConfigReader& reader) {
  reader.Fail(
      absl::UnimplementedError(StrCat("config key \"", key, "\" is ", ShortDump(Json(value)),
                                      ": not supported; known here: ", known)));
}

void ReadGroups(ExpertsConfig& experts, ConfigReader& reader) {
  experts.groups = reader.Int("n_group", 1, RouteArgs::kMaxGroups, 1);
  experts.chosen_groups = reader.Int("topk_group", 1, experts.groups, 1);
  if (!reader.ok()) return;
  if (experts.groups == 1) experts.group_scores = 1;  // nothing to compare
  const int in_group = experts.count / experts.groups;
  if (experts.count % experts.groups != 0 || experts.group_scores > in_group ||
      experts.slots > experts.chosen_groups * in_group) {
    reader.Fail(absl::InvalidArgumentError(
        StrCat("config key \"n_group\" is ", experts.groups, ": ", experts.count,
               " experts do not make so many groups of which ", experts.chosen_groups,
               " (topk_group) have ", experts.slots, " experts (num_experts_per_tok)")));
  }
}

// The keys of DeepSeek-V2 (arXiv 2405.04434) and V3 (arXiv 2412.19437), which differ in how experts
// are scored and groups of them compared.
void ReadRoutedExperts(const Family& family, ModelConfig& config, ConfigReader& reader) {
  ExpertsConfig& experts = config.experts;
  const std::string own = family.sigmoid_router ? "sigmoid" : "softmax";
  const std::string scores = reader.String("scoring_func", own);
  const bool any = HasFeature(family, "scoring_func");
  if (scores != own && !(any && (scores == "sigmoid" || scores == "softmax"))) {
    RefuseValue("scoring_func", scores, any ? "softmax, sigmoid" : own, reader);
  }
  const bool sigmoid = scores == "sigmoid";
  const std::string method = reader.String("topk_method", sigmoid ? "noaux_tc" : "greedy");
  if (sigmoid ? method != "noaux_tc" : method != "greedy" && method != "group_limited_greedy") {
    RefuseValue("topk_method", method, sigmoid ? "noaux_tc" : "greedy, group_limited_greedy",
                reader);
  }
  if (!sigmoid && experts.normalize) {
    // DeepSeek's own code then normalises and does not scale, transformers does neither.
    reader.Fail(absl::UnimplementedError(
        "config key \"norm_topk_prob\" is true: not supported with a softmax over all experts"));
  }
  experts.scores = sigmoid ? RouteArgs::Scores::kSigmoid : RouteArgs::Scores::kSoftmax;
  experts.choice_bias = sigmoid;
  experts.scale = static_cast<float>(reader.Real("routed_scaling_factor", 1e-6, 1e6, 1));
  if (method != "greedy") {
    experts.group_scores = sigmoid ? 2 : 1;
    ReadGroups(experts, reader);
  }
  experts.shared_ffn = reader.Int("n_shared_experts", 0, kMaxShared, 0) * experts.ffn;
}

}  // namespace

void ReadExperts(const Family& family, ModelConfig& config, ConfigReader& reader) {
  if (!HasFeature(family, "experts")) return;
  ExpertsConfig& experts = config.experts;
  const bool routed = HasFeature(family, "routed_experts");
  for (const std::string_view key : {"num_experts", "num_local_experts", "n_routed_experts"}) {
    if (key == "n_routed_experts" && !routed) continue;
    experts.count = reader.Int(key, 0, RouteArgs::kMaxExperts, experts.count);
  }
  if (experts.count == 0) return;
  experts.slots =
      reader.Int("num_experts_per_tok", 1, std::min(experts.count, RouteArgs::kMaxSlots));
  experts.ffn =
      reader.Int("moe_intermediate_size", 1, routed ? kMaxFfn / kMaxShared : kMaxFfn, config.ffn);
  experts.normalize = family.normalized_experts || reader.Bool("norm_topk_prob", false);
  experts.bias = family.router_bias;
  experts.names = family.expert_names;
  if (routed) ReadRoutedExperts(family, config, reader);
  if (HasFeature(family, "shared_expert")) {
    experts.shared_ffn = reader.Int("shared_expert_intermediate_size", 0, kMaxFfn, config.ffn);
    experts.shared_gate = experts.shared_ffn > 0;
  }
}

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
#include "bench/engine/cases.h"

#include <algorithm>

#include "kernels/strings.h"

namespace fairlead::bench {

std::string EngineCase::Name() const {
  std::string name;
  switch (kind) {
    case CaseKind::kPrompt:
      name = StrCat("pp", prompt);
      break;
    case CaseKind::kGenerate:
      name = StrCat("tg", generate);
      break;
    case CaseKind::kMixed:
      name = StrCat("pp", prompt, "+tg", generate);
      break;
  }
  if (depth > 0) StrAppend(&name, " @ d", depth);
  if (batch > 1) StrAppend(&name, " b", batch);
  return name;
}

int EngineCase::SequenceTokens() const {
  // A sequence needs a token to start from, and one to draw.
  return depth + std::max(prompt, 1) + std::max(generate, 1) + 1;
}

std::vector<EngineCase> MakeCases(const CaseLists& lists) {
  std::vector<EngineCase> cases;
  for (const int depth : lists.depth) {
    for (const int prompt : lists.prompt) {
      if (prompt > 0)
        cases.push_back({.kind = CaseKind::kPrompt, .prompt = prompt, .depth = depth});
    }
  }
  for (const int depth : lists.depth) {
    for (const int generate : lists.generate) {
      for (const int batch : lists.batch) {
        if (generate == 0) continue;
        cases.push_back(
            {.kind = CaseKind::kGenerate, .generate = generate, .depth = depth, .batch = batch});
      }
    }
  }
  if (lists.mixed.empty()) return cases;
  for (const int batch : lists.batch) {
    cases.push_back({.kind = CaseKind::kMixed,
                     .prompt = lists.mixed[0],
                     .generate = lists.mixed[1],
                     .batch = batch});
  }
  return cases;
}

}  // namespace fairlead::bench

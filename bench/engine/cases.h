// SPDX-License-Identifier: Apache-2.0
// What engine_bench measures, in llama-bench's words. Pure; any thread.
#pragma once

#include <string>
#include <vector>

namespace fairlead::bench {

enum class CaseKind {
  kPrompt,    // ppN: N prompt tokens after `depth` others
  kGenerate,  // tgN: N tokens each of `batch` sequences that have `depth` tokens
  kMixed,     // ppP+tgN: `batch` requests at once, from submission to the last token
};

struct EngineCase {
  CaseKind kind = CaseKind::kPrompt;
  int prompt = 0;
  int generate = 0;
  int depth = 0;
  int batch = 1;

  // "pp512", "tg64 @ d1024 b16", "pp128+tg64 b16".
  std::string Name() const;
  // Tokens that one sequence of it holds at most.
  int SequenceTokens() const;
};

struct CaseLists {
  std::vector<int> prompt, generate, depth, batch;
  std::vector<int> mixed;  // empty, or prompt and output of the mixed case
};

// Prompts at every depth, then generation at every depth and batch, then the mixed case at every
// batch. Zeros in `prompt` and `generate` leave their cases out.
std::vector<EngineCase> MakeCases(const CaseLists& lists);

}  // namespace fairlead::bench

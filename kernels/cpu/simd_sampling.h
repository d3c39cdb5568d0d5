// SPDX-License-Identifier: Apache-2.0
// The vector loops over a row of logits, for the best instruction set of this machine. Any thread;
// no state; nothing allocated. Results depend on the arguments alone. Rows hold no NaN unless said.
#pragma once

#include <cstdint>

namespace fairlead {

// The row's largest values are also wanted per run of this many logits, to find the best k quickly.
inline constexpr int kLogitChunk = 64;
inline int NumLogitChunks(int n) { return (n + kLogitChunk - 1) / kLogitChunk; }

// out[i] = logit[i] where bit i % 32 of allowed[i / 32] is set, else -infinity. Any logits.
void SimdCopyAllowed(const float* logit, const uint32_t* allowed, int n, float* out);

// Largest logit, and that of each chunk. False when a logit is NaN or +infinity, or all are
// -infinity.
bool SimdScanLogits(const float* logit, int n, float* max, float* chunk_max);

struct CountAbove {
  int greater;
  int equal;
};
CountAbove SimdCountAbove(const float* x, int n, float threshold);

// Copies logit[i] and id[i] (or i, when id is null) of every i with key[i] >= threshold, in order.
// The outputs have room for n + 16 and may be the inputs. Returns how many.
int SimdSelect(const float* key, const float* logit, const int32_t* id, int n, float threshold,
               float* out_logit, int32_t* out_id);

// out[i] = exp((logit[i] - max) / temperature). At most 2 ulp from exp of the rounded argument.
void SimdWeights(const float* logit, int n, float max, float temperature, float* out);

// Sums in double.
double SimdSum(const float* x, int n);
double SimdSumAtLeast(const float* key, const float* x, int n,
                      float threshold);                   // x where key >= threshold
double SimdSumExp(const float* logit, int n, float max);  // exp(logit - max)

}  // namespace fairlead

// SPDX-License-Identifier: Apache-2.0
// One block a row, no memory beside the block's. The tokens that top_k and top_p leave are those
// above a threshold, and of the equal ones those up to an id; the threshold is searched digit by
// digit over the ordered bits of the floats, each round a pass over the row.
//
// All sums are of integers: a token's weight is exp((logit - max) / temperature) * 2^45 without its
// fraction (less for more than 2^18 tokens: a row's sum stays below 2^63), which loses at most
// 2^-27 of the mass of a row. So they are exact in any order, and the edits are corrections of sums
// of the row as it stands: minus the logit's, plus the edited one's.
#include <cstdint>

#include "kernels/gpu/kernels.h"
#include "kernels/gpu/row_search.h"
#include "kernels/sampling_rng.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

constexpr int kBins = 8;

struct Edits {
  const int32_t* token;
  const float* repetition;
  const float* add;
  int count;
};

struct SampleRows {
  const float* logits;  // [rows, vocab]
  const float* temperature;
  const int32_t* top_k;
  const float* top_p;
  const float* min_p;
  const uint32_t* seed;  // [rows, 2]
  const uint32_t* position;
  const int32_t* edit_start;  // [rows + 1] or null
  Edits edits;                // of all rows
  const uint32_t* allowed;    // [masks, mask_words], if the kernel has masks
  const int32_t* allowed_row;
  int32_t* out;
  int vocab;
  int mask_words;
  float weight_of_max;  // Row's
};

// Logits of a row of which some tokens may not be drawn. Those are not read.
struct MaskedLogits {
  const float* logit;
  const uint32_t* allowed;  // null: all

  GPU_METHOD bool Allows(int id) const {
    return allowed == nullptr || (allowed[id / 32] >> id % 32 & 1) != 0;
  }
  GPU_METHOD float operator[](int id) const { return Allows(id) ? logit[id] : -INFINITY; }
};

GPU_DEVICE bool Allows(const float*, int) { return true; }
GPU_DEVICE bool Allows(const MaskedLogits& logits, int id) { return logits.Allows(id); }

// A row and what is left of it: the logits above `key`, and those equal to it up to id `last`.
template <typename Logits>
struct Row {
  Logits logit;
  int vocab;
  Edits edits;
  float weight_of_max;  // a power of two, so that no sum of weights passes 2^63
  float max;            // of the edited logits, like key
  float temperature;
  float min_weight;  // less counts as nothing: min_p
  uint32_t key;
  int last;
};

GPU_DEVICE void ReadLogits(const SampleRows& rows, int index, const float*& logits) {
  logits = rows.logits + static_cast<int64_t>(index) * rows.vocab;
}
GPU_DEVICE void ReadLogits(const SampleRows& rows, int index, MaskedLogits& logits) {
  ReadLogits(rows, index, logits.logit);
  const int mask = rows.allowed_row[index];
  logits.allowed = mask < 0 ? nullptr : rows.allowed + static_cast<int64_t>(mask) * rows.mask_words;
}

template <typename Logits>
GPU_DEVICE Row<Logits> ReadRow(const SampleRows& rows, int index) {
  Row<Logits> row = {.logit = {},
                     .vocab = rows.vocab,
                     .edits = {},
                     .weight_of_max = rows.weight_of_max,
                     .max = 0,
                     .temperature = rows.temperature[index],
                     .min_weight = 0,
                     .key = 0,
                     .last = rows.vocab};
  ReadLogits(rows, index, row.logit);
  if (rows.edit_start != nullptr) {
    const int begin = rows.edit_start[index];
    row.edits = {.token = rows.edits.token + begin,
                 .repetition = rows.edits.repetition + begin,
                 .add = rows.edits.add + begin,
                 .count = rows.edit_start[index + 1] - begin};
  }
  return row;
}

// Every `step`-th edit from `first` on: visit(id, logit, edited logit). Those of tokens that are
// not allowed change nothing.
template <typename Logits, typename Visit>
GPU_DEVICE void ForEachEdit(const Row<Logits>& row, int first, int step, Visit visit) {
  for (int i = first; i < row.edits.count; i += step) {
    const int id = row.edits.token[i];
    if (!Allows(row.logit, id)) continue;
    const float x = row.logit[id];
    const float repetition = row.edits.repetition[i];
    visit(id, x, (x > 0 ? x / repetition : x * repetition) + row.edits.add[i]);
  }
}

// Of the edited logits. No edit makes NaN or infinity a logit again, so the row as it stands tells.
template <typename Logits>
GPU_DEVICE uint64_t BestToken(const Row<Logits>& row) {
  uint64_t own = OwnBest(row.logit, row.vocab, kNoRank);
  if (row.edits.count > 0) {
    GPU_SHARED(int, candidate, kRowThreads);
    GPU_SHARED(int, edited, kRowThreads);
    const int thread = ThreadX();
    int again = 0;
    do {  // until no thread's best is one that has an edit
      candidate[thread] = own == kNoRank ? -1 : IdOf(own);
      edited[thread] = 0;
      SyncThreads();
      ForEachEdit(row, thread, kRowThreads, [&](int id, float, float) {
        if (candidate[id % kRowThreads] == id) edited[id % kRowThreads] = 1;
      });
      SyncThreads();
      again = edited[thread];
      if (again != 0) own = OwnBest(row.logit, row.vocab, own - 1);
    } while (BlockSum<kRowThreads>(again) != 0);
    ForEachEdit(row, thread, kRowThreads, [&](int id, float, float x) {
      const uint64_t rank = x < INFINITY ? RankOf(x, id) : kNoRank;
      own = rank > own ? rank : own;
    });
  }
  return BestOfRow(own);
}

template <typename Logits>
GPU_DEVICE bool Has(const Row<Logits>& row, int id, uint32_t key) {
  return key > row.key || (key == row.key && id <= row.last);
}

template <typename Logits>
GPU_DEVICE uint64_t WeightOf(const Row<Logits>& row, float x) {
  if (x > row.max) return 0;  // it has an edit: whatever is added is taken away
  const float weight = ::expf((x - row.max) / row.temperature);
  return weight >= row.min_weight ? static_cast<uint64_t>(weight * row.weight_of_max) : 0;
}

enum class Measure { kCount, kWeight };

template <typename Logits>
GPU_DEVICE uint64_t ValueOf(const Row<Logits>& row, Measure measure, float x) {
  return measure == Measure::kWeight ? WeightOf(row, x) : 1;
}

template <typename Logits>
GPU_DEVICE uint64_t TotalWeight(const Row<Logits>& row) {
  const auto weight = [&](int id, float x) {
    return Has(row, id, KeyOf(x)) ? WeightOf(row, x) : uint64_t{0};
  };
  uint64_t sum = 0;
  ForEachLogit(row.logit, row.vocab, [&](int id, float x) { sum += weight(id, x); });
  ForEachEdit(row, ThreadX(), kRowThreads,
              [&](int id, float x, float edited) { sum += weight(id, edited) - weight(id, x); });
  return BlockSum<kRowThreads>(sum);
}

// The first id whose running sum of value(id, edited logit) exceeds `target`; that of all does.
template <typename Logits, typename Value>
GPU_DEVICE int FirstBeyond(const Row<Logits>& row, uint64_t target, Value value) {
  constexpr int kWarps = kRowThreads / kWarp;
  constexpr int kFew = 64;
  GPU_SHARED(uint64_t, part_sum, kWarps);
  GPU_SHARED(uint64_t, single, kFew);
  int begin = 0, end = row.vocab;
  uint64_t before = 0;
  while (end - begin > kFew) {  // each warp sums a part; it goes on in the one that exceeds
    const int part = (end - begin + kWarps - 1) / kWarps;
    const int first = begin + WarpId() * part;
    const int beyond = Min(first + part, end);
    uint64_t sum = 0;
    for (int id = first + LaneId(); id < beyond; id += kWarp) sum += value(id, row.logit[id]);
    ForEachEdit(row, LaneId(), kWarp, [&](int id, float x, float edited) {
      if (id >= first && id < beyond) sum += value(id, edited) - value(id, x);
    });
    sum = WarpSum(sum);
    SyncThreads();
    if (LaneId() == 0) part_sum[WarpId()] = sum;
    SyncThreads();
    int i = 0;
    while (i < kWarps - 1 && before + part_sum[i] <= target) before += part_sum[i++];
    begin += i * part;
    end = Min(begin + part, end);
  }
  SyncThreads();
  const int own = begin + ThreadX();
  if (own < end) single[ThreadX()] = value(own, row.logit[own]);
  SyncThreads();
  ForEachEdit(row, ThreadX(), kRowThreads, [&](int id, float, float edited) {
    if (id >= begin && id < end) single[id - begin] = value(id, edited);
  });
  SyncThreads();
  int id = begin;
  while (id < end - 1 && before + single[id - begin] <= target) before += single[id++ - begin];
  return id;
}

// Keys from `low` to `high`, in bins of 2^shift.
struct Bins {
  uint32_t low, high;
  int shift;
};

// The sums of what is left in each bin. sums: [kBins], shared.
template <typename Logits>
GPU_DEVICE void SumBins(const Row<Logits>& row, Measure measure, const Bins& bins, uint64_t* sums) {
  constexpr int kParts = kRowThreads / kBins;
  GPU_SHARED(uint64_t, own, kRowThreads * kBins);  // a column a thread: no two write to one place
  GPU_SHARED(uint64_t, part, kRowThreads);
  const int thread = ThreadX();
  const auto add = [&](int id, float x, uint64_t times) {
    const uint32_t key = KeyOf(x);
    if (key < bins.low || key > bins.high || !Has(row, id, key)) return;
    own[((key - bins.low) >> bins.shift) * kRowThreads + thread] +=
        times * ValueOf(row, measure, x);
  };
  for (int i = 0; i < kBins; ++i) own[i * kRowThreads + thread] = 0;
  ForEachLogit(row.logit, row.vocab, [&](int id, float x) { add(id, x, 1); });
  ForEachEdit(row, thread, kRowThreads, [&](int id, float x, float edited) {
    add(id, x, ~uint64_t{0});  // -1
    add(id, edited, 1);
  });
  SyncThreads();
  const int bin = thread / kParts;
  uint64_t sum = 0;
  for (int i = thread % kParts; i < kRowThreads; i += kParts) sum += own[bin * kRowThreads + i];
  part[thread] = sum;
  SyncThreads();
  if (thread < kBins) {
    uint64_t total = 0;
    for (int i = 0; i < kParts; ++i) total += part[thread * kParts + i];
    sums[thread] = total;
  }
  SyncThreads();
}

// What is left has the sum `above` above `key`, and `at` at it.
struct Cut {
  uint32_t key;
  uint64_t above, at;
};

// The largest key from which on there is at least `wanted`, which all that is left must have. Or,
// sooner, one from which on there is exactly that much; then `at` is of more than one key.
template <typename Logits>
GPU_DEVICE Cut FindCut(const Row<Logits>& row, Measure measure, uint64_t wanted) {
  GPU_SHARED(uint64_t, sums, kBins);
  Bins bins = {.low = kKeyOfMinusInfinity, .high = KeyOf(row.max), .shift = 0};
  uint64_t above = 0;
  for (;;) {
    bins.shift = 0;
    while (((bins.high - bins.low) >> bins.shift) >= kBins) ++bins.shift;
    SumBins(row, measure, bins, sums);
    int bin = kBins - 1;
    while (bin > 0 && above + sums[bin] < wanted) above += sums[bin--];
    const uint64_t at = sums[bin];
    bins.low += static_cast<uint32_t>(bin) << bins.shift;
    if (bins.shift == 0 || above + at == wanted) return {bins.low, above, at};
    const uint32_t rest = (uint32_t{1} << bins.shift) - 1;
    if (bins.high - bins.low > rest) bins.high = bins.low + rest;
  }
}

// Keeps the fewest best tokens that have `wanted` together, at least 1. Returns what they have.
template <typename Logits>
GPU_DEVICE uint64_t KeepBest(Row<Logits>& row, Measure measure, uint64_t wanted) {
  const Cut cut = FindCut(row, measure, wanted);
  if (cut.key > row.key) {
    row.key = cut.key;
    row.last = row.vocab;
  }
  if (cut.above + cut.at == wanted) return wanted;
  const uint64_t each = ValueOf(row, measure, FromKey(cut.key));
  const uint64_t ties = (wanted - cut.above + each - 1) / each;
  if (ties * each < cut.at) {
    row.last = FirstBeyond(row, ties - 1, [&](int id, float x) {
      return static_cast<uint64_t>(KeyOf(x) == cut.key && id <= row.last);
    });
  }
  return cut.above + ties * each;
}

template <typename Logits>
GPU_DEVICE int SampleRow(const SampleRows& rows, int index) {
  Row<Logits> row = ReadRow<Logits>(rows, index);
  const uint64_t best = BestToken(row);
  if (best == kNoRank) return -1;
  if (!(row.temperature > 0)) return IdOf(best);
  row.max = LogitOf(best);
  const int top_k = rows.top_k[index];
  if (top_k > 0 && top_k < row.vocab) {
    KeepBest(row, Measure::kCount, static_cast<uint64_t>(top_k));
  }
  const float min_p = rows.min_p[index];
  row.min_weight = min_p < 1 ? min_p : 1;
  uint64_t total = TotalWeight(row);
  const float top_p = rows.top_p[index];
  if (top_p < 1) {
    const double share = ::ceil(static_cast<double>(top_p) * static_cast<double>(total));
    const uint64_t wanted = share > 1 ? static_cast<uint64_t>(share) : 1;
    total = KeepBest(row, Measure::kWeight, wanted < total ? wanted : total);
  }
  const uint32_t* seed = rows.seed + 2 * index;
  const float uniform =
      UniformFor(static_cast<uint64_t>(seed[1]) << 32 | seed[0], rows.position[index]);
  const auto target = static_cast<uint64_t>(uniform * static_cast<double>(total));
  return FirstBeyond(row, target, [&](int id, float x) {
    return Has(row, id, KeyOf(x)) ? WeightOf(row, x) : uint64_t{0};
  });
}

// Logits: const float*, or MaskedLogits for calls with masks.
template <typename Logits>
GPU_KERNEL void Sample(SampleRows rows) {
  const int index = static_cast<int>(BlockX());
  const int token = SampleRow<Logits>(rows, index);
  if (ThreadX() == 0) rows.out[index] = token;
}

}  // namespace

void LaunchSample(const StreamHandle& stream, const SampleArgs& args) {
  const auto rows = static_cast<unsigned>(args.logits.dim[0]);
  if (rows == 0) return;
  float weight_of_max = 0x1p45f;
  for (int64_t vocab = args.logits.dim[1]; vocab > 1 << 18; vocab = (vocab + 1) / 2) {
    weight_of_max /= 2;
  }
  const SampleRows kernel_args = {.logits = args.logits.As<float>(),
                                  .temperature = args.temperature.As<float>(),
                                  .top_k = args.top_k.As<int32_t>(),
                                  .top_p = args.top_p.As<float>(),
                                  .min_p = args.min_p.As<float>(),
                                  .seed = args.seed.As<uint32_t>(),
                                  .position = args.position.As<uint32_t>(),
                                  .edit_start = args.edits.start.As<int32_t>(),
                                  .edits = {.token = args.edits.token.As<int32_t>(),
                                            .repetition = args.edits.repetition.As<float>(),
                                            .add = args.edits.add.As<float>(),
                                            .count = 0},
                                  .allowed = args.allowed.As<uint32_t>(),
                                  .allowed_row = args.allowed_row.As<int32_t>(),
                                  .out = args.out.As<int32_t>(),
                                  .vocab = static_cast<int>(args.logits.dim[1]),
                                  .mask_words = static_cast<int>(args.allowed.dim[1]),
                                  .weight_of_max = weight_of_max};
  if (args.allowed_row) {
    GPU_LAUNCH(stream, Grid{rows}, kRowThreads, 0, Sample<MaskedLogits>, kernel_args);
  } else {
    GPU_LAUNCH(stream, Grid{rows}, kRowThreads, 0, Sample<const float*>, kernel_args);
  }
}

}  // namespace fairlead::FAIRLEAD_GPU

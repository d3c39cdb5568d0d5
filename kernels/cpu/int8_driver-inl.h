// SPDX-License-Identifier: Apache-2.0
// The loops around an instruction set's inner kernel: a few panels at a time, up to 256 k at a
// time, which kernels with kTiles find unpacked, once for all tokens. Included once by each
// int8_*.cc, in an unnamed namespace, after int8_unpack-inl.h.
#pragma once

// Bytes to read ahead, of all panels together: what waits in L1 for its turn.
constexpr int64_t kAheadBytes = 10 << 10;

// What an inner kernel gets: kPanels panels' tiles, `count` blocks from `block` on, and the running
// sums [tokens, kPanels, 16] of the tokens from `token` on.
template <int kPanels>
struct Stretch {
  const PanelTile* tile;           // of kernels with kTiles
  const std::byte* data[kPanels];  // the panels' starts
  size_t block_bytes;
  int64_t panel_bytes;
  const Int8Activations* x;
  int64_t token;
  int64_t block;
  int count;
  float* sums;
  // Of kernels with kWrites: in the last stretch the sums of the tokens go to `columns` of out's
  // columns, the first of which is `row`.
  bool last;
  const MatmulOutput* out;
  int64_t row, columns;
};

// Reads ahead of a stretch: past a panel's end, of the panel that is next in its place. A block at
// a time, so that kernels can spread it over their work: a core has some 16 requests in flight and
// waits when more are made.
template <DType kType, int kPanels>
class ReadAhead {
 public:
  explicit ReadAhead(const Stretch<kPanels>& s) {
    const int64_t ahead = std::min(s.panel_bytes, kAheadBytes / kPanels / kBytes * kBytes);
    const int64_t at = s.block * kBytes + ahead;
    next_block_ = (s.panel_bytes - at) / kBytes;
    to_next_ = (kPanels - 1) * s.panel_bytes;
    for (int p = 0; p < kPanels; ++p) from_[p] = s.data[p] + at;
  }
  // Of block `b` of the stretch.
  [[gnu::always_inline]] void Prefetch(int panel, int b) const {
    const std::byte* from = from_[panel] + b * kBytes + (b >= next_block_ ? to_next_ : 0);
#pragma GCC unroll 32
    for (int64_t i = 0; i < kBytes; i += 64) __builtin_prefetch(from + i);
  }

 private:
  static constexpr int64_t kBytes = PanelBytes32(kType);
  const std::byte* from_[kPanels];
  int64_t next_block_, to_next_;
};

// Kernel::Run<Type, kTerms>(stretch, tokens). kTiles: from unpacked tiles, not the panels' own
// bytes. kWrites: it writes the output itself.
template <typename Kernel, DType kType, int kTerms>
void MultiplyPanels(const CpuPackedWeight& weight, const Int8Activations& x, int64_t token_begin,
                    int64_t tokens, int64_t panel, int panels, std::byte* scratch,
                    const MatmulOutput& out) {
  constexpr int kPanels = Kernel::kPanels;
  auto* tiles = reinterpret_cast<PanelTile*>(scratch);
  auto* sums = reinterpret_cast<float*>(scratch + kPanels * sizeof(PanelTile));
  constexpr int kStride = kPanels * kPanelRows;
  // Kernels may compute a whole group for its first few rows.
  const int64_t rows = (tokens + Kernel::kRows - 1) / Kernel::kRows * Kernel::kRows;
  static_assert(kPanels * sizeof(PanelTile) + kMaxInt8Tokens * kStride * sizeof(float) <=
                kInt8ScratchBytes);
  std::fill(sums, sums + rows * kStride, 0.0f);
  const int64_t blocks = weight.cols() / kInt8Block;
  constexpr int kStep = Kernel::kStretchBlocks;
  const int64_t row = panel * kPanelRows;
  const auto columns = std::min<int64_t>(panels * kPanelRows, weight.rows() - row);
  const auto panel_bytes = static_cast<int64_t>(weight.panel_bytes());
  for (int64_t b = 0; b < blocks; b += kStep) {
    const int count = static_cast<int>(std::min<int64_t>(kStep, blocks - b));
    Stretch<kPanels> stretch = {.tile = tiles,
                                .data = {},
                                .block_bytes = weight.block_bytes(),
                                .panel_bytes = panel_bytes,
                                .x = &x,
                                .token = token_begin,
                                .block = b,
                                .count = count,
                                .sums = sums,
                                .last = b + kStep >= blocks,
                                .out = &out,
                                .row = row,
                                .columns = columns};
    for (int p = 0; p < kPanels; ++p) {
      // A missing panel is the last one again; its sums are not written.
      stretch.data[p] = weight.panel(panel + std::min(p, panels - 1));
    }
    if constexpr (Kernel::kTiles) {
      const ReadAhead<kType, kPanels> ahead(stretch);
      for (int p = 0; p < kPanels; ++p) {
        for (int i = 0; p < panels && i < count; ++i) ahead.Prefetch(p, i);
        UnpackPanel<kType, Kernel::template Signed<kType, kTerms>()>(
            stretch.data[p], stretch.block_bytes, b, count, tiles[p]);
      }
    }
    Kernel::template Run<kType, kTerms>(stretch, tokens);
  }
  if constexpr (!Kernel::kWrites) {
    SimdWriteSums(sums, kStride, tokens, columns, token_begin, row, out);
  }
}

template <typename Kernel, DType kType>
void MultiplyType(const CpuPackedWeight& weight, const Int8Activations& x, int64_t token_begin,
                  int64_t token_end, int64_t panel_begin, int64_t panel_end, std::byte* scratch,
                  const MatmulOutput& out) {
  const int64_t tokens = token_end - token_begin;
  for (int64_t panel = panel_begin; panel < panel_end; panel += Kernel::kPanels) {
    const int panels = static_cast<int>(std::min<int64_t>(Kernel::kPanels, panel_end - panel));
    auto* multiply = &MultiplyPanels<Kernel, kType, 2>;
    if constexpr (Kernel::kOneTerm) {
      if (x.terms == 1) multiply = &MultiplyPanels<Kernel, kType, 1>;
    }
    multiply(weight, x, token_begin, tokens, panel, panels, scratch, out);
  }
}

template <typename Kernel>
void MultiplyWith(const CpuPackedWeight& weight, const Int8Activations& x, int64_t token_begin,
                  int64_t token_end, int64_t panel_begin, int64_t panel_end, std::byte* scratch,
                  const MatmulOutput& out) {
  using Function = decltype(&MultiplyType<Kernel, DType::kQ8_0>);
  const auto function = [&]() -> Function {
    switch (weight.dtype()) {
      case DType::kQ4_0:
        return &MultiplyType<Kernel, DType::kQ4_0>;
      case DType::kQ4_1:
        return &MultiplyType<Kernel, DType::kQ4_1>;
      case DType::kQ5_0:
        return &MultiplyType<Kernel, DType::kQ5_0>;
      case DType::kQ5_1:
        return &MultiplyType<Kernel, DType::kQ5_1>;
      case DType::kQ4_K:
        return &MultiplyType<Kernel, DType::kQ4_K>;
      case DType::kQ5_K:
        return &MultiplyType<Kernel, DType::kQ5_K>;
      case DType::kQ6_K:
        return &MultiplyType<Kernel, DType::kQ6_K>;
      case DType::kIQ4_NL:
        return &MultiplyType<Kernel, DType::kIQ4_NL>;
      case DType::kMXFP4:
        return &MultiplyType<Kernel, DType::kMXFP4>;
      case DType::kIQ4_XS:
        return &MultiplyType<Kernel, DType::kIQ4_XS>;
      case DType::kQ3_K:
        return &MultiplyType<Kernel, DType::kQ3_K>;
      case DType::kQ2_K:
        return &MultiplyType<Kernel, DType::kQ2_K>;
      default:
        return &MultiplyType<Kernel, DType::kQ8_0>;
    }
  }();
  function(weight, x, token_begin, token_end, panel_begin, panel_end, scratch, out);
}

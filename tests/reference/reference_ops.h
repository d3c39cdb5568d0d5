// SPDX-License-Identifier: Apache-2.0
// The reference device's ops and the two formats it owns: its weights and its KV blocks. Streams
// run at once, so every op reads and writes plain host memory and ignores its stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/ops.h"

namespace fairlead::reference {

// The rows as the file has them, one after another.
class ReferenceWeight : public PackedWeight {
 public:
  ReferenceWeight(DType dtype, int64_t rows, int64_t cols, int groups, std::vector<std::byte> data)
      : PackedWeight(dtype, rows, cols, groups), data_(std::move(data)) {}
  size_t bytes() const override { return data_.size(); }
  float At(int64_t row, int64_t col) const;

 private:
  std::vector<std::byte> data_;
};

// One layer's cache: [block][token][kv_head][k, v][head_dim] of f32, f16 or bf16. What
// q8_0 and f8_e4m3 round to is stored as f32.
class KvView {
 public:
  KvView(const PagedKv& kv, DType dtype) : kv_(kv), dtype_(dtype) {}
  static size_t BlockBytes(const KvShape& shape, DType dtype);

  enum Part { kKey = 0, kValue = 1 };
  // Rounds as the dtype does; q8_0 in blocks of 32 dimensions.
  void SetHead(int64_t slot, int kv_head, Part part, const float* values) const;
  float Get(int64_t slot, int kv_head, Part part, int i) const;

 private:
  static DType StoredAs(DType dtype) {
    return dtype == DType::kQ8_0 || dtype == DType::kF8_E4M3 ? DType::kF32 : dtype;
  }
  int64_t Index(int64_t slot, int kv_head, Part part, int i) const;
  void Set(int64_t slot, int kv_head, Part part, int i, float value) const;

  PagedKv kv_;
  DType dtype_;
};

double Activated(Activation activation, double x);

class ReferenceOps : public Ops {
 public:
  explicit ReferenceOps(DType kv_dtype) : kv_dtype_(kv_dtype) {}

  FAIRLEAD_OVERRIDE_OPS

 private:
  DType kv_dtype_;
};

}  // namespace fairlead::reference

// SPDX-License-Identifier: Apache-2.0
#include "tests/kernels/case_run.h"

#include <cstring>
#include <numeric>
#include <utility>

#include "kernels/check.h"
#include "kernels/half.h"
#include "kernels/sampling_rng.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

constexpr size_t kGuardBytes = 256;  // keeps the 64-byte alignment of buffers
constexpr std::byte kGuard{0xff};    // NaN in every float type, -1 in i32

template <typename T>
std::vector<std::byte> BytesOf(const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

float DecodeFloat(DType dtype, const std::byte* data) {
  uint16_t half;
  std::memcpy(&half, data, sizeof half);
  if (dtype == DType::kF16) return F16ToF32(half);
  if (dtype == DType::kBF16) return BF16ToF32(half);
  float value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

void Store16(std::byte* to, uint16_t bits) { std::memcpy(to, &bits, sizeof bits); }

}  // namespace

uint64_t CaseRandom::Next() { return MixBits(state_++ * 0x2545f4914f6cdd1dull); }

double CaseRandom::Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }

int CaseRandom::Int(int low, int high) {
  return low + static_cast<int>(Next() % static_cast<uint64_t>(high - low + 1));
}

float CaseRandom::Normal() {
  double sum = -6;
  for (int i = 0; i < 12; ++i) sum += Uniform();
  return static_cast<float>(sum);
}

std::vector<float> CaseRandom::Normals(int64_t count, float scale) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = scale * Normal();
  return values;
}

std::vector<int32_t> CaseRandom::Permutation(int count) {
  std::vector<int32_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  for (int i = count - 1; i > 0; --i) std::swap(order[i], order[Int(0, i)]);
  return order;
}

// Any bytes but for the scales, which give values of about `scale`. Minimums centre the values, as
// a quantiser would, but not exactly.
static void RandomBlock(CaseRandom& random, DType dtype, float scale, std::byte* block) {
  const int bytes = Info(dtype).block_bytes;
  for (int i = 0; i < bytes; ++i) block[i] = static_cast<std::byte>(random.Next());
  const float sign = random.Int(0, 1) == 0 ? 1.0f : -1.0f;
  const float reach = sign * scale * static_cast<float>(1 + 2 * random.Uniform());
  const auto centre = static_cast<float>(0.75 + 0.375 * random.Uniform());
  const auto put = [&](int at, float value) { Store16(block + at, F32ToF16(value)); };
  switch (dtype) {
    case DType::kQ8_0:
      return put(0, reach / 128);
    case DType::kQ4_0:
      return put(0, reach / 8);
    case DType::kQ4_1:
      put(0, reach / 8);
      return put(2, -reach * centre);
    case DType::kQ5_0:
      return put(0, reach / 16);
    case DType::kQ5_1:
      put(0, reach / 16);
      return put(2, -reach * centre);
    case DType::kQ4_K:  // the 6-bit scales and minimums are 32 on average
    case DType::kQ5_K:
      put(0, reach / (dtype == DType::kQ4_K ? 8 : 16) / 32);
      return put(2, reach * centre / 32);
    case DType::kQ6_K:  // the 8-bit scales are 64 on average, either sign
      return put(208, reach / 32 / 64);
    case DType::kIQ4_NL:
      return put(0, reach / 128);
    case DType::kMXFP4:  // around the power of two that 12 times it reaches
      block[0] =
          static_cast<std::byte>(128 + std::ilogb(std::fabs(reach) / 12) + random.Int(-1, 1));
      return;
    case DType::kIQ4_XS:  // the 6-bit scales are 16 on average, either sign
      return put(0, reach / 128 / 16);
    case DType::kQ3_K:
      return put(108, reach / 4 / 16);
    case DType::kQ2_K:  // the 4-bit scales and minimums are 8 on average
      put(80, reach / 2 / 8);
      return put(82, reach * centre / 8);
    default:
      FAIRLEAD_CHECK_MSG(false, Info(dtype).name);
  }
}

std::vector<std::byte> RandomWeights(CaseRandom& random, DType dtype, int64_t elements,
                                     float scale) {
  const DTypeInfo& info = Info(dtype);
  std::vector<std::byte> data(RowBytes(dtype, elements));
  for (int64_t b = 0; b < elements / info.block_elements; ++b) {
    std::byte* block = data.data() + b * info.block_bytes;
    if (!IsQuantized(dtype)) {
      const float value = scale * random.Normal();
      if (dtype == DType::kF32) std::memcpy(block, &value, sizeof value);
      if (dtype == DType::kF16) Store16(block, F32ToF16(value));
      if (dtype == DType::kBF16) Store16(block, F32ToBF16(value));
      continue;
    }
    RandomBlock(random, dtype, scale, block);
  }
  return data;
}

CaseRun::CaseRun(Device& device, DType activation_dtype, uint64_t seed)
    : device_(device),
      activation_dtype_(activation_dtype),
      random_(seed),
      stream_(device.NewStream()) {}

std::vector<std::byte> CaseRun::Encode(DType dtype, const std::vector<float>& values) const {
  if (dtype == DType::kF32) return BytesOf(values);
  std::vector<uint16_t> halves;
  for (const float v : values) {
    halves.push_back(dtype == DType::kF16 ? F32ToF16(v) : F32ToBF16(v));
  }
  return BytesOf(halves);
}

std::vector<float> CaseRun::Rounded(std::vector<float> values) const {
  for (float& v : values) {
    if (activation_dtype_ == DType::kF16) v = F16ToF32(F32ToF16(v));
    if (activation_dtype_ == DType::kBF16) v = BF16ToF32(F32ToBF16(v));
  }
  return values;
}

void* CaseRun::PlaceBytes(std::string name, const std::vector<std::byte>& payload, Change change) {
  Region region;
  region.name = std::move(name);
  region.payload_bytes = payload.size();
  region.may_change = change == Change::kAllowed;
  region.image.assign(payload.size() + 2 * kGuardBytes, kGuard);
  std::copy(payload.begin(), payload.end(), region.image.begin() + kGuardBytes);
  absl::StatusOr<Buffer> buffer = device_.Allocate(region.image.size());
  FAIRLEAD_CHECK_MSG(buffer.ok(), buffer.status().ToString());
  region.buffer = *std::move(buffer);
  stream_->CopyToDevice(region.buffer.data(), region.image.data(), region.image.size());
  stream_->Wait();
  regions_.push_back(std::move(region));
  return static_cast<std::byte*>(regions_.back().buffer.data()) + kGuardBytes;
}

Tensor CaseRun::Place(std::string name, DType dtype, std::initializer_list<int64_t> dims,
                      const std::vector<std::byte>& payload, Change change) {
  Tensor tensor(nullptr, dtype, dims);
  FAIRLEAD_CHECK_MSG(tensor.bytes() == payload.size(),
                     StrCat(name, ": ", payload.size(), " bytes for ", tensor.bytes()));
  tensor.data = PlaceBytes(std::move(name), payload, change);
  return tensor;
}

Tensor CaseRun::Activations(const std::vector<float>& values, std::initializer_list<int64_t> dims) {
  const DType dtype = info().activation_dtype;
  return Place("an activation", dtype, dims, Encode(dtype, Rounded(values)), Change::kForbidden);
}

Tensor CaseRun::Floats(const std::vector<float>& values, std::initializer_list<int64_t> dims) {
  return Place("an f32 input", DType::kF32, dims, BytesOf(values), Change::kForbidden);
}

Tensor CaseRun::Ints(const std::vector<int32_t>& values, std::initializer_list<int64_t> dims) {
  return Place("an i32 input", DType::kI32, dims, BytesOf(values), Change::kForbidden);
}

const PackedWeight* CaseRun::Weight(DType dtype, int64_t cols,
                                    const std::vector<std::vector<std::byte>>& parts,
                                    bool embedding, int groups) {
  std::vector<WeightPart> views;
  for (const auto& part : parts) {
    views.push_back({part.data(), static_cast<int64_t>(part.size() / RowBytes(dtype, cols))});
  }
  auto weight = device_.PackWeight(
      {.dtype = dtype, .cols = cols, .parts = views, .embedding = embedding, .groups = groups});
  FAIRLEAD_CHECK_MSG(weight.ok(), weight.status().ToString());
  weights_.push_back(*std::move(weight));
  return weights_.back().get();
}

PagedKv CaseRun::Kv(const KvShape& shape, int num_blocks) {
  const std::vector<std::byte> zeros(num_blocks * device_.KvBlockBytes(shape));
  return {PlaceBytes("the KV cache", zeros, Change::kAllowed), num_blocks, shape};
}

Tensor CaseRun::AddOutput(CaseOutput output, const std::vector<std::byte>& payload) {
  output.tensor.data = PlaceBytes(output.name, payload, Change::kAllowed);
  outputs_.push_back(std::move(output));
  return outputs_.back().tensor;
}

Tensor CaseRun::OutputActivations(std::string name, std::initializer_list<int64_t> dims,
                                  FloatBound bound, const std::vector<float>& initial) {
  CaseOutput output;
  output.name = std::move(name);
  output.tensor = Tensor(nullptr, info().activation_dtype, dims);
  output.bound = std::move(bound);
  return AddOutput(std::move(output), initial.empty()
                                          ? std::vector<std::byte>(output.tensor.bytes(), kGuard)
                                          : Encode(output.tensor.dtype, Rounded(initial)));
}

Tensor CaseRun::OutputFloats(std::string name, std::initializer_list<int64_t> dims,
                             FloatBound bound) {
  CaseOutput output;
  output.name = std::move(name);
  output.tensor = Tensor(nullptr, DType::kF32, dims);
  output.bound = std::move(bound);
  const size_t bytes = output.tensor.bytes();
  return AddOutput(std::move(output), std::vector<std::byte>(bytes, kGuard));
}

Tensor CaseRun::OutputInts(std::string name, std::initializer_list<int64_t> dims,
                           std::vector<std::vector<int32_t>> allowed) {
  CaseOutput output;
  output.name = std::move(name);
  output.tensor = Tensor(nullptr, DType::kI32, dims);
  output.allowed = std::move(allowed);
  const size_t bytes = output.tensor.bytes();
  return AddOutput(std::move(output), std::vector<std::byte>(bytes, kGuard));
}

void CaseRun::Now(const std::function<void(const Ops&, Stream&)>& work) {
  work(device_.ops(), *stream_);
  stream_->Wait();
}

std::vector<std::string> CaseRun::Finish() {
  Enqueue();
  stream_->Wait();
  std::vector<std::string> spoilt;
  for (Region& region : regions_) {
    std::vector<std::byte> now(region.image.size());
    stream_->CopyToHost(now.data(), region.buffer.data(), now.size());
    stream_->Wait();
    if (region.may_change) {
      std::copy_n(now.begin() + kGuardBytes, region.payload_bytes,
                  region.image.begin() + kGuardBytes);
    }
    const std::string difference = CompareBytes(now, region.image);
    if (!difference.empty()) {
      spoilt.push_back(StrCat(region.name, " (", region.payload_bytes, " bytes, first at ",
                              kGuardBytes, ") was written: ", difference));
    }
  }
  for (CaseOutput& output : outputs_) {
    const Tensor& t = output.tensor;
    std::vector<std::byte> bytes(t.bytes());
    stream_->CopyToHost(bytes.data(), t.data, bytes.size());
    stream_->Wait();
    const size_t size = static_cast<size_t>(Info(t.dtype).block_bytes);
    for (size_t at = 0; at < bytes.size(); at += size) {
      if (t.dtype == DType::kI32) {
        int32_t value;
        std::memcpy(&value, bytes.data() + at, sizeof value);
        output.ints.push_back(value);
      } else {
        output.floats.push_back(DecodeFloat(t.dtype, bytes.data() + at));
      }
    }
  }
  return spoilt;
}

}  // namespace fairlead

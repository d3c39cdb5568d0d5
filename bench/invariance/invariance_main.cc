// SPDX-License-Identifier: Apache-2.0
// invariance: the same row of a product alone and in batches. Whether its bits stay, and how long
// the product takes by the number of rows.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/common/device_tensors.h"
#include "bench/common/launch_timer.h"
#include "bench/common/options.h"
#include "bench/common/stats.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "kernels/strings.h"

namespace fairlead::bench {
namespace {

struct Matrix {
  std::string name;
  int64_t n, k;
};

// A matrix as files store it, no two rows alike: each begins a block later in one long row. An
// output that is another column's, or another row's, is not taken for the right one.
std::vector<std::byte> DistinctRows(DType dtype, const Matrix& matrix) {
  const DTypeInfo& info = Info(dtype);
  const std::vector<std::byte> values =
      RandomMatrix(dtype, 1, matrix.k + matrix.n * info.block_elements);
  const size_t row_bytes = RowBytes(dtype, matrix.k);
  std::vector<std::byte> out(row_bytes * static_cast<size_t>(matrix.n));
  for (size_t row = 0; row < static_cast<size_t>(matrix.n); ++row) {
    std::memcpy(out.data() + row * row_bytes,
                values.data() + row * static_cast<size_t>(info.block_bytes), row_bytes);
  }
  return out;
}

struct Sizes {
  std::vector<Matrix> matrices;
  std::vector<int64_t> tokens;
  size_t bytes = 0;  // copies of a matrix that take turns: more than a cache holds
  LaunchTiming timing;
};

// "full": of an 8B Llama.
Sizes SizesOf(const std::string& scale) {
  if (scale == "tiny") {
    return {.matrices = {{"down", 128, 256}},
            .tokens = {1, 3, 40},
            .bytes = 1,
            .timing = {.repetitions = 2, .time = absl::Milliseconds(5)}};
  }
  return {.matrices = {{"qkv", 6144, 4096}, {"attention out", 4096, 4096}, {"down", 4096, 14336}},
          .tokens = {1, 2, 8, 16, 32, 64, 128, 512, 2048},
          .bytes = size_t{256} << 20,
          .timing = {.repetitions = 3, .time = absl::Milliseconds(8)}};
}

class Products {
 public:
  Products(Device& device, const Sizes& sizes)
      : device_(device), sizes_(sizes), stream_(device.NewStream()) {}

  // Adds a row for each number of tokens.
  absl::Status Run(const Matrix& matrix, DType dtype, Json& rows) {
    const std::vector<std::byte> bytes = DistinctRows(dtype, matrix);
    const WeightPart part{bytes.data(), matrix.n};
    const size_t copies = std::clamp<size_t>(sizes_.bytes / bytes.size(), 1, 64);
    weights_.clear();
    for (size_t i = 0; i < copies; ++i) {
      auto weight = device_.PackWeight(
          {.dtype = dtype, .cols = matrix.k, .parts = absl::MakeConstSpan(&part, 1)});
      if (!weight.ok()) return weight.status();
      weights_.push_back(*std::move(weight));
    }
    const int64_t most = *std::max_element(sizes_.tokens.begin(), sizes_.tokens.end());
    DeviceTensors tensors(device_, *stream_);
    x_ = tensors.Activations({most, matrix.k});
    out_ = tensors.Output(device_.info().activation_dtype, {most, matrix.n});
    if (!tensors.status().ok()) return tensors.status();
    for (const int64_t count : sizes_.tokens) {
      Json row = {{"matrix", matrix.name},
                  {"n", matrix.n},
                  {"k", matrix.k},
                  {"dtype", Info(dtype).name},
                  {"weight_bytes", bytes.size()},
                  {"tokens", count}};
      if (count > 1) row["same_bits"] = HasSameBits(count);  // one row is no batch
      std::vector<double> microseconds;
      size_t turn = 0;
      const auto launch = [&] { Multiply(0, count, turn++ % weights_.size()); };
      for (const double seconds : TimeLaunches(*stream_, launch, sizes_.timing))
        microseconds.push_back(seconds * 1e6);
      row.update(SummaryJson(microseconds));
      rows.push_back(std::move(row));
    }
    return absl::OkStatus();
  }

 private:
  void Multiply(int64_t first, int64_t count, size_t copy) {
    const auto at = [&](const Tensor& t) {
      return Tensor(static_cast<std::byte*>(t.data) + first * RowBytes(t.dtype, t.dim[1]), t.dtype,
                    {count, t.dim[1]});
    };
    device_.ops().Matmul(*stream_, {.x = at(x_), .weight = weights_[copy].get(), .out = at(out_)});
  }

  std::vector<std::byte> Row(int64_t row) {
    const size_t bytes = RowBytes(out_.dtype, out_.dim[1]);
    std::vector<std::byte> out(bytes);
    stream_->CopyToHost(out.data(), static_cast<std::byte*>(out_.data) + row * bytes, bytes);
    stream_->Wait();
    return out;
  }

  // Both products write the same place: what one of them leaves out must not be the other's.
  void Overwrite(int64_t row) {
    const std::vector<std::byte> ones(RowBytes(out_.dtype, out_.dim[1]), std::byte{0xff});
    stream_->CopyToDevice(static_cast<std::byte*>(out_.data) + row * ones.size(), ones.data(),
                          ones.size());
    stream_->Wait();
  }

  // Values that Overwrite left there: no product of finite numbers has all bits set.
  bool HasUnwritten(const std::vector<std::byte>& row) const {
    const size_t size = RowBytes(out_.dtype, 1);
    for (size_t at = 0; at < row.size(); at += size) {
      if (std::all_of(&row[at], &row[at] + size, [](std::byte b) { return b == std::byte{0xff}; }))
        return true;
    }
    return false;
  }

  // Of the first and the last row of so many, each against itself alone.
  bool HasSameBits(int64_t count) {
    for (const int64_t row : {int64_t{0}, count - 1}) {
      Overwrite(row);
      Multiply(row, 1, 0);
      const std::vector<std::byte> alone = Row(row);
      Overwrite(row);
      Multiply(0, count, 0);
      if (Row(row) != alone || HasUnwritten(alone)) return false;
    }
    return true;
  }

  Device& device_;
  const Sizes& sizes_;
  const std::unique_ptr<Stream> stream_;
  std::vector<std::unique_ptr<PackedWeight>> weights_;
  Tensor x_, out_;
};

absl::Status Run(const std::string& name, const std::string& scale, const std::string& path) {
  const auto device = OpenDevice(name, {});
  // Which devices there are is a matter of the machine: no wrong usage.
  if (!device.ok()) return absl::UnavailableError(device.status().message());
  const Sizes sizes = SizesOf(scale);
  Products products(**device, sizes);
  Json rows = Json::array();
  for (const Matrix& matrix : sizes.matrices) {
    for (const DType dtype : {DType::kBF16, DType::kQ8_0, DType::kQ4_0}) {
      if (absl::Status status = products.Run(matrix, dtype, rows); !status.ok()) return status;
    }
  }
  if (path != "-") {
    for (const Json& row : rows) {
      std::printf("%-14s %-5s %5d tokens %12.1f us  %s\n", row["matrix"].get<std::string>().c_str(),
                  row["dtype"].get<std::string>().c_str(), row["tokens"].get<int>(),
                  row["median"].get<double>(),
                  !row.contains("same_bits")     ? ""
                  : row["same_bits"].get<bool>() ? "same bits"
                                                 : "OTHER BITS");
    }
  }
  const bool same = std::all_of(rows.begin(), rows.end(),
                                [](const Json& row) { return row.value("same_bits", true); });
  if (!path.empty()) {
    const Json result = {{"program", "invariance"}, {"rows", std::move(rows)}};
    if (absl::Status status = WriteJson(path, result); !status.ok()) return status;
  }
  return same ? absl::OkStatus() : absl::InternalError("a row's bits depend on its batch");
}

}  // namespace
}  // namespace fairlead::bench

int main(int argc, char** argv) {
  CLI::App app(
      "Whether a row of a product has the same bits alone and in batches, and how long the product "
      "takes by the number of rows.",
      "invariance");
  std::string device = "cpu", scale = "full", json;
  app.add_option("--device", device, "as of fairlead serve")->capture_default_str();
  app.add_option("--scale", scale, "tiny: the sizes of a rehearsal")
      ->capture_default_str()
      ->check(CLI::IsMember({"full", "tiny"}));
  app.add_option("--json", json, "write the results there, '-' is stdout")->type_name("FILE");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = fairlead::bench::Run(device, scale, json);
  if (status.ok()) return 0;
  std::cerr << "error: " << std::string(status.message()) << "\n";
  return 1;
}

// SPDX-License-Identifier: Apache-2.0
// Packed weights from the last start of the program: a folder with a file for each model file,
// device and numerics, which the next start maps instead of packing again.
//
// A file is used only if its identity is the one of now: the stamps of the model's files (size,
// inode, mtime and ctime), a hash of samples of their content, a fingerprint of the layout, for
// which small matrices are packed, and one of the tensors that are made from another form
// (--weight-dtype, quantised safetensors), of which a few rows are made. Any change of a model file
// moves its ctime, which no program can set back; so the content need not be read. Two changes
// within one tick of the kernel's clock (10 ms, a second on some network mounts) would have one
// ctime, so files that changed less than `settle` ago are not stored. The samples are for file
// systems that make their times up.
//
// Everything here is an optimisation: whatever goes wrong, weights are packed as without it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/device.h"
#include "models/packed_file.h"
#include "models/weights.h"

namespace fairlead {

struct WeightCacheOptions {
  std::string folder;  // made when something is stored, for the user alone
  absl::Duration settle = absl::Seconds(2);
  int max_files = 8;  // in the folder: those not used for longest are removed
};

// Used by the thread that loads a model; the store runs on a thread of its own. Lives as long as
// the weights that it gave images to.
class WeightCache {
 public:
  WeightCache(const WeightCacheOptions& options, const WeightSource& source, Device& device);
  ~WeightCache() { StopStoring(); }
  WeightCache(const WeightCache&) = delete;
  WeightCache& operator=(const WeightCache&) = delete;

  const std::string& path() const { return path_; }
  // OK when the weights come from the file, else why not: kNotFound the first time.
  const absl::Status& status() const { return status_; }

  // Of the images that Pack has taken from the file: clean pages, which the system counts as free
  // although every step reads them.
  size_t mapped_bytes() const { return mapped_bytes_; }

  // Packs, or takes the image that the file has under `names` (of the tensors, in order).
  absl::StatusOr<std::unique_ptr<PackedWeight>> Pack(absl::Span<const std::string> names,
                                                     PackWeightArgs args);

  // Writes what Pack has given out, unless the file has it all; `done` is called on another thread,
  // or on this one before it returns. The weights live until then, or until StopStoring.
  void Store(std::function<void(const absl::Status&)> done);
  bool storing() const { return writer_.joinable(); }
  void StopStoring();

 private:
  absl::Status StoreNow();

  const WeightCacheOptions options_;
  Device& device_;
  std::string path_, identity_;
  absl::Status status_, storable_;
  std::optional<PackedFile> file_;
  std::vector<PackedRun> runs_;
  size_t mapped_bytes_ = 0;
  bool complete_ = true;  // the file has had everything
  std::atomic<bool> stop_ = false;
  std::thread writer_;
};

}  // namespace fairlead

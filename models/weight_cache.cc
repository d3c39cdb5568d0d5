// SPDX-License-Identifier: Apache-2.0
#include "models/weight_cache.h"

#include <fcntl.h>
#include <sys/stat.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <map>
#include <random>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "kernels/check.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

namespace fs = std::filesystem;

constexpr char kSuffix[] = ".weights";
constexpr size_t kSamples = 16;  // of a file; each may cost a read of its own
constexpr size_t kSampleBytes = 4096;
constexpr size_t kLongestStem = 64;
// Of a tensor that is made: neighbouring rows are cheaper together.
constexpr int64_t kMadeRows = 64;
// More threads do not read faster, and the start has other work for them.
constexpr unsigned kMostThreads = 4;
// A cache must not be what fills a disk. On small ones a twentieth is left.
constexpr uintmax_t kSpareDiskBytes = uintmax_t{1} << 30;

std::string Hex(uint64_t value) { return StrCat(absl::Hex(value, absl::kZeroPad16)); }

uint64_t HashSamples(absl::Span<const std::byte> bytes) {
  const size_t size = std::min(kSampleBytes, bytes.size());
  uint64_t hash = 0;
  for (size_t i = 0; i < kSamples; ++i) {
    // Spread from the first byte to the last. In this order nothing overflows.
    const size_t begin = (bytes.size() - size) / (kSamples - 1) * i;
    hash = XXH3_64bits_withSeed(bytes.data() + begin, size, hash);
  }
  return hash;
}

// Packs matrices of known bytes: another layout gives another image. Two shapes, in one part and in
// two, embeddings, groups and others, since a layout may depend on them; nothing is written in a
// device's own words, so no version is forgotten.
uint64_t LayoutFingerprint(const WeightSource& source, Device& device) {
  std::set<DType> dtypes;
  for (const WeightInfo& tensor : source.tensors()) dtypes.insert(tensor.dtype);
  uint64_t hash = 0;
  std::mt19937_64 random(1);
  for (const DType dtype : dtypes) {
    for (const auto& [rows, cols] : {std::pair{40, 256}, std::pair{128, 2048}}) {
      std::vector<uint64_t> values(rows * RowBytes(dtype, cols) / sizeof(uint64_t));
      for (uint64_t& value : values) value = random();
      const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
      const WeightPart whole[] = {{bytes, rows}};
      const WeightPart split[] = {{bytes, 7}, {bytes + 7 * RowBytes(dtype, cols), rows - 7}};
      const PackWeightArgs kinds[] = {
          {.dtype = dtype, .cols = cols, .parts = whole},
          {.dtype = dtype, .cols = cols, .parts = split},
          {.dtype = dtype, .cols = cols, .parts = whole, .embedding = true},
          {.dtype = dtype, .cols = cols, .parts = whole, .groups = 8}};
      for (const PackWeightArgs& args : kinds) {
        const auto packed = device.PackWeight(args);
        if (!packed.ok()) continue;  // a type for vectors, or one that loading will refuse
        const absl::Span<const std::byte> image = (*packed)->image();
        hash = XXH3_64bits_withSeed(image.data(), image.size(), hash);
      }
    }
  }
  return hash;
}

// Of tensors that are made from another form when they are read: which they are, and what is made
// of the first rows of the smallest of each form, since another version may make other bytes of
// them.
uint64_t FormsFingerprint(const WeightSource& source) {
  std::map<std::string, const WeightInfo*> smallest;
  uint64_t hash = 0;
  for (const WeightInfo& tensor : source.tensors()) {
    if (!tensor.make) continue;
    const std::string form = StrCat(tensor.file_dtype, " as ", Info(tensor.dtype).name);
    const std::string text = StrCat(tensor.name, " ", form);
    hash = XXH3_64bits_withSeed(text.data(), text.size(), hash);
    const WeightInfo*& least = smallest[form];
    if (least == nullptr || tensor.bytes < least->bytes) least = &tensor;
  }
  for (const auto& [form, tensor] : smallest) {
    const int64_t rows = std::min(kMadeRows, tensor->rows());
    const WeightBytes made(*tensor, 0, rows);
    const size_t bytes = static_cast<size_t>(rows) * RowBytes(tensor->dtype, tensor->dim.back());
    hash = XXH3_64bits_withSeed(made.data(), bytes, hash);
  }
  return hash;
}

std::string IdentityOf(const WeightSource& source, Device& device) {
  std::string text = StrCat(
      "device ", device.info().name, " ", NumericsName(device.info().numerics), " layout ",
      Hex(LayoutFingerprint(source, device)), " forms ", Hex(FormsFingerprint(source)), "\n");
  for (const MmapFile& file : source.files()) {
    const FileStamp& stamp = file.stamp();
    StrAppend(&text, "file ", stamp.bytes, " bytes inode ", stamp.inode, " mtime ", stamp.mtime_ns,
              " ctime ", stamp.ctime_ns, " samples ", Hex(HashSamples(file.bytes())), "\n");
  }
  return text;
}

// Of the model's path, so that a model that is replaced replaces its file.
std::string FileNameOf(const WeightSource& source, const DeviceInfo& info) {
  std::error_code error;
  fs::path path = fs::absolute(source.path(), error).lexically_normal();
  if (path.filename().empty()) path = path.parent_path();
  std::string stem = path.stem().string().substr(0, kLongestStem);
  for (char& c : stem) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '.') c = '_';
  }
  const std::string what =
      StrCat(path.string(), "\n", info.name, "\n", NumericsName(info.numerics));
  return StrCat(stem, "-", Hex(XXH3_64bits(what.data(), what.size())), kSuffix);
}

absl::Status CheckStorable(const WeightSource& source, absl::Duration settle) {
  if (source.files().empty()) {
    return absl::FailedPreconditionError("the weights are not from files");
  }
  for (const MmapFile& file : source.files()) {
    const absl::Duration age = absl::Now() - absl::FromUnixNanos(file.stamp().ctime_ns);
    if (age < settle) {
      return absl::FailedPreconditionError(
          "a file of the model has only just changed, or the clock is behind its time; a later "
          "start "
          "will store them");
    }
  }
  return absl::OkStatus();
}

absl::Status MakeFolder(const fs::path& folder) {
  std::error_code error;
  if (fs::is_directory(folder, error)) return absl::OkStatus();
  fs::create_directories(folder.parent_path(), error);
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, "the folder cannot be made");
  }
  return absl::OkStatus();
}

// Whether FileNameOf may have made it: the folder may hold files of others.
bool IsCacheFile(const fs::path& path) {
  const std::string stem = path.stem().string();
  return path.extension() == kSuffix && stem.size() >= 17 && stem[stem.size() - 17] == '-' &&
         std::all_of(stem.end() - 16, stem.end(),
                     [](unsigned char c) { return absl::ascii_isxdigit(c) != 0; });
}

// Keeps the most recently used files.
void RemoveOldFiles(const fs::path& folder, int keep) {
  std::vector<std::pair<fs::file_time_type, fs::path>> files;
  std::error_code error;
  for (fs::directory_iterator at(folder, error); !error && at != fs::directory_iterator();
       at.increment(error)) {
    std::error_code gone;
    if (!IsCacheFile(at->path()) || !at->is_regular_file(gone)) continue;
    files.emplace_back(at->last_write_time(gone), at->path());
  }
  std::sort(files.rbegin(), files.rend());
  for (size_t i = keep; i < files.size(); ++i) fs::remove(files[i].second, error);
}

}  // namespace

WeightCache::WeightCache(const WeightCacheOptions& options, const WeightSource& source,
                         Device& device)
    : options_(options),
      device_(device),
      path_((fs::path(options.folder) / FileNameOf(source, device.info())).string()),
      storable_(CheckStorable(source, options.settle)) {
  if (source.files().empty()) {
    status_ = storable_;
    return;
  }
  identity_ = IdentityOf(source, device);
  const unsigned threads = std::clamp(std::thread::hardware_concurrency(), 1u, kMostThreads);
  absl::StatusOr<PackedFile> file = PackedFile::Open(path_, identity_, static_cast<int>(threads));
  status_ = file.status();
  if (!file.ok()) return;
  file_ = *std::move(file);
  utimensat(AT_FDCWD, path_.c_str(), nullptr, 0);  // used now; a folder may be read-only
}

absl::StatusOr<std::unique_ptr<PackedWeight>> WeightCache::Pack(absl::Span<const std::string> names,
                                                                PackWeightArgs args) {
  int64_t rows = 0;
  for (const WeightPart& part : args.parts) rows += part.rows;
  std::string key = StrCat(Info(args.dtype).name, " ", rows, "x", args.cols,
                           args.embedding ? " embedding " : " ", absl::StrJoin(names, "+"));
  if (args.groups > 1) StrAppend(&key, " in ", args.groups);  // each padded on its own
  const absl::Span<const std::byte>* found = file_ ? file_->Find(key) : nullptr;
  if (found != nullptr) args.image = *found;
  auto packed = device_.PackWeight(args);
  if (!packed.ok()) return packed;
  const absl::Span<const std::byte> image = (*packed)->image();
  if (found == nullptr || image.size() != found->size()) complete_ = false;
  if (found != nullptr && image.data() == found->data()) mapped_bytes_ += image.size();
  runs_.push_back({std::move(key), image});
  return packed;
}

void WeightCache::Store(std::function<void(const absl::Status&)> done) {
  if (complete_ && file_) return;
  if (!storable_.ok()) return done(storable_);
  try {
    writer_ = std::thread([this, done] { done(StoreNow()); });
  } catch (const std::system_error& error) {
    done(absl::ResourceExhaustedError(StrCat("no thread for it: ", std::string(error.what()))));
  }
}

void WeightCache::StopStoring() {
  stop_ = true;
  if (writer_.joinable()) writer_.join();
}

absl::Status WeightCache::StoreNow() {
  const fs::path folder = fs::path(path_).parent_path();
  if (absl::Status status = MakeFolder(folder); !status.ok()) return status;
  RemoveAbandonedFiles(path_);
  size_t bytes = 0;
  for (const PackedRun& run : runs_) bytes += run.bytes.size();
  std::error_code error;
  const fs::space_info space = fs::space(folder, error);
  const uintmax_t spare = std::min<uintmax_t>(space.capacity / 20, kSpareDiskBytes);
  if (!error && space.available < bytes + spare) {
    return absl::ResourceExhaustedError(StrCat("it takes ", bytes, " bytes, and ", space.available,
                                               " are free on that disk, of which ", spare,
                                               " are left alone"));
  }
  absl::Status status = WritePackedFile(path_, identity_, runs_, stop_);
  if (status.ok()) RemoveOldFiles(folder, options_.max_files);
  return status;
}

}  // namespace fairlead

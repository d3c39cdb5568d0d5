// SPDX-License-Identifier: Apache-2.0
#include "models/weight_cache.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <future>

#include "models/convert_weights.h"
#include "tests/models/checkpoint_bytes.h"
#include "tests/models/model_runner.h"
#include "tests/reference/reference_device.h"

namespace fairlead {
namespace {

using ::testing::HasSubstr;

constexpr int kTokens = 32;

class WeightCacheTest : public ::testing::Test {
 protected:
  WeightCacheTest() {
    std::filesystem::copy(std::string(FAIRLEAD_GOLDEN_DIR) + "/gguf/tiny-llama.gguf", model_);
    options_.settle = -absl::InfiniteDuration();
  }

  static std::unique_ptr<Device> Cpu(Numerics numerics = Numerics::kPrecise) {
    auto device = OpenDevice("cpu", {.threads = 2, .numerics = numerics});
    EXPECT_TRUE(device.ok()) << device.status();
    return *std::move(device);
  }

  struct Start {
    absl::Status status;                // of the cache when it was opened
    std::optional<absl::Status> store;  // nothing: nothing was left to store
    std::vector<float> logits;
  };
  // One start of the program, up to its first logits and the end of the store.
  Start Run(std::unique_ptr<Device> device) {
    Start start;
    std::shared_ptr<WeightCache> cache;
    auto runner = ModelRunner::Open(
        model_, std::move(device), kTokens, [&](const WeightSource& source, Device& opened) {
          cache = std::make_shared<WeightCache>(options_, source, opened);
          return cache;
        });
    EXPECT_TRUE(runner.ok()) << runner.status();
    start.status = cache->status();
    path_ = cache->path();
    start.logits = (*runner)->Run({1, 2, 3, 4, 0}, 5);
    std::promise<absl::Status> stored;
    bool called = false;
    cache->Store([&](const absl::Status& status) {
      called = true;
      stored.set_value(status);
    });
    if (cache->storing() || called) start.store = stored.get_future().get();
    return start;
  }
  Start Run() { return Run(Cpu()); }

  TemporaryFolder folder_;
  const std::string model_ = folder_.path() + "/tiny.gguf";
  WeightCacheOptions options_{.folder = folder_.path() + "/cache/weights"};
  std::string path_;
};

TEST_F(WeightCacheTest, TheSecondStartMapsWhatTheFirstOneStored) {
  const Start first = Run();
  EXPECT_TRUE(absl::IsNotFound(first.status)) << first.status;
  ASSERT_TRUE(first.store.has_value());
  EXPECT_TRUE(first.store->ok()) << *first.store;
  struct stat folder = {};
  ASSERT_EQ(stat(options_.folder.c_str(), &folder), 0);
  EXPECT_EQ(folder.st_mode & 0777, 0700u);

  const Start second = Run();
  EXPECT_TRUE(second.status.ok()) << second.status;
  EXPECT_FALSE(second.store.has_value());
  EXPECT_EQ(second.logits, first.logits);
}

TEST_F(WeightCacheTest, WeightsAreReadInPlace) {
  Run();
  const auto source = OpenWeights(model_);
  const auto device = Cpu();
  WeightCache cache(options_, **source, *device);
  const WeightInfo& info = *(*source)->Find("model.layers.0.mlp.down_proj.weight");
  const WeightPart part{info.data, info.dim[0]};
  const PackWeightArgs args{
      .dtype = info.dtype, .cols = info.dim[1], .parts = absl::MakeConstSpan(&part, 1)};
  const auto packed = device->PackWeight(args);
  const auto mapped = cache.Pack({info.name}, args);
  ASSERT_TRUE(packed.ok() && mapped.ok());
  EXPECT_TRUE((*mapped)->image() == (*packed)->image());
  const auto again = cache.Pack({info.name}, args);
  EXPECT_EQ((*again)->image().data(), (*mapped)->image().data());  // no copy
  EXPECT_NE((*device->PackWeight(args))->image().data(), (*packed)->image().data());
}

TEST_F(WeightCacheTest, AChangedModelIsNoticedWhateverItsTimeSays) {
  const Start first = Run();
  // The last tensor's last byte: not in the header, and the old times are put back.
  struct stat before = {};
  ASSERT_EQ(stat(model_.c_str(), &before), 0);
  std::string bytes = ReadWholeFile(model_);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  folder_.Write("tiny.gguf", bytes);
  const timespec times[2] = {before.st_atim, before.st_mtim};
  ASSERT_EQ(utimensat(AT_FDCWD, model_.c_str(), times, 0), 0);

  const Start changed = Run();
  EXPECT_TRUE(absl::IsFailedPrecondition(changed.status)) << changed.status;
  EXPECT_NE(changed.logits, first.logits);
  ASSERT_TRUE(changed.store.has_value());
  const Start again = Run();
  EXPECT_TRUE(again.status.ok()) << again.status;
  EXPECT_EQ(again.logits, changed.logits);
}

// The files are the same ones; what is made of them is not.
TEST_F(WeightCacheTest, ConvertedWeightsAreNotThoseOfTheFile) {
  Run();
  const auto device = Cpu();
  const auto status = [&](std::optional<DType> dtype) {
    auto source = OpenWeights(model_);
    if (dtype) source = ConvertWeights(*std::move(source), *dtype);
    EXPECT_TRUE(source.ok()) << source.status();
    return WeightCache(options_, **source, *device).status();
  };
  EXPECT_TRUE(status(std::nullopt).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(status(DType::kF32))) << status(DType::kF32);
  EXPECT_TRUE(absl::IsFailedPrecondition(status(DType::kBF16)));
}

TEST_F(WeightCacheTest, ADamagedFileIsReplaced) {
  const Start first = Run();
  for (const double where : {0.001, 0.3, 0.999}) {
    std::string bytes = ReadWholeFile(path_);
    char& byte = bytes[static_cast<size_t>(where * static_cast<double>(bytes.size()))];
    byte = static_cast<char>(byte ^ 1);
    std::ofstream(path_, std::ios::binary) << bytes;
    const Start damaged = Run();
    EXPECT_TRUE(absl::IsDataLoss(damaged.status)) << damaged.status;
    EXPECT_EQ(damaged.logits, first.logits);
    EXPECT_TRUE(Run().status.ok());
  }
}

TEST_F(WeightCacheTest, AnotherModelsFileIsNotUsed) {
  const Start first = Run();
  const std::string own = path_;
  const std::string other_model = folder_.path() + "/other.gguf";
  std::string bytes = ReadWholeFile(model_);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  folder_.Write("other.gguf", bytes);
  std::filesystem::rename(other_model, model_);  // the same path, size and shapes
  std::filesystem::remove(own);
  Run();
  const std::string foreign = ReadWholeFile(path_);
  std::filesystem::remove(model_);
  std::filesystem::copy(std::string(FAIRLEAD_GOLDEN_DIR) + "/gguf/tiny-llama.gguf", model_);
  std::ofstream(path_, std::ios::binary) << foreign;
  const Start start = Run();
  EXPECT_TRUE(absl::IsFailedPrecondition(start.status)) << start.status;
  EXPECT_EQ(start.logits, first.logits);
}

TEST_F(WeightCacheTest, NumericsHaveFilesOfTheirOwn) {
  Run();
  const std::string precise = path_;
  EXPECT_TRUE(absl::IsNotFound(Run(Cpu(Numerics::kFloat32)).status));
  EXPECT_NE(path_, precise);
  EXPECT_TRUE(Run().status.ok());
}

TEST_F(WeightCacheTest, AModelThatHasJustChangedIsNotStored) {
  options_.settle = absl::Hours(1);
  const Start start = Run();
  ASSERT_TRUE(start.store.has_value());
  EXPECT_THAT(std::string(start.store->message()), HasSubstr("only just changed"));
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(WeightCacheTest, AFolderThatCannotBeIsNoFault) {
  options_.folder = folder_.Write("file", "no folder") + "/weights";
  const Start start = Run();
  EXPECT_FALSE(start.status.ok());
  ASSERT_TRUE(start.store.has_value());
  EXPECT_FALSE(start.store->ok());
}

TEST_F(WeightCacheTest, ALayoutThatIsNotOursToKeepIsPackedEachTime) {
  const Start first = Run(reference::MakeReferenceDevice());
  ASSERT_TRUE(first.store.has_value());
  EXPECT_TRUE(first.store->ok()) << *first.store;
  const Start second = Run(reference::MakeReferenceDevice());
  EXPECT_TRUE(second.status.ok()) << second.status;
  EXPECT_FALSE(second.store.has_value());  // the file says so, and is not written again
  EXPECT_EQ(second.logits, first.logits);
}

TEST_F(WeightCacheTest, TheLeastRecentlyUsedFilesGo) {
  options_.max_files = 2;
  Run();
  const std::string oldest = path_;
  const auto age = [](const std::string& path, int hours) {
    std::filesystem::last_write_time(
        path, std::filesystem::file_time_type::clock::now() - std::chrono::hours(hours));
  };
  Run(Cpu(Numerics::kFloat32));
  const std::string used = path_;
  age(oldest, 1);
  age(used, 2);
  Run(Cpu(Numerics::kFloat32));  // now it is the one used last
  Run(Cpu(Numerics::kFast));
  EXPECT_FALSE(std::filesystem::exists(oldest));
  EXPECT_TRUE(std::filesystem::exists(used));
  EXPECT_TRUE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace fairlead

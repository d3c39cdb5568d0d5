// SPDX-License-Identifier: Apache-2.0
// What the reader may meet: cut, flipped, forged, foreign and half-written files.
#include "models/packed_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "tests/models/checkpoint_bytes.h"

namespace fairlead {
namespace {

using ::testing::HasSubstr;

constexpr size_t kHeaderBytes = 40;
const std::atomic<bool> kGoOn = false;

Bytes Pattern(size_t size, unsigned step) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * step + (i >> 8));
  return bytes;
}

class PackedFileTest : public ::testing::Test {
 protected:
  void Store(absl::Span<const PackedRun> runs) {
    ASSERT_TRUE(WritePackedFile(path_, "me", runs, kGoOn).ok());
  }
  void StoreSmall() { Store({{"a", small_}, {"b", {}}, {"c", absl::MakeSpan(small_).subspan(5)}}); }
  absl::Status OpenStatus() const { return PackedFile::Open(path_, "me", 2).status(); }
  size_t FilesInFolder() const {
    return std::distance(std::filesystem::directory_iterator(folder_.path()), {});
  }
  // The header and a payload of zeros around an index, with right hashes: only its numbers lie.
  void Forge(const std::string& index, size_t payload_bytes) {
    std::string file = "FLWEIGHT";
    const size_t payload_begin = (kHeaderBytes + index.size() + 4095) / 4096 * 4096;
    Put<uint32_t>(file, 1);
    Put<uint32_t>(file, 0);
    Put<uint64_t>(file, payload_begin + payload_bytes);
    Put<uint64_t>(file, index.size());
    Put<uint64_t>(file, XXH3_64bits(index.data(), index.size()));
    file += index;
    file.resize(payload_begin + payload_bytes);
    folder_.Write("model.weights", file);
  }
  static std::string Index(uint64_t offset, uint64_t bytes, uint32_t entries = 1,
                           uint32_t hashes = 1) {
    std::string index;
    Put<uint32_t>(index, 2);
    index += "me";
    Put<uint32_t>(index, entries);
    Put<uint32_t>(index, 1);
    index += "a";
    Put<uint64_t>(index, offset);
    Put<uint64_t>(index, bytes);
    Put<uint32_t>(index, hashes);
    const std::string zeros(4096, '\0');
    Put<uint64_t>(index, XXH3_64bits(zeros.data(), zeros.size()));
    return index;
  }

  TemporaryFolder folder_;
  const std::string path_ = folder_.path() + "/model.weights";
  Bytes small_ = Pattern(5000, 7);
};

TEST_F(PackedFileTest, GivesBackWhatWasWritten) {
  const Bytes large = Pattern((9 << 20) + 17, 13);  // three chunks
  Store({{"small", small_}, {"empty", {}}, {"large", large}});
  const auto file = PackedFile::Open(path_, "me", 3);
  ASSERT_TRUE(file.ok()) << file.status();
  using Entry = std::pair<const char*, const Bytes*>;
  for (const auto& [key, bytes] : {Entry("small", &small_), Entry("large", &large)}) {
    const absl::Span<const std::byte>* found = file->Find(key);
    ASSERT_NE(found, nullptr);
    EXPECT_TRUE(*found == absl::MakeConstSpan(*bytes)) << key;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(found->data()) % 4096, 0u);
  }
  ASSERT_NE(file->Find("empty"), nullptr);
  EXPECT_TRUE(file->Find("empty")->empty());
  EXPECT_EQ(file->Find("other"), nullptr);
}

TEST_F(PackedFileTest, IsForTheUserAlone) {
  const mode_t before = umask(0);
  StoreSmall();
  umask(before);
  struct stat info = {};
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(FilesInFolder(), 1u);
}

TEST_F(PackedFileTest, StandsAsDescribed) {
  StoreSmall();
  const std::string file = ReadWholeFile(path_);
  // A page for header and index, two for `a`, none for `b`, two for `c`.
  ASSERT_EQ(file.size(), 5u * 4096);
  EXPECT_EQ(file.substr(0, 8), "FLWEIGHT");
  EXPECT_EQ(file.substr(kHeaderBytes, 6), std::string("\2\0\0\0me", 6));
  EXPECT_EQ(ToBytes(file.substr(4096, small_.size())), small_);
  EXPECT_EQ(ToBytes(file.substr(4096 * 3, small_.size() - 5)),
            Bytes(small_.begin() + 5, small_.end()));
}

TEST_F(PackedFileTest, EveryLengthButItsOwnIsRefused) {
  StoreSmall();
  const std::string file = ReadWholeFile(path_);
  for (size_t size = 0; size < file.size(); ++size) {
    ASSERT_EQ(truncate(path_.c_str(), static_cast<off_t>(file.size() - 1 - size)), 0);
    EXPECT_TRUE(absl::IsDataLoss(OpenStatus())) << size << " bytes cut: " << OpenStatus();
  }
  folder_.Write("model.weights", file + '\0');
  EXPECT_TRUE(absl::IsDataLoss(OpenStatus()));
  folder_.Write("model.weights", file);
  EXPECT_TRUE(OpenStatus().ok());
}

TEST_F(PackedFileTest, EveryFlippedBitIsRefused) {
  StoreSmall();
  const std::string file = ReadWholeFile(path_);
  const int fd = open(path_.c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  for (size_t i = 0; i < file.size(); ++i) {
    const char flipped = static_cast<char>(file[i] ^ (1 << i % 8));
    ASSERT_EQ(pwrite(fd, &flipped, 1, static_cast<off_t>(i)), 1);
    EXPECT_FALSE(OpenStatus().ok()) << "byte " << i;
    ASSERT_EQ(pwrite(fd, &file[i], 1, static_cast<off_t>(i)), 1);
  }
  close(fd);
  EXPECT_TRUE(OpenStatus().ok());
}

TEST_F(PackedFileTest, NumbersThatLieAreRefused) {
  constexpr uint64_t kMost = ~uint64_t{0};
  Forge(Index(0, 4096), 4096);
  ASSERT_TRUE(OpenStatus().ok()) << OpenStatus();  // else the forgeries below prove nothing
  for (const auto& [offset, bytes] :
       std::vector<std::pair<uint64_t, uint64_t>>{{0, 4097},
                                                  {4096, 1},
                                                  {8192, 0},
                                                  {1, 1},
                                                  {kMost - 4095, 4096},
                                                  {0, kMost},
                                                  {kMost, kMost}}) {
    Forge(Index(offset, bytes), 4096);
    EXPECT_TRUE(absl::IsDataLoss(OpenStatus())) << offset << " " << bytes;
  }
  for (const auto& [entries, hashes] : std::vector<std::pair<uint32_t, uint32_t>>{
           {0, 1}, {2, 1}, {~0u, 1}, {1, 0}, {1, 2}, {1, ~0u}}) {
    Forge(Index(0, 4096, entries, hashes), 4096);
    EXPECT_TRUE(absl::IsDataLoss(OpenStatus())) << entries << " " << hashes;
  }
  Forge(Index(0, 4096), 8192);  // a page that no hash covers
  EXPECT_TRUE(absl::IsDataLoss(OpenStatus()));
  Forge(Index(0, 4096) + "x", 4096);
  EXPECT_TRUE(absl::IsDataLoss(OpenStatus()));
}

TEST_F(PackedFileTest, AnotherIdentityOrVersionIsNotDamage) {
  StoreSmall();
  EXPECT_TRUE(absl::IsFailedPrecondition(PackedFile::Open(path_, "you", 1).status()));
  std::string file = ReadWholeFile(path_);
  file[8] = 0;
  folder_.Write("model.weights", file);
  EXPECT_TRUE(absl::IsFailedPrecondition(OpenStatus()));
  EXPECT_THAT(std::string(OpenStatus().message()), HasSubstr("version 0, not 1"));
}

TEST_F(PackedFileTest, WhatIsNoFileIsAnError) {
  EXPECT_TRUE(absl::IsNotFound(OpenStatus()));
  std::filesystem::create_directory(path_);
  EXPECT_FALSE(OpenStatus().ok());
  EXPECT_FALSE(WritePackedFile(path_, "me", {}, kGoOn).ok());
  EXPECT_EQ(FilesInFolder(), 1u);  // nothing of the failed one stays
}

TEST_F(PackedFileTest, AStoppedWriterLeavesNothing) {
  const std::atomic<bool> stop = true;
  EXPECT_TRUE(absl::IsCancelled(WritePackedFile(path_, "me", {{"a", small_}}, stop)));
  EXPECT_EQ(FilesInFolder(), 0u);
}

TEST_F(PackedFileTest, OnlyAbandonedFilesAreRemoved) {
  folder_.Write("model.weights.1.tmp", "left by a writer that was killed");
  folder_.Write("another.weights.1.tmp", "of another model");
  const std::string held = folder_.Write("model.weights.2.tmp", "of a writer that lives");
  const int fd = open(held.c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(flock(fd, LOCK_EX), 0);
  RemoveAbandonedFiles(path_);
  EXPECT_FALSE(std::filesystem::exists(folder_.path() + "/model.weights.1.tmp"));
  EXPECT_TRUE(std::filesystem::exists(held));
  EXPECT_TRUE(std::filesystem::exists(folder_.path() + "/another.weights.1.tmp"));
  close(fd);
}

// Two processes write, this one reads: at any time the file is a whole one of either.
TEST_F(PackedFileTest, ReadersNeverSeeHalfAFile) {
  const Bytes one = Pattern(300000, 3), other = Pattern(300000, 5);
  Store({{"a", one}});
  std::vector<pid_t> writers;
  for (const Bytes* bytes : {&one, &other}) {
    writers.push_back(fork());
    ASSERT_GE(writers.back(), 0);
    if (writers.back() > 0) continue;
    bool ok = true;
    for (int i = 0; i < 50; ++i) ok &= WritePackedFile(path_, "me", {{"a", *bytes}}, kGoOn).ok();
    _exit(ok ? 0 : 1);
  }
  for (const pid_t writer : writers) {
    int status = 0;
    do {
      const auto file = PackedFile::Open(path_, "me", 1);
      ASSERT_TRUE(file.ok()) << file.status();
      const absl::Span<const std::byte> found = *file->Find("a");
      EXPECT_TRUE(found == absl::MakeConstSpan(one) || found == absl::MakeConstSpan(other));
    } while (waitpid(writer, &status, WNOHANG) == 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(FilesInFolder(), 1u);
}

}  // namespace
}  // namespace fairlead

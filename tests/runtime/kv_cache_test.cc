// SPDX-License-Identifier: Apache-2.0
#include "runtime/kv_cache.h"

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <utility>

#include "gtest/gtest.h"

namespace fairlead {
namespace {

constexpr int kBlockTokens = 4;

std::vector<Token> Range(int first, int count) {
  std::vector<Token> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(first + i);
  return tokens;
}

std::vector<Token> Join(std::vector<Token> a, const std::vector<Token>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

uint64_t CollidingHash(uint64_t, absl::Span<const Token>) { return 7; }
// Three bits: many collisions, several buckets.
uint64_t NarrowHash(uint64_t chain, absl::Span<const Token> tokens) {
  uint64_t sum = chain;
  for (const Token token : tokens) sum += static_cast<uint64_t>(token);
  return sum & 7;
}

// A table that has computed `tokens`, as a sequence would.
BlockTable Computed(KvCache& cache, uint64_t salt, const std::vector<Token>& tokens) {
  BlockTable table;
  cache.Attach(salt, tokens, table);
  EXPECT_TRUE(cache.Grow(table, static_cast<int>(tokens.size())));
  cache.Publish(salt, table, tokens);
  return table;
}

int Reusable(KvCache& cache, uint64_t salt, const std::vector<Token>& tokens) {
  BlockTable table;
  const int reused = cache.Attach(salt, tokens, table);
  cache.Release(table);
  return reused;
}

TEST(KvCacheTest, StartsFree) {
  const KvCache cache(8, kBlockTokens, true);
  EXPECT_EQ(cache.num_blocks(), 8);
  EXPECT_EQ(cache.num_free_blocks(), 8);
  EXPECT_EQ(cache.num_used_blocks(), 0);
  EXPECT_EQ(cache.num_cached_blocks(), 0);
  EXPECT_EQ(cache.num_available_blocks(), 8);
  EXPECT_EQ(cache.BlocksFor(0), 0);
  EXPECT_EQ(cache.BlocksFor(4), 1);
  EXPECT_EQ(cache.BlocksFor(5), 2);
}

TEST(KvCacheTest, GrowHandsOutDistinctBlocksAndFailsWithoutChange) {
  KvCache cache(4, kBlockTokens, true);
  BlockTable a, b;
  EXPECT_TRUE(cache.Grow(a, 9));
  EXPECT_EQ(a.block.size(), 3u);
  EXPECT_TRUE(cache.Grow(a, 12));
  EXPECT_EQ(a.block.size(), 3u);
  EXPECT_FALSE(cache.Grow(b, 5));
  EXPECT_TRUE(b.block.empty());
  EXPECT_EQ(cache.num_free_blocks(), 1);
  EXPECT_TRUE(cache.Grow(b, 4));
  EXPECT_EQ(std::set<int32_t>({a.block[0], a.block[1], a.block[2], b.block[0]}),
            std::set<int32_t>({0, 1, 2, 3}));
  cache.Release(a);
  cache.Release(b);
  EXPECT_EQ(cache.num_free_blocks(), 4);
}

TEST(KvCacheTest, ShrinkGivesBackTheTailAndKeepsWhatIsPublished) {
  KvCache cache(8, kBlockTokens, true);
  BlockTable table = Computed(cache, 0, Range(0, 8));
  ASSERT_TRUE(cache.Grow(table, 17));
  EXPECT_EQ(cache.num_free_blocks(), 3);
  cache.Shrink(table, 9);
  EXPECT_EQ(table.block.size(), 3u);
  EXPECT_EQ(cache.num_free_blocks(), 5);
  cache.Shrink(table, 0);
  EXPECT_EQ(table.block.size(), 2u);
  EXPECT_EQ(cache.num_free_blocks(), 6);
  EXPECT_EQ(Reusable(cache, 0, Range(0, 9)), 8);
  cache.Release(table);
  EXPECT_EQ(cache.num_used_blocks(), 0);
}

TEST(KvCacheTest, PublishedPrefixIsShared) {
  KvCache cache(8, kBlockTokens, true);
  const BlockTable a = Computed(cache, 1, Range(0, 10));
  BlockTable b;
  EXPECT_EQ(cache.Attach(1, Join(Range(0, 8), Range(50, 5)), b), 8);
  EXPECT_EQ(b.block, std::vector<int32_t>(a.block.begin(), a.block.begin() + 2));
  EXPECT_EQ(cache.num_used_blocks(), 3);
}

TEST(KvCacheTest, OneTokenIsLeftToCompute) {
  KvCache cache(8, kBlockTokens, true);
  BlockTable a = Computed(cache, 0, Range(0, 8));
  cache.Release(a);
  EXPECT_EQ(Reusable(cache, 0, Range(0, 8)), 4);
  EXPECT_EQ(Reusable(cache, 0, Range(0, 9)), 8);
  EXPECT_EQ(Reusable(cache, 0, Range(0, 4)), 0);
}

TEST(KvCacheTest, SaltsDoNotShare) {
  for (const auto hash : {HashBlock, CollidingHash}) {
    KvCache cache(8, kBlockTokens, true, hash);
    BlockTable a = Computed(cache, 1, Range(0, 9));
    EXPECT_EQ(Reusable(cache, 1, Range(0, 9)), 8);
    EXPECT_EQ(Reusable(cache, 2, Range(0, 9)), 0);
  }
}

TEST(KvCacheTest, ACollisionIsNotAHit) {
  KvCache cache(16, kBlockTokens, true, CollidingHash);
  BlockTable a = Computed(cache, 0, Range(0, 13));
  BlockTable b = Computed(cache, 0, Range(100, 13));
  EXPECT_EQ(cache.num_used_blocks(), 8);
  EXPECT_EQ(Reusable(cache, 0, Range(0, 13)), 12);
  EXPECT_EQ(Reusable(cache, 0, Range(100, 13)), 12);
  EXPECT_EQ(Reusable(cache, 0, Range(200, 13)), 0);
  // The same second block after another first one.
  EXPECT_EQ(Reusable(cache, 0, Join(Range(100, 4), Range(4, 9))), 4);
}

TEST(KvCacheTest, SharingCanBeTurnedOff) {
  KvCache cache(8, kBlockTokens, false);
  BlockTable a = Computed(cache, 0, Range(0, 9));
  EXPECT_EQ(Reusable(cache, 0, Range(0, 9)), 0);
  cache.Release(a);
  EXPECT_EQ(cache.num_free_blocks(), 8);
}

TEST(KvCacheTest, TheSameContentTwiceBecomesOneBlock) {
  KvCache cache(8, kBlockTokens, true);
  BlockTable a, b;
  ASSERT_TRUE(cache.Grow(a, 9));
  ASSERT_TRUE(cache.Grow(b, 9));
  EXPECT_EQ(cache.num_used_blocks(), 6);
  cache.Publish(0, a, Range(0, 9));
  cache.Publish(0, b, Range(0, 9));
  EXPECT_EQ(a.block[0], b.block[0]);
  EXPECT_EQ(a.block[1], b.block[1]);
  EXPECT_NE(a.block[2], b.block[2]);
  EXPECT_EQ(cache.num_used_blocks(), 4);
}

TEST(KvCacheTest, ReferencesKeepABlockUsed) {
  KvCache cache(8, kBlockTokens, true);
  BlockTable a = Computed(cache, 0, Range(0, 5));
  BlockTable b = Computed(cache, 0, Range(0, 5));
  cache.Release(a);
  EXPECT_EQ(cache.num_used_blocks(), 2);
  EXPECT_EQ(cache.num_cached_blocks(), 0);
  cache.Release(b);
  EXPECT_EQ(cache.num_used_blocks(), 0);
  EXPECT_EQ(cache.num_cached_blocks(), 1);
  EXPECT_EQ(cache.num_free_blocks(), 7);
}

TEST(KvCacheTest, TheLeastRecentlyUsedGoesFirstAndTheTailBeforeTheHead) {
  KvCache cache(5, kBlockTokens, true);
  BlockTable a = Computed(cache, 0, Range(0, 8));    // 2 blocks
  BlockTable b = Computed(cache, 0, Range(100, 8));  // 2 blocks
  cache.Release(a);
  cache.Release(b);
  EXPECT_EQ(Reusable(cache, 0, Range(0, 9)), 8);  // a is the newest now
  BlockTable c;
  ASSERT_TRUE(cache.Grow(c, 8));  // the free block, then the tail of b
  EXPECT_EQ(Reusable(cache, 0, Range(100, 9)), 4);
  EXPECT_EQ(Reusable(cache, 0, Range(0, 9)), 8);
  ASSERT_TRUE(cache.Grow(c, 12));
  EXPECT_EQ(Reusable(cache, 0, Range(100, 9)), 0);
  ASSERT_TRUE(cache.Grow(c, 16));
  EXPECT_EQ(Reusable(cache, 0, Range(0, 9)), 4);
  ASSERT_TRUE(cache.Grow(c, 20));
  EXPECT_EQ(Reusable(cache, 0, Range(0, 9)), 0);
  EXPECT_EQ(cache.num_used_blocks(), 5);
}

TEST(KvCacheTest, PublishContinuesWhereItStopped) {
  KvCache cache(8, kBlockTokens, true);
  BlockTable a;
  ASSERT_TRUE(cache.Grow(a, 12));
  for (int computed = 1; computed <= 12; ++computed) {
    cache.Publish(3, a, Range(0, computed));
    EXPECT_EQ(a.published_blocks, computed / kBlockTokens);
    EXPECT_EQ(Reusable(cache, 3, Range(0, 13)), computed / kBlockTokens * kBlockTokens);
  }
}

// What the cache must do, with maps and lists and no hash. It follows the blocks that the cache
// hands out.
class NaiveCache {
 public:
  using Content =
      std::pair<uint64_t, std::vector<Token>>;  // salt, all tokens up to the block's end

  static Content ContentOf(uint64_t salt, const std::vector<Token>& tokens, size_t block) {
    return {salt,
            {tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>((block + 1) * kBlockTokens)}};
  }
  // Blocks that Attach must reuse.
  std::vector<int32_t> Lookup(uint64_t salt, const std::vector<Token>& tokens) const {
    std::vector<int32_t> blocks;
    for (size_t i = 0; (i + 1) * kBlockTokens < tokens.size(); ++i) {
      const auto it = holder_.find(ContentOf(salt, tokens, i));
      if (it == holder_.end()) break;
      blocks.push_back(it->second);
    }
    return blocks;
  }
  // The holder of a content after a table with `block` published it.
  int32_t Publish(const Content& content, int32_t block) {
    const auto [it, inserted] = holder_.emplace(content, block);
    if (inserted) content_[block] = content;
    return it->second;
  }
  void Reference(int32_t block) {
    if (refs_[block]++ == 0) lru_.erase(std::remove(lru_.begin(), lru_.end(), block), lru_.end());
  }
  void Unreference(int32_t block) {
    ASSERT_GT(refs_[block], 0);
    if (--refs_[block] == 0 && content_.count(block) > 0) lru_.push_back(block);
  }
  // The cache took `block` for a table.
  void Take(int32_t block, bool was_free) {
    EXPECT_EQ(refs_[block], 0) << "block " << block << " is in use";
    EXPECT_EQ(content_.count(block), was_free ? 0u : 1u);
    if (!was_free) {
      ASSERT_EQ(lru_.front(), block) << "not the least recently used";
      lru_.pop_front();
      holder_.erase(content_[block]);
      content_.erase(block);
    }
    ++refs_[block];
  }
  int num_used() const {
    return static_cast<int>(
        std::count_if(refs_.begin(), refs_.end(), [](const auto& ref) { return ref.second > 0; }));
  }
  int num_cached() const { return static_cast<int>(lru_.size()); }

 private:
  std::map<Content, int32_t> holder_;
  std::map<int32_t, Content> content_;
  std::map<int32_t, int> refs_;
  std::deque<int32_t> lru_;  // oldest first
};

struct Holder {
  uint64_t salt;
  std::vector<Token> tokens;
  size_t computed = 0;
  BlockTable table;
};

class RandomCacheUser {
 public:
  RandomCacheUser(int num_blocks, KvCache::BlockHash hash, uint32_t seed)
      : cache_(num_blocks, kBlockTokens, true, hash), random_(seed) {}

  void Run(int operations) {
    for (int i = 0; i < operations && !::testing::Test::HasFailure(); ++i) {
      const int what = Draw(4);
      if (what == 0 || holders_.empty()) {
        Begin();
      } else if (what == 3) {
        End(static_cast<size_t>(Draw(static_cast<int>(holders_.size()))));
      } else {
        Continue(static_cast<size_t>(Draw(static_cast<int>(holders_.size()))));
      }
      CheckCounts();
    }
    while (!holders_.empty()) End(holders_.size() - 1);
    EXPECT_EQ(cache_.num_used_blocks(), 0);
  }

 private:
  int Draw(int n) { return static_cast<int>(random_() % static_cast<uint32_t>(n)); }

  // Few distinct tokens: prefixes meet often.
  void Begin() {
    Holder holder{.salt = static_cast<uint64_t>(Draw(2)), .tokens = {}, .table = {}};
    const int length = 1 + Draw(24);
    for (int i = 0; i < length; ++i) holder.tokens.push_back(i % kBlockTokens == 0 ? Draw(2) : 5);
    const std::vector<int32_t> expected = naive_.Lookup(holder.salt, holder.tokens);
    const int reused = cache_.Attach(holder.salt, holder.tokens, holder.table);
    EXPECT_EQ(reused, static_cast<int>(expected.size()) * kBlockTokens);
    EXPECT_EQ(holder.table.block, expected);
    for (const int32_t block : holder.table.block) naive_.Reference(block);
    holder.computed = static_cast<size_t>(reused);
    holders_.push_back(std::move(holder));
  }

  void Continue(size_t i) {
    Holder& holder = holders_[i];
    const size_t target =
        std::min(holder.tokens.size(), holder.computed + 1 + static_cast<size_t>(Draw(9)));
    const int free_before = cache_.num_free_blocks();
    const size_t blocks_before = holder.table.block.size();
    const int missing =
        cache_.BlocksFor(static_cast<int>(target)) - static_cast<int>(blocks_before);
    const bool fits = missing <= cache_.num_available_blocks();
    ASSERT_EQ(cache_.Grow(holder.table, static_cast<int>(target)), fits);
    if (!fits) {
      ASSERT_EQ(holder.table.block.size(), blocks_before);
      return End(i);
    }
    for (size_t b = blocks_before; b < holder.table.block.size(); ++b) {
      naive_.Take(holder.table.block[b], static_cast<int>(b - blocks_before) < free_before);
    }
    holder.computed = target;
    Publish(holder);
  }

  void Publish(Holder& holder) {
    const std::vector<int32_t> before = holder.table.block;
    const size_t first = static_cast<size_t>(holder.table.published_blocks);
    cache_.Publish(holder.salt, holder.table,
                   absl::MakeConstSpan(holder.tokens.data(), holder.computed));
    ASSERT_EQ(holder.table.published_blocks, static_cast<int>(holder.computed) / kBlockTokens);
    for (size_t b = first; b < holder.computed / kBlockTokens; ++b) {
      const int32_t expected =
          naive_.Publish(NaiveCache::ContentOf(holder.salt, holder.tokens, b), before[b]);
      ASSERT_EQ(holder.table.block[b], expected);
      if (expected != before[b]) {
        naive_.Reference(expected);
        naive_.Unreference(before[b]);
      }
    }
  }

  void End(size_t i) {
    std::vector<int32_t> blocks = holders_[i].table.block;
    std::reverse(blocks.begin(), blocks.end());
    for (const int32_t block : blocks) naive_.Unreference(block);
    cache_.Release(holders_[i].table);
    EXPECT_TRUE(holders_[i].table.block.empty());
    holders_.erase(holders_.begin() + static_cast<ptrdiff_t>(i));
  }

  void CheckCounts() {
    EXPECT_EQ(cache_.num_used_blocks(), naive_.num_used());
    EXPECT_EQ(cache_.num_cached_blocks(), naive_.num_cached());
    EXPECT_EQ(cache_.num_free_blocks() + cache_.num_used_blocks() + cache_.num_cached_blocks(),
              cache_.num_blocks());
  }

  KvCache cache_;
  NaiveCache naive_;
  std::mt19937 random_;
  std::vector<Holder> holders_;
};

TEST(KvCachePropertyTest, AgreesWithTheNaiveCache) {
  for (const auto hash : {HashBlock, CollidingHash, NarrowHash}) {
    for (uint32_t seed = 1; seed <= 20; ++seed) {
      SCOPED_TRACE(seed);
      RandomCacheUser(6 + static_cast<int>(seed) * 3, hash, seed).Run(500);
      if (HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace fairlead

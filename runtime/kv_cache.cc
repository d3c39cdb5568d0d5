// SPDX-License-Identifier: Apache-2.0
#include "runtime/kv_cache.h"

#include <algorithm>
#include <bit>

#include "absl/hash/hash.h"
#include "kernels/check.h"
#include "kernels/sampling_rng.h"

namespace fairlead {

uint64_t HashBlock(uint64_t chain, absl::Span<const Token> tokens) {
  return absl::HashOf(chain, tokens);
}

KvCache::KvCache(int num_blocks, int block_tokens, bool share_prefixes, BlockHash hash)
    : block_tokens_(block_tokens), share_prefixes_(share_prefixes), hash_(hash) {
  FAIRLEAD_CHECK(num_blocks >= 1 && block_tokens >= 1);
  blocks_.resize(num_blocks);
  if (share_prefixes) {
    tokens_.resize(static_cast<size_t>(num_blocks) * block_tokens);
    buckets_.assign(std::bit_ceil(2 * static_cast<size_t>(num_blocks)), kNone);
  }
  // The lowest blocks are handed out first.
  for (int32_t block = num_blocks - 1; block >= 0; --block) PushFree(block);
}

int KvCache::Attach(uint64_t salt, absl::Span<const Token> tokens, BlockTable& table) {
  FAIRLEAD_CHECK(table.block.empty() && table.published_blocks == 0);
  if (!share_prefixes_ || tokens.empty()) return 0;
  const int max_blocks = (static_cast<int>(tokens.size()) - 1) / block_tokens_;
  uint64_t chain = MixBits(salt);
  int32_t parent = kNone;
  for (int i = 0; i < max_blocks; ++i) {
    const auto content = tokens.subspan(static_cast<size_t>(i) * block_tokens_, block_tokens_);
    const uint64_t hash = hash_(chain, content);
    const int32_t found = Find(hash, salt, parent, content);
    if (found == kNone) break;
    Reference(found);
    table.block.push_back(found);
    chain = hash;
    parent = found;
  }
  table.published_blocks = static_cast<int>(table.block.size());
  table.chain = chain;
  return table.published_blocks * block_tokens_;
}

bool KvCache::Grow(BlockTable& table, int tokens) {
  const int missing = BlocksFor(tokens) - static_cast<int>(table.block.size());
  if (missing > num_available_blocks()) return false;
  for (int i = 0; i < missing; ++i) table.block.push_back(TakeBlock());
  return true;
}

void KvCache::Shrink(BlockTable& table, int tokens) {
  const size_t kept = static_cast<size_t>(std::max(BlocksFor(tokens), table.published_blocks));
  for (; table.block.size() > kept; table.block.pop_back()) Unreference(table.block.back());
}

void KvCache::Publish(uint64_t salt, BlockTable& table, absl::Span<const Token> tokens) {
  if (!share_prefixes_) return;
  const int full_blocks = static_cast<int>(tokens.size()) / block_tokens_;
  FAIRLEAD_CHECK(full_blocks <= static_cast<int>(table.block.size()));
  for (int i = table.published_blocks; i < full_blocks; ++i) {
    const auto content = tokens.subspan(static_cast<size_t>(i) * block_tokens_, block_tokens_);
    const uint64_t hash = hash_(i == 0 ? MixBits(salt) : table.chain, content);
    const int32_t parent = i == 0 ? kNone : table.block[i - 1];
    const int32_t found = Find(hash, salt, parent, content);
    if (found == kNone) {
      AddToIndex(table.block[i], hash, salt, parent, content);
    } else {
      Reference(found);
      Unreference(table.block[i]);
      table.block[i] = found;
    }
    table.chain = hash;
    table.published_blocks = i + 1;
  }
}

void KvCache::Release(BlockTable& table) {
  // The last block first: it becomes the oldest, and no block is evicted before those that follow
  // it.
  for (auto it = table.block.rbegin(); it != table.block.rend(); ++it) Unreference(*it);
  table.block.clear();
  table.published_blocks = 0;
  table.chain = 0;
}

absl::Span<Token> KvCache::TokensOf(int32_t block) {
  return absl::MakeSpan(tokens_).subspan(static_cast<size_t>(block) * block_tokens_, block_tokens_);
}

int32_t KvCache::Find(uint64_t hash, uint64_t salt, int32_t parent,
                      absl::Span<const Token> tokens) {
  for (int32_t i = BucketOf(hash); i != kNone; i = blocks_[i].next_in_bucket) {
    const Block& block = blocks_[i];
    if (block.hash == hash && block.salt == salt && block.parent == parent &&
        std::equal(tokens.begin(), tokens.end(), TokensOf(i).begin())) {
      return i;
    }
  }
  return kNone;
}

void KvCache::AddToIndex(int32_t block, uint64_t hash, uint64_t salt, int32_t parent,
                         absl::Span<const Token> tokens) {
  Block& b = blocks_[block];
  b.published = true;
  b.parent = parent;
  b.salt = salt;
  b.hash = hash;
  std::copy(tokens.begin(), tokens.end(), TokensOf(block).begin());
  b.next_in_bucket = BucketOf(hash);
  BucketOf(hash) = block;
}

void KvCache::RemoveFromIndex(int32_t block) {
  int32_t* link = &BucketOf(blocks_[block].hash);
  while (*link != block) link = &blocks_[*link].next_in_bucket;
  *link = blocks_[block].next_in_bucket;
  blocks_[block].published = false;
}

void KvCache::Reference(int32_t block) {
  if (blocks_[block].refs++ == 0) UnlinkCached(block);
}

void KvCache::Unreference(int32_t block) {
  FAIRLEAD_CHECK(blocks_[block].refs > 0);
  if (--blocks_[block].refs > 0) return;
  if (blocks_[block].published) {
    PushCached(block);
  } else {
    PushFree(block);
  }
}

int32_t KvCache::TakeBlock() {
  int32_t block = first_free_;
  if (block != kNone) {
    first_free_ = blocks_[block].next;
    --num_free_;
  } else {
    block = oldest_cached_;
    UnlinkCached(block);
    RemoveFromIndex(block);
  }
  blocks_[block].refs = 1;
  num_touched_ = std::max(num_touched_, block + 1);
  return block;
}

void KvCache::PushFree(int32_t block) {
  blocks_[block].next = first_free_;
  first_free_ = block;
  ++num_free_;
}

void KvCache::PushCached(int32_t block) {
  blocks_[block].previous = newest_cached_;
  blocks_[block].next = kNone;
  (newest_cached_ == kNone ? oldest_cached_ : blocks_[newest_cached_].next) = block;
  newest_cached_ = block;
  ++num_cached_;
}

void KvCache::UnlinkCached(int32_t block) {
  const Block& b = blocks_[block];
  (b.previous == kNone ? oldest_cached_ : blocks_[b.previous].next) = b.next;
  (b.next == kNone ? newest_cached_ : blocks_[b.next].previous) = b.previous;
  --num_cached_;
}

}  // namespace fairlead

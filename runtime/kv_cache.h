// SPDX-License-Identifier: Apache-2.0
// Block accounting of the paged KV cache, on the host. Engine thread only. A block is in exactly
// one state: free, used (referenced by at least one table), or cached (full, referenced by none,
// found again by its content; evicted least recently used first when free blocks run out). Full
// blocks are found by a hash chained over the blocks before them and the salt, then compared token
// by token: a collision may cost time, never correctness.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "models/tokenizer.h"

namespace fairlead {

struct BlockTable {
  std::vector<int32_t> block;
  int published_blocks = 0;  // how many of the leading blocks are in the index
  uint64_t chain = 0;        // hash of everything up to the last published block
};

// The hash of one full block, given that of the blocks before it. Seeded per process, so that no
// client can choose prompts that collide.
uint64_t HashBlock(uint64_t chain, absl::Span<const Token> tokens);

class KvCache {
 public:
  using BlockHash = uint64_t (*)(uint64_t chain, absl::Span<const Token> tokens);

  // num_blocks, block_tokens >= 1. Allocates all it will ever need. Tests pass a `hash` that
  // collides.
  KvCache(int num_blocks, int block_tokens, bool share_prefixes, BlockHash hash = HashBlock);

  // Fills an empty table with the longest cached prefix of `tokens` and takes references; at least
  // one token is left to compute. Returns the tokens reused. Reserve the table's vector before:
  // this allocates nothing.
  int Attach(uint64_t salt, absl::Span<const Token> tokens, BlockTable& table);
  // Makes room for `tokens` tokens in all. False when there are not enough blocks, and then nothing
  // has changed.
  bool Grow(BlockTable& table, int tokens);
  // Gives back the blocks beyond the first `tokens` tokens; those before and all published stay.
  void Shrink(BlockTable& table, int tokens);
  // Full blocks whose keys and values are written (the first `tokens.size()` positions) become
  // reusable. A block whose content another table published first is exchanged for that one: their
  // bits are the same, one copy is enough.
  void Publish(uint64_t salt, BlockTable& table, absl::Span<const Token> tokens);
  // Drops references and empties the table. Published blocks stay cached.
  void Release(BlockTable& table);

  int num_blocks() const { return static_cast<int>(blocks_.size()); }
  int block_tokens() const { return block_tokens_; }
  int num_free_blocks() const { return num_free_; }
  int num_used_blocks() const { return num_blocks() - num_free_ - num_cached_; }
  int num_cached_blocks() const { return num_cached_; }
  // Blocks that Grow can still hand out: free + cached.
  int num_available_blocks() const { return num_free_ + num_cached_; }
  // No block from this number on was ever handed out.
  int num_touched_blocks() const { return num_touched_; }
  int BlocksFor(int tokens) const { return (tokens + block_tokens_ - 1) / block_tokens_; }

 private:
  static constexpr int32_t kNone = -1;

  struct Block {
    int refs = 0;
    bool published = false;
    // Of a published block: what it holds. Its parent outlives it in the index, because every table
    // that holds a block holds the blocks before it, and Release makes the last block the least
    // recently used: so (parent, tokens) names the whole prefix, and no other copy of the parent
    // can be meant.
    int32_t parent = kNone;
    uint64_t salt = 0;
    uint64_t hash = 0;
    int32_t next_in_bucket = kNone;
    // Neighbours in the list of cached blocks, or the next free block.
    int32_t previous = kNone;
    int32_t next = kNone;
  };

  absl::Span<Token> TokensOf(int32_t block);
  int32_t& BucketOf(uint64_t hash) { return buckets_[hash & (buckets_.size() - 1)]; }
  // The published block that holds `tokens` after `parent`; kNone if absent.
  int32_t Find(uint64_t hash, uint64_t salt, int32_t parent, absl::Span<const Token> tokens);
  void AddToIndex(int32_t block, uint64_t hash, uint64_t salt, int32_t parent,
                  absl::Span<const Token> tokens);
  void RemoveFromIndex(int32_t block);
  void Reference(int32_t block);
  void Unreference(int32_t block);
  int32_t TakeBlock();  // a free one, else the least recently used cached one
  void PushFree(int32_t block);
  void PushCached(int32_t block);
  void UnlinkCached(int32_t block);

  const int block_tokens_;
  const bool share_prefixes_;
  const BlockHash hash_;
  std::vector<Block> blocks_;
  std::vector<Token> tokens_;     // [blocks, block_tokens]: what published blocks hold
  std::vector<int32_t> buckets_;  // a power of two; the first block of each chain
  int32_t first_free_ = kNone;
  int32_t oldest_cached_ = kNone;
  int32_t newest_cached_ = kNone;
  int num_free_ = 0;
  int num_cached_ = 0;
  int num_touched_ = 0;
};

}  // namespace fairlead

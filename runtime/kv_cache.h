// SPDX-License-Identifier: Apache-2.0
// Block accounting of the paged KV cache, on the host. Engine thread only. A block is in exactly one state: free, used
// (referenced by at least one table), or cached (full, referenced by none, found again by its content; evicted least
// recently used first when free blocks run out). Full blocks are found by a hash chained over the blocks before them and
// the salt, then compared token by token: a collision may cost time, never correctness.
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

class KvCache {
 public:
  KvCache(int num_blocks, int block_tokens, bool share_prefixes);

  // Fills an empty table with the longest cached prefix of `tokens` and takes references; at least one token is
  // left to compute. Returns the tokens reused. Reserve the table's vector before: this allocates nothing.
  int Attach(uint64_t salt, absl::Span<const Token> tokens, BlockTable& table);
  // Makes room for `tokens` tokens in all. False when there are not enough blocks, and then nothing has changed.
  bool Grow(BlockTable& table, int tokens);
  // Full blocks whose keys and values are written (the first `tokens.size()` positions) become reusable.
  void Publish(uint64_t salt, BlockTable& table, absl::Span<const Token> tokens);
  // Drops references and empties the table. Published blocks stay cached.
  void Release(BlockTable& table);

  int num_blocks() const;
  int block_tokens() const;
  int num_free_blocks() const;
  int num_used_blocks() const;
  int num_cached_blocks() const;
  // Blocks that Grow can still hand out: free + cached.
  int num_available_blocks() const;

 private:
  // The implementation's own (engineer's choice): block metadata, an intrusive LRU list, a fixed-size hash index.
};

}  // namespace fairlead

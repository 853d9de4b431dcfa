// Large blocks of memory, recycled: pages that have been touched before are written six to fifteen times as fast as
// fresh ones. Knows nothing of limits; who takes blocks counts them. Free of Arrow, and safe from any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

namespace sabot::memory {

class BlockArena {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr int64_t kBlockBytesMin = 256 << 10;
  static constexpr int64_t kAlignment = 4096;

  /// The size of the block for `bytes`, at least kBlockBytesMin: at most an eighth more. Blocks are told apart by it,
  /// so equal `bytes` always give the same.
  static int64_t BlockBytes(int64_t bytes) noexcept;

  BlockArena() = default;
  BlockArena(const BlockArena&) = delete;
  BlockArena& operator=(const BlockArena&) = delete;
  ~BlockArena() { GiveBack(idle_bytes()); }

  // `block_bytes` is what BlockBytes gave, everywhere below.
  /// An idle block, one of at least half the size extended, or null where none is near: then map one.
  uint8_t* Take(int64_t block_bytes) noexcept;
  /// Keeps the block for the next Take.
  void Keep(uint8_t* block, int64_t block_bytes) noexcept;

  /// A fresh block, zeroed, or null where the system has none.
  static uint8_t* Map(int64_t block_bytes) noexcept;
  static void Unmap(uint8_t* block, int64_t block_bytes) noexcept;
  /// The block in another size with what it holds, perhaps elsewhere; null, and nothing changed, where the system
  /// has no more. No byte is copied.
  static uint8_t* Remap(uint8_t* block, int64_t block_bytes, int64_t new_block_bytes) noexcept;

  /// Returns to the system at least `bytes` of idle blocks, the longest idle first, or all; how much that was.
  int64_t GiveBack(int64_t bytes) noexcept;
  /// Returns the blocks that have been idle since before `cutoff`; how much that was.
  int64_t GiveBackIdleSince(Clock::time_point cutoff) noexcept;
  int64_t idle_bytes() const noexcept { return idle_bytes_.load(std::memory_order_relaxed); }  // a snapshot

 private:
  struct Idle {
    uint8_t* block;
    int64_t block_bytes;
    Clock::time_point since;
  };
  int64_t Return(const std::vector<Idle>& blocks) noexcept;

  std::mutex mutex_;
  std::map<int64_t, std::vector<Idle>> idle_;  // by block_bytes, the longest idle first; guarded by mutex_
  std::atomic<int64_t> idle_bytes_{0};         // written under mutex_
};

}  // namespace sabot::memory

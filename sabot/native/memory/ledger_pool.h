// Arrow's memory out of the ledger: what does not fit is refused, large blocks are recycled.
#pragma once

#include <arrow/memory_pool.h>

#include <atomic>
#include <chrono>
#include <memory>

#include "sabot/native/memory/block_arena.h"
#include "sabot/native/memory/ledger.h"

namespace sabot::memory {

/// Buffers know their pool by its address alone, so a pool whose last owner may go before the last buffer belongs into
/// KeepForProcess. Blocks of 256 KiB and more are counted as large as they are, at most an eighth more than was asked.
/// Idle blocks are not counted, but use only what the limit leaves.
class LedgerPool final : public arrow::MemoryPool {
 public:
  struct Options {
    bool recycles = true;  // false: for tests and benchmarks only, large blocks come from the system each time
  };

  explicit LedgerPool(std::shared_ptr<Ledger> ledger) : LedgerPool(std::move(ledger), Options()) {}
  LedgerPool(std::shared_ptr<Ledger> ledger, Options options);

  using MemoryPool::Allocate;
  using MemoryPool::Free;
  using MemoryPool::Reallocate;
  /// OutOfMemory with Code::kLimit naming memory.bytes_max where the limit would be passed.
  arrow::Status Allocate(int64_t size, int64_t alignment, uint8_t** out) override;
  arrow::Status Reallocate(int64_t old_size, int64_t new_size, int64_t alignment, uint8_t** ptr) override;
  void Free(uint8_t* buffer, int64_t size, int64_t alignment) override;

  /// Returns idle memory to the system: all of it, or what has been idle for so long or passes the limit by now.
  void ReleaseUnused() override;
  /// Whether somebody calls GiveBackIdle now and then; without it, blocks that are freed go back at once.
  void SetWatched(bool watched);
  void GiveBackIdle(std::chrono::milliseconds idle_for);

  int64_t bytes_allocated() const override { return bytes_.load(std::memory_order_relaxed); }
  int64_t max_memory() const override { return ledger_->snapshot().peak; }
  int64_t total_bytes_allocated() const override { return total_bytes_.load(std::memory_order_relaxed); }
  int64_t num_allocations() const override { return allocations_.load(std::memory_order_relaxed); }
  std::string backend_name() const override { return "sabot"; }

  int64_t idle_bytes() const { return arena_.idle_bytes(); }
  const std::shared_ptr<Ledger>& ledger() const { return ledger_; }

 private:
  static bool IsBlock(int64_t size, int64_t alignment) {
    return size >= BlockArena::kBlockBytesMin && alignment <= BlockArena::kAlignment;
  }
  arrow::Status Counted(int64_t bytes);
  arrow::Result<uint8_t*> FreshBlock(int64_t block_bytes);
  /// Keeps a block for others, or returns it to the system.
  void GiveUp(uint8_t* block, int64_t block_bytes);
  /// The block in another size with its first `used` bytes, perhaps elsewhere; null where the system has no more.
  uint8_t* Resized(uint8_t* block, int64_t had, int64_t has, int64_t used);
  arrow::Status Copied(int64_t old_size, int64_t new_size, int64_t alignment, uint8_t** ptr);
  /// By how much what is held and idle passes the limit.
  int64_t Excess() const;
  void NoteAllocation(int64_t bytes);

  const std::shared_ptr<Ledger> ledger_;
  const Options options_;
  const std::unique_ptr<arrow::MemoryPool> small_;  // its own, so that nothing of it is counted twice
  BlockArena arena_;
  std::atomic<bool> watched_{false};  // relaxed: a block more or less that is kept does no harm
  // Statistics: relaxed, as nobody concludes anything about other memory from them.
  std::atomic<int64_t> bytes_{0};
  std::atomic<int64_t> total_bytes_{0};
  std::atomic<int64_t> allocations_{0};
};

/// Keeps `pool` until the process ends.
void KeepForProcess(std::shared_ptr<LedgerPool> pool);

}  // namespace sabot::memory

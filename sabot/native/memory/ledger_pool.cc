#include "sabot/native/memory/ledger_pool.h"

#include <arrow/result.h>
#include <malloc.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "sabot/native/status.h"

namespace sabot::memory {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;  // see the header

arrow::Status Full(const Ledger& ledger, int64_t bytes) {
  const Snapshot now = ledger.snapshot();
  return MakeOutOfMemory("the agent's memory is full: " + std::to_string(bytes) + " bytes more do not fit beside " +
                         std::to_string(now.allocated + now.workers) + " of " + std::to_string(now.bytes_max) +
                         "; raise memory.bytes_max, or cut the job smaller: more partitions, fewer slots "
                         "(limit=memory.bytes_max, value=" +
                         std::to_string(now.bytes_max) + ", needed=" + std::to_string(bytes) + ")");
}

arrow::Status SystemFull(int64_t bytes) {
  return MakeOutOfMemory(
      "the machine refuses " + std::to_string(bytes) +
      " bytes more; lower memory.bytes_max below what it really has (limit=memory.bytes_max, needed=" +
      std::to_string(bytes) + ")");
}

constexpr int64_t kBytesMax =
    int64_t{1} << 62;  // a block's size rounded up stays a number, and so does the ledger's sum

arrow::Status Refused(int64_t bytes) {
  return bytes < 0 ? arrow::Status::Invalid("negative malloc size: " + std::to_string(bytes)) : SystemFull(bytes);
}

bool IsPossible(int64_t bytes) { return bytes >= 0 && bytes <= kBytesMax; }

}  // namespace

LedgerPool::LedgerPool(std::shared_ptr<Ledger> ledger, Options options)
    : ledger_(std::move(ledger)), options_(options), small_(arrow::MemoryPool::CreateDefault()) {}

arrow::Status LedgerPool::Counted(int64_t bytes) {
  return ledger_->TryAllocate(bytes) ? arrow::Status::OK() : Full(*ledger_, bytes);
}

int64_t LedgerPool::Excess() const {
  if (ledger_->bytes_max() == 0) return 0;
  return ledger_->allocated() + ledger_->workers() + arena_.idle_bytes() - ledger_->bytes_max();
}

void LedgerPool::NoteAllocation(int64_t bytes) {
  bytes_.fetch_add(bytes, kRelaxed);
  total_bytes_.fetch_add(bytes, kRelaxed);
  allocations_.fetch_add(1, kRelaxed);
}

arrow::Result<uint8_t*> LedgerPool::FreshBlock(int64_t block_bytes) {
  uint8_t* const taken = arena_.Take(block_bytes);
  if (const int64_t excess = Excess(); excess > 0) arena_.GiveBack(excess);
  if (taken != nullptr) return taken;
  if (uint8_t* const block = BlockArena::Map(block_bytes)) return block;
  return SystemFull(block_bytes);
}

arrow::Status LedgerPool::Allocate(int64_t size, int64_t alignment, uint8_t** out) {
  if (!IsPossible(size)) return Refused(size);
  const int64_t bytes = IsBlock(size, alignment) ? BlockArena::BlockBytes(size) : size;
  ARROW_RETURN_NOT_OK(Counted(bytes));
  const auto allocate = [&]() -> arrow::Status {
    if (!IsBlock(size, alignment)) return small_->Allocate(size, alignment, out);
    ARROW_ASSIGN_OR_RAISE(*out, FreshBlock(bytes));
    return arrow::Status::OK();
  };
  const arrow::Status allocated = allocate();
  if (!allocated.ok()) {
    ledger_->Free(bytes);
    return allocated;
  }
  NoteAllocation(size);
  return arrow::Status::OK();
}

void LedgerPool::Free(uint8_t* buffer, int64_t size, int64_t alignment) {
  bytes_.fetch_sub(size, kRelaxed);
  if (!IsBlock(size, alignment)) {
    small_->Free(buffer, size, alignment);
    ledger_->Free(size);
    return;
  }
  const int64_t bytes = BlockArena::BlockBytes(size);
  GiveUp(buffer, bytes);
  ledger_->Free(bytes);
}

void LedgerPool::GiveUp(uint8_t* block, int64_t block_bytes) {
  // Still counted here: idle, it takes exactly that place.
  if (options_.recycles && watched_.load(kRelaxed) && Excess() <= 0) {
    arena_.Keep(block, block_bytes);
  } else {
    BlockArena::Unmap(block, block_bytes);
  }
}

uint8_t* LedgerPool::Resized(uint8_t* block, int64_t had, int64_t has, int64_t used) {
  // A column that is decoded grows by doubling. To copy costs less than to touch memory for the first time.
  uint8_t* const larger = has - had >= had / 4 ? arena_.Take(has) : nullptr;
  if (larger == nullptr) return BlockArena::Remap(block, had, has);
  std::memcpy(larger, block, static_cast<size_t>(used));
  GiveUp(block, had);
  return larger;
}

arrow::Status LedgerPool::Reallocate(int64_t old_size, int64_t new_size, int64_t alignment, uint8_t** ptr) {
  if (!IsPossible(new_size)) return Refused(new_size);
  const bool was_block = IsBlock(old_size, alignment);
  if (was_block != IsBlock(new_size, alignment)) return Copied(old_size, new_size, alignment, ptr);
  const int64_t had = was_block ? BlockArena::BlockBytes(old_size) : old_size;
  const int64_t has = was_block ? BlockArena::BlockBytes(new_size) : new_size;
  if (has > had) ARROW_RETURN_NOT_OK(Counted(has - had));
  arrow::Status moved;
  if (!was_block) {
    moved = small_->Reallocate(old_size, new_size, alignment, ptr);
  } else if (has != had) {
    uint8_t* const block = Resized(*ptr, had, has, old_size);
    if (block == nullptr) moved = SystemFull(has - had);
    if (block != nullptr) *ptr = block;
  }
  if (!moved.ok()) {
    if (has > had) ledger_->Free(has - had);
    return moved;
  }
  if (has < had) ledger_->Free(had - has);
  NoteAllocation(new_size);
  bytes_.fetch_sub(old_size, kRelaxed);
  return arrow::Status::OK();
}

arrow::Status LedgerPool::Copied(int64_t old_size, int64_t new_size, int64_t alignment, uint8_t** ptr) {
  uint8_t* moved = nullptr;
  ARROW_RETURN_NOT_OK(Allocate(new_size, alignment, &moved));
  std::memcpy(moved, *ptr, static_cast<size_t>(std::min(old_size, new_size)));
  Free(*ptr, old_size, alignment);
  *ptr = moved;
  return arrow::Status::OK();
}

void LedgerPool::SetWatched(bool watched) {
  watched_.store(watched, kRelaxed);
  if (!watched) ReleaseUnused();
}

void LedgerPool::ReleaseUnused() {
  arena_.GiveBack(arena_.idle_bytes());
  small_->ReleaseUnused();
  malloc_trim(0);
}

void LedgerPool::GiveBackIdle(std::chrono::milliseconds idle_for) {
  int64_t given = arena_.GiveBackIdleSince(BlockArena::Clock::now() - idle_for);
  if (const int64_t excess = Excess(); excess > 0) given += arena_.GiveBack(excess);
  if (given == 0) return;
  // Where large blocks have gone idle, small memory has too.
  small_->ReleaseUnused();
  malloc_trim(0);
}

void KeepForProcess(std::shared_ptr<LedgerPool> pool) {
  static std::mutex mutex;
  static std::vector<std::shared_ptr<LedgerPool>>& kept = *new std::vector<std::shared_ptr<LedgerPool>>();
  const std::lock_guard lock(mutex);
  kept.push_back(std::move(pool));
}

}  // namespace sabot::memory

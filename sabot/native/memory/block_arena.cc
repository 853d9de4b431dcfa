#include "sabot/native/memory/block_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>

namespace sabot::memory {
namespace {

constexpr int64_t kSteps = 8;  // block sizes between a power of two and the next

constexpr auto kRelaxed = std::memory_order_relaxed;  // idle_bytes_ is only ever a snapshot

// Fresh pages of 2 MiB come several times as fast as ones of 4 KiB; only in blocks so large that a part of the last one
// is no loss.
constexpr int64_t kHugePagesMin = 4 << 20;

}  // namespace

int64_t BlockArena::BlockBytes(int64_t bytes) noexcept {
  const auto top = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(std::max(bytes, kBlockBytesMin))));
  const int64_t step = std::max(top / kSteps, kAlignment);
  return (std::max(bytes, kBlockBytesMin) + step - 1) / step * step;
}

uint8_t* BlockArena::Take(int64_t block_bytes) noexcept {
  Idle taken{};
  {
    const std::lock_guard lock(mutex_);
    auto found = idle_.lower_bound(block_bytes);
    if (found == idle_.end() || found->first > block_bytes + block_bytes / 4) {
      if (found == idle_.begin() || (--found)->first < block_bytes / 2) return nullptr;
    }
    taken = found->second.back();
    found->second.pop_back();
    if (found->second.empty()) idle_.erase(found);
    idle_bytes_.fetch_sub(taken.block_bytes, kRelaxed);
  }
  if (taken.block_bytes > block_bytes)
    munmap(taken.block + block_bytes, static_cast<size_t>(taken.block_bytes - block_bytes));
  if (taken.block_bytes >= block_bytes) return taken.block;
  uint8_t* const extended = Remap(taken.block, taken.block_bytes, block_bytes);
  if (extended == nullptr) Keep(taken.block, taken.block_bytes);
  return extended;
}

void BlockArena::Keep(uint8_t* block, int64_t block_bytes) noexcept {
  const std::lock_guard lock(mutex_);
  idle_[block_bytes].push_back({block, block_bytes, Clock::now()});
  idle_bytes_.fetch_add(block_bytes, kRelaxed);
}

uint8_t* BlockArena::Map(int64_t block_bytes) noexcept {
  const auto size = static_cast<size_t>(block_bytes);
  void* const block = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (block == MAP_FAILED) return nullptr;
  if (block_bytes >= kHugePagesMin) madvise(block, size, MADV_HUGEPAGE);
  return static_cast<uint8_t*>(block);
}

void BlockArena::Unmap(uint8_t* block, int64_t block_bytes) noexcept {
  munmap(block, static_cast<size_t>(block_bytes));
}

uint8_t* BlockArena::Remap(uint8_t* block, int64_t block_bytes, int64_t new_block_bytes) noexcept {
  void* const moved =
      mremap(block, static_cast<size_t>(block_bytes), static_cast<size_t>(new_block_bytes), MREMAP_MAYMOVE);
  return moved == MAP_FAILED ? nullptr : static_cast<uint8_t*>(moved);
}

int64_t BlockArena::GiveBack(int64_t bytes) noexcept {
  std::vector<Idle> given;
  {
    const std::lock_guard lock(mutex_);
    std::vector<Idle> all;
    for (const auto& [size, blocks] : idle_) all.insert(all.end(), blocks.begin(), blocks.end());
    std::stable_sort(all.begin(), all.end(), [](const Idle& a, const Idle& b) { return a.since < b.since; });
    int64_t sum = 0;
    idle_.clear();
    for (const Idle& one : all) {
      if (sum < bytes) {
        given.push_back(one);
        sum += one.block_bytes;
      } else {
        idle_[one.block_bytes].push_back(one);
      }
    }
    idle_bytes_.fetch_sub(sum, kRelaxed);
  }
  return Return(given);
}

int64_t BlockArena::GiveBackIdleSince(Clock::time_point cutoff) noexcept {
  std::vector<Idle> given;
  {
    const std::lock_guard lock(mutex_);
    for (auto size = idle_.begin(); size != idle_.end();) {
      auto& blocks = size->second;
      const auto kept =
          std::find_if(blocks.begin(), blocks.end(), [&](const Idle& one) { return one.since >= cutoff; });
      for (auto one = blocks.begin(); one != kept; ++one) idle_bytes_.fetch_sub(one->block_bytes, kRelaxed);
      given.insert(given.end(), blocks.begin(), kept);
      blocks.erase(blocks.begin(), kept);
      size = blocks.empty() ? idle_.erase(size) : std::next(size);
    }
  }
  return Return(given);
}

int64_t BlockArena::Return(const std::vector<Idle>& blocks) noexcept {
  int64_t sum = 0;
  for (const Idle& one : blocks) {
    Unmap(one.block, one.block_bytes);
    sum += one.block_bytes;
  }
  return sum;
}

}  // namespace sabot::memory

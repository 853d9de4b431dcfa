// A slot's lane: the items that it has been dealt and will run next, unless an idle slot steals them first.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>

#include "sabot/native/slots/run.h"

namespace sabot::slots {

/// Items of one Run, as two counters in one word. Pop is for the owner alone and takes no lock; whatever else changes
/// the lane happens under the pool's queue lock, so that a lane is never filled anew while somebody steals from it.
/// All accesses are relaxed: the word decides who has an item; what the item holds is ordered by the queue lock, and
/// what running it made by Claims::Complete.
class Lane {
 public:
  static constexpr size_t kItemsMax = std::numeric_limits<uint32_t>::max() / 2;

  /// Under the queue lock, by the owner, when nothing is left. At most kItemsMax.
  void Fill(ItemRange items) noexcept {
    base_ = items.first;
    word_.store(Word(0, static_cast<uint32_t>(items.count)), std::memory_order_relaxed);
  }

  /// Takes the first item.
  bool Pop(size_t* index) noexcept {
    // Past the end it counts on by one, which Fill undoes: an addition never fails, an exchange might.
    const uint64_t word = word_.fetch_add(Word(1, 0), std::memory_order_relaxed);
    if (Begin(word) >= End(word)) return false;
    *index = base_ + Begin(word);
    return true;
  }

  /// Under the queue lock: takes the later half, rounded up, or everything that is left.
  ItemRange TakeHalf() noexcept { return Take(2); }
  ItemRange TakeAll() noexcept { return Take(1); }

  size_t size_approx() const noexcept {
    const uint64_t word = word_.load(std::memory_order_relaxed);
    return Begin(word) < End(word) ? End(word) - Begin(word) : 0;
  }

 private:
  static constexpr uint64_t Word(uint32_t begin, uint32_t end) noexcept { return uint64_t{begin} << 32 | end; }
  static constexpr uint32_t Begin(uint64_t word) noexcept { return static_cast<uint32_t>(word >> 32); }
  static constexpr uint32_t End(uint64_t word) noexcept { return static_cast<uint32_t>(word); }

  ItemRange Take(uint32_t part) noexcept {
    uint64_t word = word_.load(std::memory_order_relaxed);
    while (Begin(word) < End(word)) {
      const uint32_t taken = (End(word) - Begin(word) + part - 1) / part;
      const uint64_t left = Word(Begin(word), End(word) - taken);
      if (word_.compare_exchange_weak(word, left, std::memory_order_relaxed)) return {base_ + End(left), taken};
    }
    return {};
  }

  alignas(64) std::atomic<uint64_t> word_{0};
  size_t base_ = 0;  // written under the queue lock, by the owner
};

}  // namespace sabot::slots

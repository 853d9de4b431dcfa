// How a slot has spent its time since it was added.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace sabot::slots {

/// Written by the slot's own thread, read by any. The busy time and whether the slot is busy are one word, so that no
/// reader sees an item that just ended twice, or not at all: idle, the word is twice the busy time; busy, it is twice
/// the time at which the slot would have started had it been busy without a break, plus one.
class SlotUsage {
 public:
  using Clock = std::chrono::steady_clock;

  void Start(Clock::time_point now) noexcept { word_.store(2 * (Ns(now) - busy_ns_) + 1, std::memory_order_relaxed); }
  void Stop(Clock::time_point now) noexcept {
    busy_ns_ = Ns(now) - Word() / 2;
    word_.store(2 * busy_ns_, std::memory_order_relaxed);  // relaxed, as every access: a number by itself
  }
  void AddGilWait(int64_t ns) noexcept {
    if (ns > 0) gil_wait_ns_.store(gil_wait_ns_.load(std::memory_order_relaxed) + ns, std::memory_order_relaxed);
  }

  bool busy() const noexcept { return (Word() & 1) != 0; }
  /// Includes the item that runs.
  int64_t busy_ns(Clock::time_point now) const noexcept {
    const int64_t word = Word();
    return (word & 1) != 0 ? Ns(now) - word / 2 : word / 2;
  }
  /// Of the items that have ended.
  int64_t gil_wait_ns() const noexcept { return gil_wait_ns_.load(std::memory_order_relaxed); }
  int64_t lifetime_ns(Clock::time_point now) const noexcept { return (now - added_).count(); }

 private:
  static int64_t Ns(Clock::time_point time) noexcept { return time.time_since_epoch().count(); }
  int64_t Word() const noexcept { return word_.load(std::memory_order_relaxed); }

  const Clock::time_point added_ = Clock::now();
  int64_t busy_ns_ = 0;  // own thread only
  std::atomic<int64_t> word_{0};
  std::atomic<int64_t> gil_wait_ns_{0};
};

}  // namespace sabot::slots

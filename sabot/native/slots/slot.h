// One slot: its identity, its lane, its counters and its thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "sabot/native/slots/fair_queue.h"
#include "sabot/native/slots/lane.h"
#include "sabot/native/slots/run.h"
#include "sabot/native/slots/slot_pool.h"

namespace sabot::slots {

/// Counters are written by the slot's own thread only and read by any: relaxed, because each is a number by itself.
/// Who has seen a Run's result sees its items counted: the count comes before ItemCounted in the slot, and that comes
/// before Finished.
class Slot {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Slot(int id) : id_(id) {}

  int id() const noexcept { return id_; }

  /// Runs one claimed item, which starts at `start`, to its end; when that was. Only on the slot's own thread.
  Clock::time_point RunItem(Run& run, size_t index, Clock::time_point start) noexcept {
    const bool outermost = depth_++ == 0;
    const Source source = run.source_of(index);
    // A Run that was submitted while the slot was being dealt work counts as dealt at once.
    const auto queued = std::max(start - Claims::submitted_at(run), Clock::duration::zero());
    run.RunItem(index, id_, std::chrono::duration_cast<std::chrono::microseconds>(queued).count());
    const auto end = Clock::now();
    Count(source == Source::kNetwork ? network_ : local_, 1);
    if (outermost) {
      Count(busy_ns_, (end - start).count());
      if (stole) Count(stolen_, 1);
    }
    --depth_;
    run.ItemCounted(index);
    return end;
  }

  void SetBusy(bool busy) noexcept { busy_.store(busy, std::memory_order_relaxed); }
  bool busy() const noexcept { return busy_.load(std::memory_order_relaxed); }

  SlotStats stats() const noexcept {
    const int64_t local = local_.load(std::memory_order_relaxed);
    const int64_t network = network_.load(std::memory_order_relaxed);
    return {id_,
            busy(),
            local + network,
            local,
            network,
            stolen_.load(std::memory_order_relaxed),
            busy_ns_.load(std::memory_order_relaxed) / 1000};
  }

  // acquire, release: partners of each other. A slot that is told to leave parks no more.
  bool leaving() const noexcept { return leaving_.load(std::memory_order_acquire); }
  void Leave() noexcept { leaving_.store(true, std::memory_order_release); }

  std::thread& thread() noexcept { return thread_; }

  Lane lane;
  Lease lease;          // guarded by the queue lock: what `lane` is filled from; empty where it holds nothing
  bool stole = false;   // own thread only, as the next: the lane's items were another slot's
  bool narrow = false;  // no other slot works on the lane's Run

 private:
  static void Count(std::atomic<int64_t>& counter, int64_t by) noexcept {
    counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }

  const int id_;
  int depth_ = 0;  // own thread only
  alignas(64) std::atomic<bool> busy_{false};
  std::atomic<bool> leaving_{false};
  std::atomic<int64_t> local_{0};
  std::atomic<int64_t> network_{0};
  std::atomic<int64_t> stolen_{0};
  std::atomic<int64_t> busy_ns_{0};
  // Not a jthread: it is joined by the pool, or, where a slot destroys its own pool, ends by itself.
  std::thread thread_;
};

}  // namespace sabot::slots

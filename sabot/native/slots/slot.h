// One slot: its identity, its counters and its thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "sabot/native/slots/run.h"
#include "sabot/native/slots/slot_pool.h"

namespace sabot::slots {

/// Counters are written by the slot's own thread only and read by any: relaxed, because each is a number by itself.
/// Who has seen a Run's result sees its items counted: the count comes before Claims::Complete in the slot, and that
/// comes before Finished.
class Slot {
 public:
  explicit Slot(int id) : id_(id) {}

  int id() const noexcept { return id_; }

  /// Runs one claimed item to its end. Only on the slot's own thread; may nest.
  void RunItem(Run& run, size_t index) noexcept {
    const auto start = std::chrono::steady_clock::now();
    const bool outermost = depth_++ == 0;
    if (outermost) busy_.store(true, std::memory_order_relaxed);
    const Source source = run.source_of(index);
    run.RunItem(index, id_, Microseconds(start - Claims::submitted_at(run)));
    Count(source == Source::kNetwork ? network_ : local_, 1);
    if (outermost) {
      busy_ns_ += (std::chrono::steady_clock::now() - start).count();
      busy_us_.store(busy_ns_ / 1000, std::memory_order_relaxed);
      busy_.store(false, std::memory_order_relaxed);
    }
    --depth_;
    Claims::Complete(run, 1);
  }

  bool busy() const noexcept { return busy_.load(std::memory_order_relaxed); }

  SlotStats stats() const noexcept {
    const int64_t local = local_.load(std::memory_order_relaxed);
    const int64_t network = network_.load(std::memory_order_relaxed);
    return {id_, busy(), local + network, local, network, 0, busy_us_.load(std::memory_order_relaxed)};
  }

  // acquire, release: partners of each other. A slot that is told to leave parks no more.
  bool leaving() const noexcept { return leaving_.load(std::memory_order_acquire); }
  void Leave() noexcept { leaving_.store(true, std::memory_order_release); }

  std::thread& thread() noexcept { return thread_; }

 private:
  static int64_t Microseconds(std::chrono::steady_clock::duration d) noexcept {
    return std::chrono::duration_cast<std::chrono::microseconds>(d).count();
  }
  static void Count(std::atomic<int64_t>& counter, int64_t by) noexcept {
    counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }

  const int id_;
  int depth_ = 0;        // own thread only
  int64_t busy_ns_ = 0;  // own thread only
  alignas(64) std::atomic<bool> busy_{false};
  std::atomic<bool> leaving_{false};
  std::atomic<int64_t> local_{0};
  std::atomic<int64_t> network_{0};
  std::atomic<int64_t> busy_us_{0};
  // Not a jthread: it is joined by the pool, or, where a slot destroys its own pool, ends by itself.
  std::thread thread_;
};

}  // namespace sabot::slots

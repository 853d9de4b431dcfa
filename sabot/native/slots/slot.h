// One slot: its identity, its lane, its counters and its thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>

#include "sabot/native/slots/fair_queue.h"
#include "sabot/native/slots/lane.h"
#include "sabot/native/slots/logbook.h"
#include "sabot/native/slots/run.h"
#include "sabot/native/slots/slot_pool.h"
#include "sabot/native/slots/slot_usage.h"

namespace sabot::slots {

/// Counters are written by the slot's own thread only and read by any: relaxed, because each is a number by itself.
/// Who has seen a Run's result sees its items counted: the count comes before ItemCounted in the slot, and that comes
/// before Finished.
class Slot {
 public:
  using Clock = std::chrono::steady_clock;

  Slot(int id, std::shared_ptr<SlotLog> log) : id_(id), log_(std::move(log)) {}

  int id() const noexcept { return id_; }

  /// Runs one claimed item, which starts at `start`, to its end; when that was. Only on the slot's own thread.
  Clock::time_point RunItem(Run& run, size_t index, Clock::time_point start) noexcept {
    const bool outermost = depth_++ == 0;
    const Source source = run.source_of(index);
    // A Run that was submitted while the slot was being dealt work counts as dealt at once.
    const auto submitted = std::min(Claims::submitted_at(run), start);
    ItemNote note;
    {
      NoteScope noted(&note);
      run.RunItem(index, id_, std::chrono::duration_cast<std::chrono::microseconds>(start - submitted).count());
    }
    const auto end = Clock::now();
    log_->Add({submitted, start, end, source, outermost && stole}, note);
    usage_.AddGilWait(note.gil_wait_ns);
    Count(source == Source::kNetwork ? network_ : local_, 1);
    if (outermost) {
      Count(busy_ns_, (end - start).count());
      if (stole) Count(stolen_, 1);
    }
    --depth_;
    run.ItemCounted(index);
    return end;
  }

  SlotUsage& usage() noexcept { return usage_; }
  bool busy() const noexcept { return usage_.busy(); }

  SlotStats stats() const noexcept {
    const int64_t local = local_.load(std::memory_order_relaxed);
    const int64_t network = network_.load(std::memory_order_relaxed);
    const auto now = Clock::now();
    const int64_t busy_ns = usage_.busy_ns(now);
    return {id_,
            busy(),
            local + network,
            local,
            network,
            stolen_.load(std::memory_order_relaxed),
            busy_ns_.load(std::memory_order_relaxed) / 1000,
            std::max<int64_t>(0, usage_.lifetime_ns(now) - busy_ns) / 1000,
            busy_ns / 1000,
            usage_.gil_wait_ns() / 1000};
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
  int depth_ = 0;                       // own thread only
  const std::shared_ptr<SlotLog> log_;  // the logbook's and, while it runs, the slot's
  alignas(64) SlotUsage usage_;
  std::atomic<bool> leaving_{false};
  std::atomic<int64_t> local_{0};
  std::atomic<int64_t> network_{0};
  std::atomic<int64_t> stolen_{0};
  std::atomic<int64_t> busy_ns_{0};
  // Not a jthread: it is joined by the pool, or, where a slot destroys its own pool, ends by itself.
  std::thread thread_;
};

}  // namespace sabot::slots

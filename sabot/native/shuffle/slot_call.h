// Runs items in the slots and waits for them: the bridge for threads that are not slots themselves.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "sabot/native/slots/slot_pool.h"

namespace sabot::shuffle {

/// A Run whose end can be awaited. Subclasses keep their errors in RunItem.
class AwaitedRun : public slots::Run {
 public:
  void Finished() noexcept override {
    std::lock_guard lock(mutex_);
    finished_ = true;
    changed_.notify_all();
  }
  void SkipItem(size_t) noexcept override {
    skipped_.store(true, std::memory_order_relaxed);
  }  // read after Finished's lock

  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return finished_; });
  }
  bool skipped() const { return skipped_.load(std::memory_order_relaxed); }

 private:
  std::mutex mutex_;  // guards finished_
  std::condition_variable changed_;
  bool finished_ = false;
  std::atomic<bool> skipped_{false};
};

/// Runs every item of `run` in `pool`, or in the calling thread where there is no pool; returns after the last. False
/// where the pool skipped items because it is shutting down.
inline bool RunAndWait(slots::SlotPool* pool, const std::shared_ptr<AwaitedRun>& run) {
  if (pool == nullptr || pool->on_slot_thread()) {
    for (size_t i = 0; i < run->item_count(); ++i) run->RunItem(i, -1, 0);
    return true;
  }
  if (pool->Submit(run) != slots::Outcome::kAccepted) return false;
  run->Wait();
  return !run->skipped();
}

}  // namespace sabot::shuffle

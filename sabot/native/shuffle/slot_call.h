// Runs items in the slots and waits for them: the bridge for threads that are not slots themselves.
#pragma once

#include <arrow/status.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "sabot/native/slots/slot_pool.h"

namespace sabot::shuffle {

/// Which slots do a call's work (null: the calling thread does), on whose account, and how long the caller waits.
struct SlotUse {
  slots::SlotPool* pool = nullptr;
  slots::JobShare share;
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
};

/// A Run whose end can be awaited. Subclasses keep their errors in RunItem.
class AwaitedRun : public slots::Run {
 public:
  void Finished() noexcept override;
  void SkipItem(size_t) noexcept override;

  void Wait();
  /// Whether it has finished by then.
  bool WaitUntil(std::chrono::steady_clock::time_point deadline);
  /// Whether an item was skipped; after the end.
  bool skipped() const { return skipped_.load(std::memory_order_relaxed); }  // relaxed: read after Wait's lock

 private:
  std::mutex mutex_;  // guards finished_
  std::condition_variable changed_;
  bool finished_ = false;
  std::atomic<bool> skipped_{false};
};

/// Runs every item of `run`; returns after the last. At the deadline the items that no slot has begun are given up:
/// kLimit. kCancelled where the slots were shut down. `doing` says in the message what was not done.
arrow::Status RunAndWait(const SlotUse& use, const std::shared_ptr<AwaitedRun>& run, const std::string& doing);

}  // namespace sabot::shuffle

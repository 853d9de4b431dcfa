#include "sabot/native/shuffle/slot_call.h"

#include "sabot/native/status.h"

namespace sabot::shuffle {

void AwaitedRun::Finished() noexcept {
  std::lock_guard lock(mutex_);
  finished_ = true;
  changed_.notify_all();
}

void AwaitedRun::SkipItem(size_t) noexcept {
  skipped_.store(true, std::memory_order_relaxed);  // relaxed: Finished's lock follows
}

void AwaitedRun::Wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return finished_; });
}

bool AwaitedRun::WaitUntil(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, deadline, [&] { return finished_; });
}

arrow::Status RunAndWait(const SlotUse& use, const std::shared_ptr<AwaitedRun>& run, const std::string& doing) {
  if (use.pool == nullptr || use.pool->on_slot_thread()) {
    for (size_t i = 0; i < run->item_count(); ++i) run->RunItem(i, -1, 0);
    return arrow::Status::OK();
  }
  const bool accepted = use.pool->Submit(run, use.share) == slots::Outcome::kAccepted;
  bool in_time = true;
  if (accepted) {
    in_time = run->WaitUntil(use.deadline);
    if (!in_time) use.pool->Cancel(run);
    run->Wait();  // items that have begun refer to what the caller holds
  }
  if (accepted && !run->skipped()) return arrow::Status::OK();
  if (!in_time) {
    return MakeStatus(Code::kLimit, "No slot came to " + doing +
                                        " before the deadline: the slots are busy. Add slots, give the job a larger "
                                        "weight, or give a larger timeout_s.");
  }
  return MakeStatus(Code::kCancelled, "The slots were shut down before they came to " + doing + ".");
}

}  // namespace sabot::shuffle

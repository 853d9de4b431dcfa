#include "sabot/native/slots/run.h"

namespace sabot::slots {

bool Claims::Open(Run& run, const JobShare& share) noexcept {
  // relaxed: it decides one winner and orders nothing.
  if (run.submitted_.exchange(true, std::memory_order_relaxed)) return false;
  run.share_ = share;
  run.submitted_at_ = std::chrono::steady_clock::now();
  run.state_.count = run.item_count();
  run.state_.narrow = run.state_.count > 1 && run.starts_narrow();
  run.unfinished_.store(run.state_.count, std::memory_order_relaxed);  // relaxed: ordered by the next line
  run.opened_.store(true, std::memory_order_release);                  // release: partner of the acquire in opened
  return true;
}

bool Claims::opened(const Run& run) noexcept {
  return run.opened_.load(std::memory_order_acquire);  // acquire: partner of the release in Open
}

void Claims::Skip(Run& run, ItemRange items) noexcept {
  for (size_t i = 0; i < items.count; ++i) run.SkipItem(items.first + i);
}

void Claims::Complete(Run& run, size_t items) noexcept {
  if (items == 0) return;
  // acq_rel: partners of each other, so that Finished comes after, and sees, everything that every item did.
  if (run.unfinished_.fetch_sub(items, std::memory_order_acq_rel) == items) run.Finished();
}

}  // namespace sabot::slots

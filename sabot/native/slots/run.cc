#include "sabot/native/slots/run.h"

namespace sabot::slots {

size_t Run::SkipRest() noexcept {
  // relaxed, as every access to next_: it deals out indices only. What an item holds was made visible by the hand-over
  // of the shared_ptr (queue turn, or the caller's own means), and what running it made is ordered by unfinished_.
  const size_t first = next_.exchange(kNotSubmitted, std::memory_order_relaxed);
  if (first >= count_) return 0;
  const size_t skipped = count_ - first;
  items_queued_->fetch_sub(static_cast<int64_t>(skipped), std::memory_order_relaxed);  // relaxed: an estimate
  for (size_t index = first; index < count_; ++index) SkipItem(index);
  // The caller's own item, or Claims::SkipRest, still holds a share: this cannot be the last.
  unfinished_.fetch_sub(skipped, std::memory_order_acq_rel);  // acq_rel: partner of the one in Claims::Complete
  return skipped;
}

bool Claims::Open(Run& run, std::atomic<int64_t>* items_queued) noexcept {
  // relaxed: it decides one winner and orders nothing.
  if (run.submitted_.exchange(true, std::memory_order_relaxed)) return false;
  run.count_ = run.item_count();
  run.items_queued_ = items_queued;
  run.submitted_at_ = std::chrono::steady_clock::now();
  // relaxed: an estimate
  items_queued->fetch_add(static_cast<int64_t>(run.count_), std::memory_order_relaxed);
  run.next_.store(0, std::memory_order_relaxed);                 // relaxed: ordered by the next line
  run.unfinished_.store(run.count_, std::memory_order_release);  // release: partner of the acquire in SkipRest
  return true;
}

bool Claims::Next(Run& run, size_t* index, bool* more) noexcept {
  *index = run.next_.fetch_add(1, std::memory_order_relaxed);  // relaxed: see Run::SkipRest
  if (*index >= run.count_) return false;
  *more = *index + 1 < run.count_;
  run.items_queued_->fetch_sub(1, std::memory_order_relaxed);  // relaxed: an estimate
  return true;
}

void Claims::SkipRest(Run& run) noexcept {
  // A share of our own, so that the Run cannot finish inside Run::SkipRest; a Run that has finished is left alone.
  size_t unfinished = run.unfinished_.load(std::memory_order_relaxed);  // relaxed: the exchange decides
  do {
    if (unfinished == 0) return;
    // acquire: partner of the release in Open, for a cancel that races with Submit.
  } while (!run.unfinished_.compare_exchange_weak(unfinished, unfinished + 1, std::memory_order_acquire,
                                                  std::memory_order_relaxed));
  run.SkipRest();
  Complete(run, 1);
}

void Claims::Complete(Run& run, size_t items) noexcept {
  // acq_rel: partners of each other, so that Finished comes after, and sees, everything that every item did.
  if (run.unfinished_.fetch_sub(items, std::memory_order_acq_rel) == items) run.Finished();
}

}  // namespace sabot::slots

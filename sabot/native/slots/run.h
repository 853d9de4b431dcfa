// What a slot pool runs: a Run is one operator over a counted list of items (morsels). Arrow-free.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace sabot::slots {

enum class Source : uint8_t { kLocal = 0, kNetwork = 1 };

/// One operator over `item_count()` items. Owned by a shared_ptr: the submitter and the pool, which lets go of it
/// after the last item. The pool calls RunItem once per item, from several slots at once, each to its end.
/// A Run is submitted once.
class Run {
 public:
  virtual ~Run() = default;
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  virtual size_t item_count() const noexcept = 0;
  virtual Source source_of(size_t index) const noexcept = 0;

  /// True where the items join the queue even when a slot submits them: for work that shall not hold up that slot.
  virtual bool queued_in_slots() const noexcept { return false; }

  /// Runs item `index` in slot `slot_id`; `queue_us` is how long it waited since Submit. Must not wait for a peer,
  /// credit, lock or disk. An error is the Run's own to keep. At most one thread at a time has a given slot_id.
  virtual void RunItem(size_t index, int slot_id, int64_t queue_us) noexcept = 0;

  /// Called exactly once for each item that the pool will never run (cancelled, or the pool shut down).
  virtual void SkipItem(size_t index) noexcept = 0;

  /// Called exactly once, after the last RunItem or SkipItem returned and the slots' counters include it: make results
  /// visible here, not in RunItem. The Run may be destroyed right after it.
  virtual void Finished() noexcept = 0;

 protected:
  Run() = default;

  /// Skips the items that have not started; how many. To be called from inside RunItem, once the Run has failed.
  size_t SkipRest() noexcept;

 private:
  friend class Claims;

  static constexpr size_t kNotSubmitted = std::numeric_limits<size_t>::max() / 2;

  std::atomic<bool> submitted_{false};
  std::atomic<size_t> next_{kNotSubmitted};  // the item to claim next; at count_ or above: none is left
  std::atomic<size_t> unfinished_{0};
  size_t count_ = 0;                              // set once, before the Run is shared
  std::atomic<int64_t>* items_queued_ = nullptr;  // the pool's; it lives as long as an item is unclaimed
  std::chrono::steady_clock::time_point submitted_at_;
};

/// The pool's hold on a Run's items: who claims an item runs or skips it, and nobody else does.
class Claims {
 public:
  /// False when the Run was submitted before.
  static bool Open(Run& run, std::atomic<int64_t>* items_queued) noexcept;
  /// Claims the next item. `*more` says whether others are left to claim.
  static bool Next(Run& run, size_t* index, bool* more) noexcept;
  /// Claims what is left, skips it, and finishes the Run if nothing else is running.
  static void SkipRest(Run& run) noexcept;
  /// Counts items as run or skipped; the last one finishes the Run.
  static void Complete(Run& run, size_t items) noexcept;
  static std::chrono::steady_clock::time_point submitted_at(const Run& run) noexcept { return run.submitted_at_; }
};

}  // namespace sabot::slots

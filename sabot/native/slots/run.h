// What a slot pool runs: a Run is one operator over a counted list of items (morsels), on account of a job. Arrow-free.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <string>

namespace sabot::slots {

enum class Source : uint8_t { kLocal = 0, kNetwork = 1 };

/// On whose account a Run's slot time goes. Jobs share the slots' time by weight; the Runs of one job take turns. The
/// job with the empty id is everybody's who names none. A job's weight is that of its latest Submit.
struct JobShare {
  static constexpr double kWeightMin = 1e-3;
  static constexpr double kWeightMax = 1e6;

  std::string id;
  double weight = 1.0;

  bool valid() const noexcept { return weight >= kWeightMin && weight <= kWeightMax; }
};

class Run;
struct Job;

/// A share in a Run that has items left, held by the pool's queue and by the slots that run it.
using Ticket = std::shared_ptr<Run>;

/// Items `first` up to `first + count` of a Run.
struct ItemRange {
  size_t first = 0;
  size_t count = 0;
};

/// How far a Run has been dealt out. The pool's queue lock guards it from Submit on.
struct RunState {
  size_t next = 0;  // items from here on are in no slot's lane
  size_t count = 0;
  int leases = 0;                  // lanes that hold, or ran, items not yet settled
  bool narrow = false;             // one lane at a time
  bool queued = false;             // `place` is meant
  Source source = Source::kLocal;  // of the item `next`, while queued
  int64_t item_ns = 0;             // the recent items' time; 0: not known
  Job* job = nullptr;              // set while items are left or leased
  std::list<Ticket>::iterator place;
};

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

  /// True where the items need a lock in common (Python's GIL): then a second slot is put to it only when an item
  /// has taken long, or none has ended for a while (SlotPool::Widen); handing the lock over would cost more than short
  /// items take.
  virtual bool starts_narrow() const noexcept { return false; }

  /// Runs item `index` in slot `slot_id`; `queue_us` is how long it waited since Submit. Must not wait for a peer,
  /// credit, lock or disk. An error is the Run's own to keep. At most one thread at a time has a given slot_id.
  virtual void RunItem(size_t index, int slot_id, int64_t queue_us) noexcept = 0;

  /// Called after RunItem of the same item, in the same slot, once the slot's counters include it.
  virtual void ItemCounted(size_t index) noexcept {}

  /// Called exactly once for each item that the pool will never run (cancelled, or the pool shut down).
  virtual void SkipItem(size_t index) noexcept = 0;

  /// Called exactly once, after the last ItemCounted or SkipItem returned: results become visible here or in
  /// ItemCounted, not in RunItem. The Run may be destroyed right after it.
  virtual void Finished() noexcept = 0;

 protected:
  Run() = default;

  /// Skips the items that have not started. To be called from inside RunItem, once the Run has failed.
  void SkipRest() noexcept;

 private:
  friend class Claims;

  std::atomic<bool> submitted_{false};
  std::atomic<bool> opened_{false};  // what follows is set
  std::atomic<size_t> unfinished_{0};
  JobShare share_;
  std::chrono::steady_clock::time_point submitted_at_;
  RunState state_;
};

/// The pool's hold on a Run: who is dealt an item runs or skips it, counts it as complete, and nobody else does.
class Claims {
 public:
  /// False when the Run was submitted before.
  static bool Open(Run& run, const JobShare& share) noexcept;
  /// Whether Open has returned: before it there is nothing to cancel.
  static bool opened(const Run& run) noexcept;
  static void Skip(Run& run, ItemRange items) noexcept;
  /// Counts items as run or skipped; the last one finishes the Run.
  static void Complete(Run& run, size_t items) noexcept;

  static std::chrono::steady_clock::time_point submitted_at(const Run& run) noexcept { return run.submitted_at_; }
  static const JobShare& share(const Run& run) noexcept { return run.share_; }
  static RunState& state(Run& run) noexcept { return run.state_; }
};

}  // namespace sabot::slots

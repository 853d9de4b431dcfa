// Morsels through an operator in the slots: the Run that the slot pool's Python face submits.
#pragma once

#include <arrow/status.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "sabot/native/operators/step.h"
#include "sabot/native/slots/item_note.h"
#include "sabot/native/slots/run.h"

namespace sabot::operators {

struct Morsel {
  Rows batch;
  int64_t start_row = 0;
  int64_t num_rows = 0;
  int64_t partition_id = 0;
  slots::Source source = slots::Source::kLocal;
  int64_t num_bytes = 0;  // set by Add: the rows' share of what the batch refers to
};

struct MorselOutcome {
  Rows rows;         // null: the operator gave none, or the morsel did not run
  int slot_id = -1;  // -1: did not run
  int64_t queue_us = 0;
  int64_t run_us = 0;
  int64_t gil_wait_us = 0;  // part of run_us
  bool failed = false;
};

struct MorselFailure {
  arrow::Status status;
  size_t index = 0;
  int slot_id = -1;
  size_t others = 0;  // morsels that failed after this one
};

/// The steps of one operator, in order; shared by the Runs that it is used in.
using Steps = std::vector<std::unique_ptr<Step>>;

/// Runs every step on a morsel in one go, so that its rows stay warm in the cache. The first failure skips the morsels
/// that have not started. Everything that the accessors give is set once `finished`, and constant from then on.
class MorselRun final : public slots::Run {
 public:
  explicit MorselRun(std::shared_ptr<const Steps> steps);

  /// Before Submit only. The slice must lie within the batch.
  void Add(Morsel morsel);
  /// Before Submit only: what the slots' logbook calls it.
  void SetNames(slots::ItemNames names) { names_ = names; }
  /// Before Submit only: the number by which steps know its first morsel, where a call has several runs.
  void SetFirst(size_t morsel) { first_ = morsel; }
  /// Before Submit only. `on_finished(context)` is called once, in the thread in which the run ends.
  void NotifyOnFinish(void (*on_finished)(void*), void* context) {
    on_finished_ = on_finished;
    context_ = context;
  }

  /// Before Submit only: keeps a list of the morsels as they end well, for WaitForNext.
  void ListEnded() { lists_ended_ = true; }
  /// Before Submit only, after the last Add: morsels far larger than most are run first, since one that came last would
  /// keep one slot busy while the others are idle.
  void PutLargeFirst();

  size_t item_count() const noexcept override { return morsels_.size(); }
  slots::Source source_of(size_t item) const noexcept override { return morsels_[IndexOf(item)].source; }
  bool starts_narrow() const noexcept override { return takes_gil_; }
  void RunItem(size_t item, int slot_id, int64_t queue_us) noexcept override;
  void ItemCounted(size_t item) noexcept override;
  void SkipItem(size_t item) noexcept override;
  void Finished() noexcept override;

  /// Ends early what its morsels do in other processes, from any thread; morsels not started are not skipped by this.
  void Interrupt() noexcept;

  /// Waits up to `timeout_us`; whether the run has finished.
  bool WaitFor(int64_t timeout_us) noexcept;

  enum class Next { kMorsel, kNotYet, kNone };
  /// Waits up to `timeout_us` for the `nth` morsel to end. `*index` is its place in the order of Add. kNone: the run
  /// has finished, and no more than `nth` morsels ended well.
  Next WaitForNext(size_t nth, int64_t timeout_us, size_t* index) noexcept;

  /// How many morsels have run; it may be stale, and stays 0 where none takes the GIL.
  size_t ended_approx() const noexcept { return ended_count_.load(std::memory_order_relaxed); }  // relaxed: an estimate

  const Morsel& morsel(size_t index) const noexcept { return morsels_[index]; }
  const MorselOutcome& outcome(size_t index) const noexcept { return outcomes_[index]; }
  /// How many will never run; more may follow until `finished`.
  size_t skipped() const noexcept {
    std::lock_guard lock(mutex_);
    return skipped_;
  }
  bool failed() const noexcept { return has_failed_; }
  const MorselFailure& failure() const noexcept { return failure_; }
  /// Gives the failure's status away, once: a Python exception in it refers to frames that refer to this run.
  arrow::Status TakeFailureStatus() noexcept { return std::exchange(failure_.status, arrow::Status::OK()); }

 private:
  size_t IndexOf(size_t item) const noexcept { return order_.empty() ? item : order_[item]; }
  arrow::Result<Rows> RunSteps(Rows rows, const Place& place) const;
  void Fail(size_t index, int slot_id, arrow::Status status);

  const std::shared_ptr<const Steps> steps_;
  const bool takes_gil_;
  bool lists_ended_ = false;
  std::vector<Morsel> morsels_;          // each touched by the one slot that runs it
  std::vector<MorselOutcome> outcomes_;  // the same
  slots::ItemNames names_;
  size_t first_ = 0;
  const arrow::RecordBatch* sized_batch_ = nullptr;  // the last one that Add has seen; compared only
  int64_t sized_bytes_ = 0;
  std::vector<size_t> order_;  // which morsel an item is; empty: as added
  std::atomic<size_t> ended_count_{0};
  void (*on_finished_)(void*) = nullptr;
  void* context_ = nullptr;

  std::atomic<bool> interrupted_{false};
  mutable std::mutex mutex_;
  std::condition_variable ended_;
  std::vector<size_t> list_;  // guarded by mutex_; the morsels that have ended, where they are listed
  bool finished_ = false;     // guarded by mutex_
  size_t skipped_ = 0;        // guarded by mutex_
  bool has_failed_ = false;   // guarded by mutex_ until finished
  MorselFailure failure_;     // guarded by mutex_ until finished
};

}  // namespace sabot::operators

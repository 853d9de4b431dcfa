// Morsels through an operator in the slots: the Run that the slot pool's Python face submits.
#pragma once

#include <arrow/status.h>

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
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
  explicit MorselRun(std::shared_ptr<const Steps> steps) : steps_(std::move(steps)) {}

  /// Before Submit only. The slice must lie within the batch.
  void Add(Morsel morsel);
  /// Before Submit only: what the slots' logbook calls it.
  void SetNames(slots::ItemNames names) { names_ = names; }
  /// Before Submit only. `on_finished(context)` is called once, in the thread in which the run ends.
  void NotifyOnFinish(void (*on_finished)(void*), void* context) {
    on_finished_ = on_finished;
    context_ = context;
  }

  size_t item_count() const noexcept override { return morsels_.size(); }
  slots::Source source_of(size_t index) const noexcept override { return morsels_[index].source; }
  void RunItem(size_t index, int slot_id, int64_t queue_us) noexcept override;
  void SkipItem(size_t index) noexcept override;
  void Finished() noexcept override;

  /// Waits up to `timeout_ms`; whether the run has finished.
  bool WaitFor(int64_t timeout_ms) noexcept;

  const Morsel& morsel(size_t index) const noexcept { return morsels_[index]; }
  const MorselOutcome& outcome(size_t index) const noexcept { return outcomes_[index]; }
  size_t skipped() const noexcept { return skipped_; }
  bool failed() const noexcept { return !failure_.status.ok(); }
  const MorselFailure& failure() const noexcept { return failure_; }

 private:
  arrow::Result<Rows> RunSteps(Rows rows) const;
  void Fail(size_t index, int slot_id, arrow::Status status);

  const std::shared_ptr<const Steps> steps_;
  std::vector<Morsel> morsels_;          // each touched by the one slot that runs it
  std::vector<MorselOutcome> outcomes_;  // the same
  slots::ItemNames names_;
  const arrow::RecordBatch* sized_batch_ = nullptr;  // the last one that Add has seen; compared only
  int64_t sized_bytes_ = 0;
  void (*on_finished_)(void*) = nullptr;
  void* context_ = nullptr;

  std::mutex mutex_;
  std::condition_variable ended_;
  bool finished_ = false;  // guarded by mutex_
  size_t skipped_ = 0;     // guarded by mutex_ until finished
  MorselFailure failure_;  // guarded by mutex_ until finished
};

}  // namespace sabot::operators

#include "sabot/native/operators/morsel_run.h"

#include <arrow/util/byte_size.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace sabot::operators {

void MorselRun::Add(Morsel morsel) {
  if (morsel.batch.get() != sized_batch_) {
    sized_batch_ = morsel.batch.get();
    // Of some layouts Arrow cannot tell what a slice refers to.
    sized_bytes_ =
        arrow::util::ReferencedBufferSize(*sized_batch_).ValueOr(arrow::util::TotalBufferSize(*sized_batch_));
  }
  const auto rows = static_cast<double>(std::max<int64_t>(1, morsel.batch->num_rows()));
  morsel.num_bytes =
      static_cast<int64_t>(static_cast<double>(sized_bytes_) * static_cast<double>(morsel.num_rows) / rows);
  morsels_.push_back(std::move(morsel));
  outcomes_.emplace_back();
}

void MorselRun::RunItem(size_t index, int slot_id, int64_t queue_us) noexcept {
  const auto start = std::chrono::steady_clock::now();
  Morsel& morsel = morsels_[index];
  const bool whole = morsel.start_row == 0 && morsel.num_rows == morsel.batch->num_rows();
  // Moved, so that a batch is let go of with its last morsel, not with the run.
  Rows batch = std::move(morsel.batch);
  arrow::Result<Rows> result = RunSteps(whole ? std::move(batch) : batch->Slice(morsel.start_row, morsel.num_rows));
  MorselOutcome& outcome = outcomes_[index];
  outcome.slot_id = slot_id;
  outcome.queue_us = queue_us;
  if (result.ok()) {
    outcome.rows = std::move(result).ValueUnsafe();
  } else {
    Fail(index, slot_id, result.status());
  }
  const auto took = std::chrono::steady_clock::now() - start;
  if (slots::ItemNote* note = slots::NoteScope::Here()) {
    *note = {names_, morsel.partition_id, morsel.num_rows, morsel.num_bytes, note->gil_wait_ns};
    outcome.gil_wait_us = note->gil_wait_ns / 1000;
  }
  outcome.run_us = std::chrono::duration_cast<std::chrono::microseconds>(took).count();
}

arrow::Result<Rows> MorselRun::RunSteps(Rows rows) const {
  for (const auto& step : *steps_) {
    ARROW_ASSIGN_OR_RAISE(rows, step->Run(rows));
    if (rows == nullptr) break;
  }
  return rows;
}

void MorselRun::Fail(size_t index, int slot_id, arrow::Status status) {
  {
    std::lock_guard lock(mutex_);
    if (failed()) {
      ++failure_.others;
      return;
    }
    failure_ = {std::move(status), index, slot_id, 0};
  }
  SkipRest();
}

void MorselRun::SkipItem(size_t index) noexcept {
  morsels_[index].batch.reset();
  std::lock_guard lock(mutex_);
  ++skipped_;
}

void MorselRun::Finished() noexcept {
  {
    std::lock_guard lock(mutex_);
    finished_ = true;
    ended_.notify_all();
  }
  if (on_finished_ != nullptr) on_finished_(context_);
}

bool MorselRun::WaitFor(int64_t timeout_ms) noexcept {
  std::unique_lock lock(mutex_);
  return ended_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [this] { return finished_; });
}

}  // namespace sabot::operators

#include "sabot/native/operators/morsel_run.h"

#include <arrow/util/byte_size.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

namespace sabot::operators {
namespace {

/// A morsel of so many times the average rows is large: below, the order that was given serves as well.
constexpr int64_t kLargeTimes = 4;

bool AnyTakesGil(const Steps& steps) {
  return std::any_of(steps.begin(), steps.end(), [](const auto& step) { return step->takes_gil(); });
}

}  // namespace

MorselRun::MorselRun(std::shared_ptr<const Steps> steps) : steps_(std::move(steps)), takes_gil_(AnyTakesGil(*steps_)) {}

void MorselRun::PutLargeFirst() {
  int64_t rows = 0;
  int64_t most = 0;
  for (const Morsel& morsel : morsels_) {
    rows += morsel.num_rows;
    most = std::max(most, morsel.num_rows);
  }
  const auto count = static_cast<int64_t>(morsels_.size());
  if (count < 2 || most / kLargeTimes < rows / count) return;
  order_.resize(morsels_.size());
  std::iota(order_.begin(), order_.end(), size_t{0});
  std::stable_sort(order_.begin(), order_.end(),
                   [&](size_t a, size_t b) { return morsels_[a].num_rows > morsels_[b].num_rows; });
}

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

void MorselRun::RunItem(size_t item, int slot_id, int64_t queue_us) noexcept {
  const size_t index = IndexOf(item);
  const auto start = std::chrono::steady_clock::now();
  Morsel& morsel = morsels_[index];
  const bool whole = morsel.start_row == 0 && morsel.num_rows == morsel.batch->num_rows();
  // Moved, so that a batch is let go of with its last morsel, not with the run.
  Rows batch = std::move(morsel.batch);
  arrow::Result<Rows> result = RunSteps(whole ? std::move(batch) : batch->Slice(morsel.start_row, morsel.num_rows),
                                        {slot_id, first_ + index, this, &interrupted_});
  MorselOutcome& outcome = outcomes_[index];
  outcome.slot_id = slot_id;
  outcome.queue_us = queue_us;
  if (result.ok()) {
    outcome.rows = std::move(result).ValueUnsafe();
  } else {
    outcome.failed = true;
    Fail(index, slot_id, result.status());
  }
  const auto took = std::chrono::steady_clock::now() - start;
  if (slots::ItemNote* note = slots::NoteScope::Here()) {
    *note = {names_, morsel.partition_id, morsel.num_rows, morsel.num_bytes, note->gil_wait_ns};
    outcome.gil_wait_us = note->gil_wait_ns / 1000;
  }
  outcome.run_us = std::chrono::duration_cast<std::chrono::microseconds>(took).count();
}

arrow::Result<Rows> MorselRun::RunSteps(Rows rows, const Place& place) const {
  for (const auto& step : *steps_) {
    ARROW_ASSIGN_OR_RAISE(rows, step->Run(rows, place));
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
    has_failed_ = true;
    failure_ = {std::move(status), index, slot_id, 0};
  }
  SkipRest();
}

void MorselRun::Interrupt() noexcept {
  interrupted_.store(true, std::memory_order_release);  // a step that begins later acquires it
  for (const auto& step : *steps_) step->Interrupt(this);
}

void MorselRun::ItemCounted(size_t item) noexcept {
  if (takes_gil_) ended_count_.fetch_add(1, std::memory_order_relaxed);  // relaxed: an estimate
  const size_t index = IndexOf(item);
  if (!lists_ended_ || outcomes_[index].failed) return;
  std::lock_guard lock(mutex_);
  list_.push_back(index);
  ended_.notify_all();
}

void MorselRun::SkipItem(size_t item) noexcept {
  morsels_[IndexOf(item)].batch.reset();
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

bool MorselRun::WaitFor(int64_t timeout_us) noexcept {
  std::unique_lock lock(mutex_);
  return ended_.wait_for(lock, std::chrono::microseconds(timeout_us), [this] { return finished_; });
}

MorselRun::Next MorselRun::WaitForNext(size_t nth, int64_t timeout_us, size_t* index) noexcept {
  std::unique_lock lock(mutex_);
  ended_.wait_for(lock, std::chrono::microseconds(timeout_us), [&] { return finished_ || nth < list_.size(); });
  if (nth >= list_.size()) return finished_ ? Next::kNone : Next::kNotYet;
  *index = list_[nth];
  return Next::kMorsel;
}

}  // namespace sabot::operators

// A batch that is kept, in memory or on disk, and can be had again either way. Thread-safe: whoever loads it while it
// is being written to disk gets what is still in memory.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include "sabot/native/spill/spilled_run.h"

namespace sabot::spill {

class KeptRows {
 public:
  explicit KeptRows(std::shared_ptr<arrow::RecordBatch> rows) : row_count_(rows->num_rows()), rows_(std::move(rows)) {}

  int64_t row_count() const { return row_count_; }

  /// The rows, from disk into memory of `pool` where they are there.
  arrow::Result<std::shared_ptr<arrow::RecordBatch>> Load(arrow::MemoryPool* pool) const {
    std::shared_ptr<const SpilledRun> run;
    uint32_t segment = 0;
    {
      std::lock_guard lock(mutex_);
      if (rows_ != nullptr) return rows_;
      run = run_;
      segment = segment_;
    }
    ARROW_ASSIGN_OR_RAISE(auto pieces, run->Load(segment, pool));
    return std::move(pieces.front().rows);
  }

  /// The rows where they are in memory, else null.
  std::shared_ptr<arrow::RecordBatch> in_memory() const {
    std::lock_guard lock(mutex_);
    return rows_;
  }

  /// From now on they are what `segment` of `run` gives.
  void Swap(std::shared_ptr<const SpilledRun> run, uint32_t segment) {
    std::shared_ptr<arrow::RecordBatch> freed;  // outside the lock
    std::lock_guard lock(mutex_);
    freed = std::move(rows_);
    rows_.reset();
    run_ = std::move(run);
    segment_ = segment;
  }

 private:
  const int64_t row_count_;
  mutable std::mutex mutex_;  // guards the three below; a leaf
  std::shared_ptr<arrow::RecordBatch> rows_;
  std::shared_ptr<const SpilledRun> run_;  // shared with what was written with it
  uint32_t segment_ = 0;
};

}  // namespace sabot::spill

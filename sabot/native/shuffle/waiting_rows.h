// Rows of a chunk that waits in an outbox, in memory or on disk, with what the outbox's account holds for them.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "sabot/native/spill/kept_rows.h"

namespace sabot::shuffle {

/// Thread-safe: a stream may send what the spill writer is writing.
class WaitingRows {
 public:
  WaitingRows(std::shared_ptr<arrow::RecordBatch> rows, int64_t held) : rows_(std::move(rows)), held_(held) {}

  /// The rows, from disk into memory of `pool` where they are there.
  arrow::Result<std::shared_ptr<arrow::RecordBatch>> Load(arrow::MemoryPool* pool) const { return rows_.Load(pool); }
  std::shared_ptr<arrow::RecordBatch> in_memory() const { return rows_.in_memory(); }

  /// What the account holds for the rows: at the end of their memory it is to be dropped, once.
  int64_t held() const { return held_.load(std::memory_order_relaxed); }
  int64_t TakeHeld() const {
    return held_.exchange(0, std::memory_order_relaxed);
  }  // a number alone: it orders nothing

  /// True for the first who asks: the rows are his to write to disk. They are asked about once, even if that fails.
  bool ClaimForDisk() const { return !claimed_.exchange(true, std::memory_order_relaxed); }
  bool claimed() const { return claimed_.load(std::memory_order_relaxed); }
  void Swap(std::shared_ptr<const spill::SpilledRun> run, uint32_t segment) const {
    rows_.Swap(std::move(run), segment);
  }

 private:
  mutable spill::KeptRows rows_;
  mutable std::atomic<int64_t> held_;
  mutable std::atomic<bool> claimed_{false};
};

}  // namespace sabot::shuffle

// A shuffle's processor: a function run in the slots on rows as they arrive, whose results wait, tagged with their
// attempt, for the reader. A reader is given the results of the pieces that it was given, and no others.
#pragma once

#include <arrow/record_batch.h>

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "sabot/native/shuffle/chunk_store.h"
#include "sabot/native/slots/slot_pool.h"

namespace sabot::shuffle {

class Processing : public std::enable_shared_from_this<Processing> {
 public:
  /// Called in a slot; null for no rows. An error is the shuffle's.
  using Function =
      std::function<arrow::Result<std::shared_ptr<arrow::RecordBatch>>(const std::shared_ptr<arrow::RecordBatch>&)>;

  Processing(std::shared_ptr<slots::SlotPool> pool, slots::JobShare share, Function function)
      : pool_(std::move(pool)), share_(std::move(share)), function_(std::move(function)) {}

  /// Queues one morsel a piece; never blocks.
  void Arrive(const std::vector<Piece>& pieces);
  /// The results of `pieces`, in their order, nulls left out; waits for those still running.
  arrow::Result<std::vector<std::shared_ptr<arrow::RecordBatch>>> Results(const std::vector<Piece>& pieces,
                                                                          Clock::time_point deadline);

 private:
  class ArrivalRun;
  using Key = std::tuple<AttemptKey, uint32_t, int32_t>;
  static Key KeyOf(const Piece& piece) { return {piece.attempt, piece.sequence, piece.partition}; }
  void Keep(const Piece& piece, arrow::Result<std::shared_ptr<arrow::RecordBatch>> result);

  const std::shared_ptr<slots::SlotPool> pool_;  // shared with the agent
  const slots::JobShare share_;
  const Function function_;
  std::mutex mutex_;  // guards results_; a leaf
  std::condition_variable changed_;
  std::map<Key, arrow::Result<std::shared_ptr<arrow::RecordBatch>>> results_;
};

}  // namespace sabot::shuffle

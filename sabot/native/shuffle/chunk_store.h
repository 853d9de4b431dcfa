// The chunks that an agent holds for its partitions, in memory, with the bookkeeping of each shuffle. Thread-safe; the
// only waits are WaitOpen and WaitSenders, each with a deadline and ended by Close.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "sabot/native/shuffle/bookkeeping.h"
#include "sabot/native/shuffle/ended_names.h"
#include "sabot/native/slots/run.h"

namespace sabot::shuffle {

using Clock = std::chrono::steady_clock;

/// Seconds as users give them: no number, or less than none, is none; beyond 30 years is 30 years.
inline double BoundedSeconds(double seconds) { return seconds > 0 ? std::min(seconds, 1e9) : 0; }

inline Clock::time_point DeadlineIn(double seconds) {
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(BoundedSeconds(seconds)));
}

/// Consecutive rows of one partition in one stored chunk.
struct Piece {
  std::shared_ptr<arrow::RecordBatch> rows;  // a zero-copy slice
  slots::Source source;
  AttemptKey attempt;
  uint32_t sequence;
  int32_t partition;
};

/// What a reader of a partition is given: the pieces, and what the manifests promise of them.
struct PartitionContents {
  std::shared_ptr<arrow::Schema> schema;  // null where no sender had any rows or schema
  std::vector<Piece> pieces;
  PartitionSum promised;
  Layout layout;
};

struct StoreStats {
  int64_t shuffles = 0;
  int64_t stored_bytes = 0;
  int64_t stored_chunks = 0;
  int64_t chunks_received = 0;  // from other agents, repeats included
  int64_t bytes_received = 0;
  int64_t chunks_repeated = 0;
};

class ChunkStore {
 public:
  /// Called for each stored chunk, outside the lock, before it is acknowledged; must not block.
  using Arrival = std::function<void(const std::vector<Piece>&)>;

  struct Spec {
    Bookkeeping::Options book;
    std::shared_ptr<arrow::Schema> schema;  // null: the first sender's
    Arrival arrival;                        // may be empty
  };

  /// Opens a shuffle; kUsage where it is open with other numbers, or has ended.
  arrow::Status Open(Spec spec);
  /// Gives an open shuffle the owner table of a new epoch; see Bookkeeping::Reown.
  arrow::Status Reown(const std::string& shuffle_id, OwnerTable table);
  /// Waits until `shuffle_id` is open; kPeerRefused where it has ended, or is still unknown at the deadline.
  arrow::Status WaitOpen(const std::string& shuffle_id, Clock::time_point deadline);

  /// Judges and stores a chunk; `schema` is its stream's. True where it was there already.
  arrow::Result<bool> Put(const ChunkHeader& header, std::shared_ptr<arrow::RecordBatch> batch, slots::Source source);
  arrow::Result<bool> PutManifest(const ChunkHeader& header, std::shared_ptr<arrow::Schema> schema);

  /// Waits until every sender of the shuffle has finished; false at the deadline.
  arrow::Result<bool> WaitSenders(const std::string& shuffle_id, Clock::time_point deadline);
  arrow::Result<std::vector<AttemptKey>> ConfirmedAttempts(const std::string& shuffle_id);

  /// The rows of `partition` that `attempts` sent, in order of task and sequence. Nothing else is ever given. kUsage
  /// where the partition is not held here: its rows lie elsewhere, and none would be a wrong answer.
  arrow::Result<PartitionContents> Take(const std::string& shuffle_id, int32_t partition,
                                        const std::vector<AttemptKey>& attempts);
  /// True where rows of `partition` came here or it is ours by the owner table.
  arrow::Result<bool> Holds(const std::string& shuffle_id, int32_t partition);

  /// Ends the shuffles named `prefix` or below "prefix/": their rows go, and what comes later for them is refused.
  void EndPrefix(const std::string& prefix);
  /// Ends every wait, now and later.
  void Close();
  StoreStats stats() const;

 private:
  struct StoredChunk {
    ChunkHeader header;
    std::shared_ptr<arrow::RecordBatch> batch;
    slots::Source source;
    int64_t bytes;
  };
  struct Shuffle {
    explicit Shuffle(Spec spec) : book(std::move(spec.book)), schema(std::move(spec.schema)), arrival(spec.arrival) {}
    Bookkeeping book;
    std::shared_ptr<arrow::Schema> schema;
    Arrival arrival;
    std::vector<StoredChunk> chunks;
    std::unordered_map<int32_t, std::vector<uint32_t>> chunks_of;  // partition -> indices into chunks
  };

  arrow::Result<std::shared_ptr<Shuffle>> FindLocked(const std::string& shuffle_id);
  static arrow::Status CheckSchema(const Shuffle& shuffle, const arrow::Schema& schema);

  mutable std::mutex mutex_;  // guards all below; a leaf: nothing is called under it
  std::condition_variable changed_;
  std::unordered_map<std::string, std::shared_ptr<Shuffle>> shuffles_;
  EndedNames ended_;
  StoreStats stats_;
  bool closed_ = false;
};

/// What a batch keeps alive: whole buffers, each counted once. A slice of a large parent is not small.
int64_t RetainedBytes(const arrow::RecordBatch& batch);

}  // namespace sabot::shuffle

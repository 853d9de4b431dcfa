// The chunks that an agent holds for its partitions, in memory or on disk, with the bookkeeping of each shuffle.
// Thread-safe; the only waits are WaitOpen and WaitSenders, each with a deadline and ended by Close.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "sabot/native/shuffle/bookkeeping.h"
#include "sabot/native/shuffle/ended_names.h"
#include "sabot/native/slots/run.h"
#include "sabot/native/spill/row_block.h"
#include "sabot/native/spill/spill_writer.h"

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

/// Where rows of a partition are: in memory as one piece, or on disk as a segment with one or more of them.
struct StoredPart {
  Piece piece;                                   // its rows are null where they are on disk
  std::shared_ptr<const spill::SpilledRun> run;  // shared with the store, which may drop it meanwhile
  uint32_t segment = 0;
};

/// What a reader of a partition is given: where its rows are, and what the manifests promise of them.
struct PartitionContents {
  std::shared_ptr<arrow::Schema> schema;  // null where no sender had any rows or schema
  std::vector<StoredPart> parts;          // those on disk first; those in memory in order of task and sequence
  std::set<AttemptKey> attempts;          // those asked for: a segment may have rows of others
  PartitionSum promised;
  Layout layout;
  int32_t num_partitions = 1;
  double row_bytes = 0;  // the mean of the shuffle's rows in memory; 0 where none has come
};

struct StoreStats {
  int64_t shuffles = 0;
  int64_t stored_bytes = 0;  // in memory
  int64_t stored_chunks = 0;
  int64_t chunks_received = 0;  // from other agents, repeats included
  int64_t bytes_received = 0;
  int64_t chunks_repeated = 0;
  int64_t chunks_spilled = 0;
  int64_t index_bytes = 0;  // what is kept to find rows in memory, and of attempts
};

class ChunkStore : public spill::SpillSource, public std::enable_shared_from_this<ChunkStore> {
 public:
  struct Options {
    spill::BlockSource blocks;  // where stored rows are kept, and on whose account
  };

  ChunkStore() : ChunkStore(Options()) {}
  explicit ChunkStore(Options options) : options_(std::move(options)) {}

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
  /// Waits until `shuffle_id` is open, and until its owner table is of `epoch` or a later one: an agent may be told of
  /// a new table, and send by it, before another one is. kPeerRefused where it has ended, or is still unknown at the
  /// deadline.
  arrow::Status WaitOpen(const std::string& shuffle_id, uint32_t epoch, Clock::time_point deadline);

  /// Judges and stores a chunk, as a copy of its own rows where it is LOCAL: one from the NETWORK has been copied into
  /// a block of `blocks()` already. True where it was there already.
  arrow::Result<bool> Put(const ChunkHeader& header, std::shared_ptr<arrow::RecordBatch> batch, slots::Source source);
  arrow::Result<bool> PutManifest(const ChunkHeader& header, std::shared_ptr<arrow::Schema> schema);

  /// Waits until every sender of the shuffle has finished; false at the deadline.
  arrow::Result<bool> WaitSenders(const std::string& shuffle_id, Clock::time_point deadline);
  arrow::Result<std::vector<AttemptKey>> ConfirmedAttempts(const std::string& shuffle_id);

  /// Where the rows of `partition` that `attempts` sent are. Nothing else is ever given. kUsage where the partition is
  /// not held here: its rows lie elsewhere, and none would be a wrong answer.
  arrow::Result<PartitionContents> Take(const std::string& shuffle_id, int32_t partition,
                                        const std::vector<AttemptKey>& attempts);
  /// True where rows of `partition` came here, or it is ours by the owner table of now or an earlier one.
  arrow::Result<bool> Holds(const std::string& shuffle_id, int32_t partition);

  /// About how many bytes the rows of `partition` have in memory, whoever sent them and wherever they are: by the mean
  /// of the shuffle's rows.
  arrow::Result<int64_t> BytesOf(const std::string& shuffle_id, int32_t partition);

  /// About how many of those bytes are on disk.
  arrow::Result<int64_t> SpilledBytesOf(const std::string& shuffle_id, int32_t partition);

  /// The mean bytes of a row of the shuffle, as it came here; 0 where none has come.
  arrow::Result<double> RowBytesOf(const std::string& shuffle_id);

  /// Ends the shuffles named `prefix` or below "prefix/": their rows go, and what comes later for them is refused.
  void EndPrefix(const std::string& prefix);
  /// Ends every wait, now and later.
  void Close();
  /// Ends every shuffle, which frees what is held; only once nothing is received any more.
  void EndAll();
  StoreStats stats() const;
  const spill::BlockSource& blocks() const { return options_.blocks; }
  /// How much of what is on disk a reader should load at a time: little where memory is little.
  int64_t loaded_bytes_max() const {
    const int64_t bytes_max = options_.blocks.ledger == nullptr ? 0 : options_.blocks.ledger->bytes_max();
    return bytes_max == 0 ? 32 << 20 : std::min<int64_t>(32 << 20, bytes_max / 8);
  }

  std::unique_ptr<spill::SpillJob> TakeColdest(int64_t bytes, const std::shared_ptr<spill::SpillSpace>& space) override;

 private:
  class Spilling;
  struct Stretch {
    int32_t partition;
    uint32_t rows;  // at 10,000 partitions there is one for each 3 KiB stored: their size counts
  };
  struct StoredChunk {
    AttemptKey attempt;
    uint32_t sequence;
    slots::Source source;
    std::shared_ptr<arrow::RecordBatch> batch;
    std::vector<Stretch> stretches;  // its extents, in the order of its rows
    int64_t bytes;
    uint64_t arrival;  // over all shuffles: the smallest is the coldest
  };
  struct Shuffle {
    explicit Shuffle(Spec spec) : book(std::move(spec.book)), schema(std::move(spec.schema)), arrival(spec.arrival) {}
    Bookkeeping book;
    std::shared_ptr<arrow::Schema> schema;
    Arrival arrival;
    std::map<uint32_t, std::shared_ptr<const StoredChunk>> chunks;  // in memory, by number; shared with who spills them
    uint32_t next_chunk = 0;
    std::unordered_map<int32_t, std::vector<uint32_t>> chunks_of;  // partition -> numbers of chunks in memory
    std::vector<std::shared_ptr<const spill::SpilledRun>> runs;    // shared with readers
    std::shared_ptr<spill::SpillGroup> files;                      // null until something is spilled
    arrow::Status failure;                                         // why its rows are gone
    int64_t bytes_came = 0;                                        // of all chunks stored, in memory or spilled since
    int64_t rows_came = 0;
    bool ended = false;
    double mean_row_bytes() const { return static_cast<double>(bytes_came) / static_cast<double>(rows_came); }
  };
  using ShufflePtr = std::shared_ptr<Shuffle>;
  using Chunks = std::map<uint32_t, std::shared_ptr<const StoredChunk>>;
  struct Rows {
    Chunks chunks;
    std::vector<std::shared_ptr<const spill::SpilledRun>> runs;
  };

  static int64_t SpilledRows(const Shuffle& shuffle, int32_t partition);
  static void AppendPieces(const StoredChunk& chunk, int32_t partition, std::vector<Piece>* pieces);
  static void AppendSpilled(const Shuffle& shuffle, int32_t partition, PartitionContents* contents);
  void Swap(const ShufflePtr& shuffle, const Chunks& chunks, std::shared_ptr<const spill::SpilledRun> run);
  void Fail(const ShufflePtr& shuffle, const arrow::Status& status);
  /// Forgets what a shuffle holds; what is given back is to be freed outside the lock.
  Rows EmptyLocked(Shuffle* shuffle);
  void EndThose(const std::function<bool(const std::string&)>& named);

  arrow::Result<std::shared_ptr<Shuffle>> FindLocked(const std::string& shuffle_id);
  static arrow::Status CheckSchema(const Shuffle& shuffle, const arrow::Schema& schema);

  const Options options_;
  mutable std::mutex mutex_;  // guards all below; a leaf: nothing is called under it
  std::condition_variable changed_;
  std::unordered_map<std::string, std::shared_ptr<Shuffle>> shuffles_;
  EndedNames ended_;
  StoreStats stats_;
  uint64_t next_arrival_ = 0;
  bool closed_ = false;
};

/// What a batch keeps alive: whole buffers, each counted once. A slice of a large parent is not small.
int64_t RetainedBytes(const arrow::RecordBatch& batch);

}  // namespace sabot::shuffle

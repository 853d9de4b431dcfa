// The partitioner: rows of one task, regrouped in one two-pass copy by owner and partition, and cut into chunks.
#pragma once

#include <arrow/memory_pool.h>
#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "sabot/native/rows/range_bounds.h"

namespace sabot::rows {

/// A run of consecutive rows of one partition inside a chunk, with the content sum of those rows.
struct Extent {
  int32_t partition;
  int64_t rows;
  uint64_t content_sum;
};

/// Rows for one owner, grouped by partition in the order of `extents`. Chunks of one Scatter share their memory.
struct ScatteredChunk {
  int32_t owner;  // index into the owner list
  std::shared_ptr<arrow::RecordBatch> batch;
  std::vector<Extent> extents;
  std::optional<uint64_t> checksum = std::nullopt;  // of `batch`, where it was asked for
};

enum class Partitioning : uint8_t {
  kHash = 0,
  kRoundRobin = 1,
  kRange = 2,      // by the sort keys, between boundaries
  kColumn = 3,     // as an int32 column of the rows says
  kBroadcast = 4,  // every row to every partition: copies, counted as such
  kOne = 5,        // every row to one partition
};

struct ScatterOptions {
  Partitioning partitioning = Partitioning::kHash;
  /// What the content sum binds every row's values to. kHash: at least one unless num_partitions is 1; kRange: the sort
  /// keys; kColumn: the one that names partitions.
  std::vector<int> key_columns;
  std::shared_ptr<const RangeBounds> bounds;  // kRange
  TieTurn tie_turn;                           // kRange
  int32_t one_partition = 0;                  // kOne
  int32_t num_partitions = 1;
  std::vector<int32_t> owner_of;  // partition -> owner index
  int sum_column = 0;             // the column bound to the keys by the content sum; ignored if there are no columns
  bool content_sums = true;       // a guard: a benchmark switches it off to see its cost
  /// Whether an owner's chunks get a checksum, taken column by column while it is in the cache; none beyond its end.
  std::vector<bool> checked_owners;
  int64_t first_row = 0;              // kRoundRobin: row i goes to partition (first_row + i) % num_partitions
  int64_t chunk_bytes_max = 4 << 20;  // by mean row bytes; a chunk has at least one row
  arrow::MemoryPool* pool = arrow::default_memory_pool();
};

/// Regroups `batches` (one schema). Row order inside a partition is kept, in the order of the batches. The content sums
/// are computed from the input. Without key columns the key hash of every row is 0. No rows give no chunks. Chunks of a
/// broadcast are slices of the input, shared by all owners. Dictionary
/// columns must have been decoded; union and run-end encoded columns are kUsage errors that name the column. kLimit
/// where a column outgrows its 32-bit offsets, or there are 2^32 rows or more.
arrow::Result<std::vector<ScatteredChunk>> Scatter(const std::vector<std::shared_ptr<arrow::RecordBatch>>& batches,
                                                   const ScatterOptions& options);

}  // namespace sabot::rows

// Which partition each row goes to: by hash, in turn, by ranges of sort keys, as a column of the rows says, or all to
// one.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/status.h>

#include <cstdint>

#include "sabot/native/rows/partitioner.h"

namespace sabot::rows {

class Placing {
 public:
  /// `options` must outlive it.
  explicit Placing(const ScatterOptions& options);

  /// kUsage unless rows of `schema` can be placed so; its key columns exist.
  static arrow::Status Check(const ScatterOptions& options, const arrow::Schema& schema);
  /// Writes the partition of each of `rows` rows from `first` on; blocks come in the order of the rows. kUsage where a
  /// row names a partition that is not there.
  arrow::Status Place(const arrow::RecordBatch& batch, int64_t first, int64_t rows, const uint64_t* key_hashes,
                      int32_t* out);

 private:
  arrow::Status PlaceByColumn(const arrow::RecordBatch& batch, int64_t first, int64_t rows, int32_t* out) const;

  const ScatterOptions& options_;
  int64_t turn_;  // kRoundRobin: the next row's partition
};

}  // namespace sabot::rows

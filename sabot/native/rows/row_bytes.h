// How many bytes rows have, whatever lies beside them: a receipt's count, the same before the wire and after it.
#pragma once

#include <arrow/record_batch.h>

#include <cstdint>
#include <vector>

namespace sabot::rows {

/// Counts bytes of rows of one batch, which is valid and outlives it: each value's own, as docs/protocol.md says,
/// whatever the chunk, slice or buffer it lies in, so that counts add up. The time goes with the columns, not with the
/// rows; only views are looked at one by one.
class RowBytes {
 public:
  explicit RowBytes(const arrow::RecordBatch& batch);

  /// Of rows [start, start + rows).
  int64_t Of(int64_t start, int64_t rows) const;

 private:
  int64_t fixed_ = 0;                             // of a row, in columns whose values are all equally long
  std::vector<const arrow::ArrayData*> varying_;  // the others
};

/// Of all rows.
int64_t BytesOfRows(const arrow::RecordBatch& batch);

}  // namespace sabot::rows

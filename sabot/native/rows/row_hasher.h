// Key hashes of a batch's rows and what each row adds to the content sum, block by block, so that they stay in the
// cache.
#pragma once

#include <arrow/array/data.h>
#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <cstdint>
#include <span>
#include <vector>

namespace sabot::rows {

class RowHasher {
 public:
  static constexpr int kNoSum = -1;

  /// The columns must be there, and valid as by ValidateFull. kNoSum: no row adds anything, nor in a batch without
  /// columns.
  RowHasher(const arrow::RecordBatch& batch, std::span<const int> key_columns, int sum_column);

  /// How many rows a block should have: where a dictionary would be hashed again for every block, all.
  int64_t block_rows() const { return block_rows_; }

  /// Fills `key_hashes` (0 without key columns) and `added` for `rows` rows from `first` on.
  arrow::Status Hash(int64_t first, int64_t rows, uint64_t* key_hashes, uint64_t* added);
  /// The wrapping sum of what those rows add; fills `key_hashes` only where there are key columns.
  arrow::Result<uint64_t> Sum(int64_t first, int64_t rows, uint64_t* key_hashes);

 private:
  struct Column {
    arrow::ArraySpan span;
    int64_t start;
  };

  arrow::Status HashKeys(int64_t first, int64_t rows, uint64_t* out);
  arrow::Status HashValues(int64_t first, int64_t rows, uint64_t* out);

  std::vector<Column> keys_;
  std::vector<Column> sums_;  // the one whose values are bound to the keys, if any
  bool sum_is_key_;           // then one hash serves as both
  int64_t block_rows_;
  std::vector<uint64_t> more_;  // hashes of a further key column, then of the values
};

}  // namespace sabot::rows

// The rows of one side of an inner join by their key: for joins by one key, where this is several times as fast as
// Acero's (benchmarks/joining.py). All others are Acero's.
#pragma once

#include <arrow/array/array_base.h>
#include <arrow/chunked_array.h>
#include <arrow/memory_pool.h>
#include <arrow/result.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "sabot/native/operators/key_numbers.h"

namespace sabot::operators {

/// Pairs of row numbers, as int32; `probing` is null where it would be 0, 1, 2 and so on: each row has one match.
struct KeyMatches {
  std::shared_ptr<arrow::Array> probing;
  std::shared_ptr<arrow::Array> indexed;
};

/// Not changed once it is made: any number of threads may match.
class KeyIndex {
 public:
  /// Null where the type of `keys` is not known to KeyNumbers, where they are too many for int32, or one of them has
  /// more than kRowsOfKeyMax rows: a match would give no one knows how many pairs in one go.
  static arrow::Result<std::unique_ptr<KeyIndex>> Make(const arrow::ChunkedArray& keys, arrow::MemoryPool* pool);

  /// For each row of `keys`, which have the index's type, in order, the rows that have the same key. Null matches none.
  arrow::Result<KeyMatches> Match(const arrow::ChunkedArray& keys) const;

 private:
  static constexpr int32_t kRowsOfKeyMax = 16;

  explicit KeyIndex(arrow::MemoryPool* pool) : pool_(pool) {}
  /// False where a key has too many rows.
  bool List(const std::vector<uint32_t>& numbers);

  arrow::MemoryPool* const pool_;
  std::unique_ptr<KeyNumbers> numbers_;
  // The rows of number n are rows_[starts_[n]] up to rows_[starts_[n + 1]]; both are empty where every key has one row,
  // for then number and row are the same.
  std::vector<int32_t> starts_;
  std::vector<int32_t> rows_;
};

}  // namespace sabot::operators

// Where rows are cut into ranges of their sort keys: the boundaries, and the range of any row.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sabot/native/rows/sort_keys.h"

namespace sabot::rows {

/// Which of the ranges that begin with the same key get the rows of that key: all that have turn `index` of `count` go
/// to one of them, and later turns to later ones. No turns: the last range gets them.
struct TieTurn {
  int64_t index = 0;
  int64_t count = 0;
};

class RangeBounds {
 public:
  /// `boundaries` has the key columns alone, in key order, and one row for each range but the first: that range's first
  /// key. kUsage where they are not in order, or a type has none. Equal ones make several ranges of one key: see
  /// TieTurn.
  static arrow::Result<std::shared_ptr<const RangeBounds>> Make(const arrow::RecordBatch& boundaries,
                                                                std::vector<SortOrder> orders);

  int32_t range_count() const;
  /// kUsage naming the column unless the key columns of `schema` are of the boundaries' types.
  arrow::Status CheckSchema(const arrow::Schema& schema, const std::vector<int>& key_columns) const;
  /// Writes the range of each of `rows` rows from `first` on, in [0, range_count()).
  void Place(const arrow::RecordBatch& batch, const std::vector<int>& key_columns, int64_t first, int64_t rows,
             TieTurn turn, int32_t* out) const;

 private:
  explicit RangeBounds(std::vector<SortOrder> orders) : orders_(std::move(orders)) {}

  bool by_number() const { return types_.size() == 1 && IsNumberType(*types_[0]); }
  std::vector<NumberKey> NumbersOf(const arrow::ArraySpan& values) const;
  std::vector<std::string> TextsOf(const arrow::RecordBatch& batch, const std::vector<int>& key_columns, int64_t first,
                                   int64_t rows) const;

  const std::vector<SortOrder> orders_;
  std::vector<std::shared_ptr<arrow::DataType>> types_;
  std::vector<NumberKey> numbers_;    // the boundaries of a single key that is a number
  std::vector<std::string> texts_;    // of all others
  std::vector<int32_t> first_equal_;  // of each boundary, the first one that is equal to it
};

}  // namespace sabot::rows

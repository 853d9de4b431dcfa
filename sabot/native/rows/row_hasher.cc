#include "sabot/native/rows/row_hasher.h"

#include <algorithm>

#include "sabot/native/rows/hash_values.h"
#include "sabot/native/rows/wide_loops.h"

namespace sabot::rows {
namespace {

constexpr int64_t kHashedRows = 1024;  // two blocks of hashes stay in the first-level cache

}  // namespace

RowHasher::RowHasher(const arrow::RecordBatch& batch, std::span<const int> key_columns, int sum_column)
    : sum_is_key_(key_columns.size() == 1 && key_columns[0] == sum_column), block_rows_(kHashedRows) {
  const auto add = [&](int column, std::vector<Column>* columns) {
    const arrow::ArrayData& data = *batch.column_data(column);
    columns->push_back({arrow::ArraySpan(data), data.offset});
    if (HasDictionary(*data.type)) block_rows_ = std::max<int64_t>(batch.num_rows(), 1);
  };
  for (const int column : key_columns) add(column, &keys_);
  if (sum_column != kNoSum && batch.num_columns() > 0) add(sum_column, &sums_);
}

arrow::Status RowHasher::HashKeys(int64_t first, int64_t rows, uint64_t* out) {
  for (size_t k = 0; k < keys_.size(); ++k) {
    if (k > 0) more_.resize(static_cast<size_t>(rows));
    keys_[k].span.SetSlice(keys_[k].start + first, rows);
    ARROW_RETURN_NOT_OK(HashSpan(keys_[k].span, k == 0 ? out : more_.data()));
    if (k > 0) MixAll(out, more_.data(), rows, out);
  }
  return arrow::Status::OK();
}

arrow::Status RowHasher::HashValues(int64_t first, int64_t rows, uint64_t* out) {
  sums_[0].span.SetSlice(sums_[0].start + first, rows);
  return HashSpan(sums_[0].span, out);
}

arrow::Status RowHasher::Hash(int64_t first, int64_t rows, uint64_t* key_hashes, uint64_t* added) {
  if (keys_.empty()) std::fill_n(key_hashes, rows, 0);
  ARROW_RETURN_NOT_OK(HashKeys(first, rows, key_hashes));
  if (sums_.empty()) {
    std::fill_n(added, rows, 0);
    return arrow::Status::OK();
  }
  const uint64_t* values = key_hashes;
  if (!sum_is_key_) {
    ARROW_RETURN_NOT_OK(HashValues(first, rows, added));
    values = added;
  }
  if (!keys_.empty()) BindAll(key_hashes, values, rows, added);
  return arrow::Status::OK();
}

arrow::Result<uint64_t> RowHasher::Sum(int64_t first, int64_t rows, uint64_t* key_hashes) {
  ARROW_RETURN_NOT_OK(HashKeys(first, rows, key_hashes));
  if (sums_.empty()) return 0;
  const uint64_t* values = key_hashes;
  if (!sum_is_key_) {
    more_.resize(static_cast<size_t>(rows));
    ARROW_RETURN_NOT_OK(HashValues(first, rows, more_.data()));
    values = more_.data();
  }
  return keys_.empty() ? SumAll(values, rows) : SumBound(key_hashes, values, rows);
}

}  // namespace sabot::rows

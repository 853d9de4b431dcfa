#include "sabot/native/rows/range_bounds.h"

#include <algorithm>
#include <numeric>

#include "sabot/native/status.h"

namespace sabot::rows {
namespace {

arrow::ArraySpan SpanOf(const arrow::RecordBatch& batch, int column, int64_t first, int64_t rows) {
  const arrow::ArrayData& data = *batch.column_data(column);
  arrow::ArraySpan span(data);
  span.SetSlice(data.offset + first, rows);
  return span;
}

/// The range of a key is the number of boundaries that do not lie behind it; where several ranges begin with it, the
/// one whose turn it is.
template <typename Key>
void FindRanges(const std::vector<Key>& bounds, const std::vector<int32_t>& first_equal, const std::vector<Key>& keys,
                TieTurn turn, int32_t* out) {
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto range = static_cast<int32_t>(std::upper_bound(bounds.begin(), bounds.end(), keys[i]) - bounds.begin());
    out[i] = range;
    if (turn.count == 0 || range == 0) continue;
    const auto last = static_cast<size_t>(range - 1);
    const int64_t ties = range - first_equal[last];
    if (ties == 1 || bounds[last] != keys[i]) continue;
    out[i] = static_cast<int32_t>(first_equal[last] + 1 + turn.index * ties / turn.count);
  }
}

template <typename Key>
std::vector<int32_t> FirstEqual(const std::vector<Key>& bounds) {
  std::vector<int32_t> first(bounds.size());
  for (size_t i = 1; i < bounds.size(); ++i) {
    first[i] = bounds[i] == bounds[i - 1] ? first[i - 1] : static_cast<int32_t>(i);
  }
  return first;
}

}  // namespace

arrow::Result<std::shared_ptr<const RangeBounds>> RangeBounds::Make(const arrow::RecordBatch& boundaries,
                                                                    std::vector<SortOrder> orders) {
  if (boundaries.num_columns() == 0 || orders.size() != static_cast<size_t>(boundaries.num_columns())) {
    return MakeStatus(Code::kUsage,
                      "Ranges need one boundary column for each sort key, and at least one key: there are " +
                          std::to_string(boundaries.num_columns()) + " columns for " + std::to_string(orders.size()) +
                          " keys.");
  }
  std::shared_ptr<RangeBounds> bounds(new RangeBounds(std::move(orders)));
  for (const auto& field : boundaries.schema()->fields()) {
    ARROW_RETURN_NOT_OK(CheckSortType(*field->type(), field->name()));
    bounds->types_.push_back(field->type());
  }
  std::vector<int> columns(bounds->types_.size());
  std::iota(columns.begin(), columns.end(), 0);
  const int64_t rows = boundaries.num_rows();
  if (bounds->by_number()) {
    bounds->numbers_ = bounds->NumbersOf(SpanOf(boundaries, 0, 0, rows));
  } else {
    bounds->texts_ = bounds->TextsOf(boundaries, columns, 0, rows);
  }
  bounds->first_equal_ = bounds->by_number() ? FirstEqual(bounds->numbers_) : FirstEqual(bounds->texts_);
  if (std::ranges::is_sorted(bounds->numbers_) && std::ranges::is_sorted(bounds->texts_)) return bounds;
  return MakeStatus(Code::kUsage, "The boundaries of ranges are not in the order of the sort keys: sort them.");
}

int32_t RangeBounds::range_count() const {
  return static_cast<int32_t>(by_number() ? numbers_.size() : texts_.size()) + 1;
}

arrow::Status RangeBounds::CheckSchema(const arrow::Schema& schema, const std::vector<int>& key_columns) const {
  if (key_columns.size() != types_.size()) {
    return MakeStatus(Code::kUsage, "Ranges of " + std::to_string(types_.size()) + " sort keys were given " +
                                        std::to_string(key_columns.size()) + " key columns.");
  }
  for (size_t i = 0; i < types_.size(); ++i) {
    const arrow::Field& field = *schema.field(key_columns[i]);
    if (field.type()->Equals(types_[i])) continue;
    return MakeStatus(Code::kUsage, "Sort key " + field.name() + " is of type " + field.type()->ToString() +
                                        ", the boundaries of its ranges of type " + types_[i]->ToString() +
                                        ". Cast one of them.");
  }
  return arrow::Status::OK();
}

void RangeBounds::Place(const arrow::RecordBatch& batch, const std::vector<int>& key_columns, int64_t first,
                        int64_t rows, TieTurn turn, int32_t* out) const {
  if (by_number()) {
    return FindRanges(numbers_, first_equal_, NumbersOf(SpanOf(batch, key_columns[0], first, rows)), turn, out);
  }
  FindRanges(texts_, first_equal_, TextsOf(batch, key_columns, first, rows), turn, out);
}

std::vector<NumberKey> RangeBounds::NumbersOf(const arrow::ArraySpan& values) const {
  std::vector<NumberKey> numbers(static_cast<size_t>(values.length));
  WriteNumberKeys(values, orders_[0], numbers.data());
  return numbers;
}

std::vector<std::string> RangeBounds::TextsOf(const arrow::RecordBatch& batch, const std::vector<int>& key_columns,
                                              int64_t first, int64_t rows) const {
  std::vector<std::string> keys(static_cast<size_t>(rows));
  for (size_t i = 0; i < key_columns.size(); ++i) {
    AppendKeyBytes(SpanOf(batch, key_columns[i], first, rows), orders_[i], keys.data());
  }
  return keys;
}

}  // namespace sabot::rows

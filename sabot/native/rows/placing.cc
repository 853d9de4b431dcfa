#include "sabot/native/rows/placing.h"

#include <arrow/array/data.h>

#include <algorithm>
#include <string>

#include "sabot/native/rows/hash_values.h"
#include "sabot/native/status.h"

namespace sabot::rows {

Placing::Placing(const ScatterOptions& options)
    : options_(options), turn_(options.first_row % options.num_partitions) {}

arrow::Status Placing::Check(const ScatterOptions& options, const arrow::Schema& schema) {
  if (options.partitioning == Partitioning::kRange) {
    if (options.bounds == nullptr || options.bounds->range_count() > options.num_partitions) {
      return MakeStatus(Code::kUsage, "Partitioning by range into " + std::to_string(options.num_partitions) +
                                          " partitions takes at most one boundary less than that.");
    }
    return options.bounds->CheckSchema(schema, options.key_columns);
  }
  if (options.partitioning == Partitioning::kOne &&
      (options.one_partition < 0 || options.one_partition >= options.num_partitions)) {
    return MakeStatus(Code::kUsage, "All rows are to go to partition " + std::to_string(options.one_partition) +
                                        ", where there are " + std::to_string(options.num_partitions) +
                                        ", numbered from 0.");
  }
  if (options.partitioning == Partitioning::kColumn) {
    if (options.key_columns.size() != 1) {
      return MakeStatus(Code::kUsage, "Partitioning by a column of partition numbers takes exactly one column.");
    }
    const arrow::Field& field = *schema.field(options.key_columns[0]);
    if (field.type()->id() != arrow::Type::INT32) {
      return MakeStatus(Code::kUsage, "Column " + field.name() + " is to name each row's partition, and is of type " +
                                          field.type()->ToString() + ". Cast it to int32.");
    }
  }
  return arrow::Status::OK();
}

arrow::Status Placing::Place(const arrow::RecordBatch& batch, int64_t first, int64_t rows, const uint64_t* key_hashes,
                             int32_t* out) {
  switch (options_.partitioning) {
    case Partitioning::kHash:
      for (int64_t i = 0; i < rows; ++i) out[i] = PartitionOfHash(key_hashes[i], options_.num_partitions);
      break;
    case Partitioning::kRoundRobin:
      for (int64_t i = 0; i < rows; ++i) {
        out[i] = static_cast<int32_t>(turn_);
        if (++turn_ == options_.num_partitions) turn_ = 0;
      }
      break;
    case Partitioning::kRange:
      options_.bounds->Place(batch, options_.key_columns, first, rows, options_.tie_turn, out);
      break;
    case Partitioning::kColumn:
      return PlaceByColumn(batch, first, rows, out);
    case Partitioning::kOne:
      std::fill_n(out, rows, options_.one_partition);
      break;
    case Partitioning::kBroadcast:
      return MakeStatus(Code::kInternal, "Rows of a broadcast are not placed one by one.");
  }
  return arrow::Status::OK();
}

arrow::Status Placing::PlaceByColumn(const arrow::RecordBatch& batch, int64_t first, int64_t rows, int32_t* out) const {
  const int column = options_.key_columns[0];
  const arrow::ArrayData& data = *batch.column_data(column);
  const arrow::ArraySpan span(data);
  const uint8_t* values = span.buffers[1].data + span.offset * static_cast<int64_t>(sizeof(int32_t));
  const bool may_have_nulls = span.MayHaveNulls();
  for (int64_t i = 0; i < rows; ++i) {
    const bool is_null = may_have_nulls && !span.IsValid(first + i);
    out[i] = is_null ? -1 : LoadAt<int32_t>(values, first + i);
    if (out[i] >= 0 && out[i] < options_.num_partitions) continue;
    return MakeStatus(Code::kUsage, "Column " + batch.schema()->field(column)->name() + " names partition " +
                                        (is_null ? "null" : std::to_string(out[i])) + " for a row, where there are " +
                                        std::to_string(options_.num_partitions) + ", numbered from 0.");
  }
  return arrow::Status::OK();
}

}  // namespace sabot::rows

#include "sabot/native/rows/partitioner.h"

#include <algorithm>
#include <limits>
#include <string>

#include "sabot/native/rows/checksum.h"
#include "sabot/native/rows/hash.h"
#include "sabot/native/rows/placing.h"
#include "sabot/native/rows/routing.h"
#include "sabot/native/rows/scatter_columns.h"
#include "sabot/native/status.h"

namespace sabot::rows {
namespace {

using arrow::Status;
using Batches = std::vector<std::shared_ptr<arrow::RecordBatch>>;

Status CheckOptions(const ScatterOptions& options) {
  if (options.num_partitions < 1) {
    return MakeStatus(Code::kUsage, "The number of partitions is " + std::to_string(options.num_partitions) +
                                        "; it must be at least 1.");
  }
  if (options.owner_of.size() != static_cast<size_t>(options.num_partitions)) {
    return MakeStatus(Code::kUsage, "There are " + std::to_string(options.num_partitions) +
                                        " partitions, but owners for " + std::to_string(options.owner_of.size()) +
                                        "; name one owner for each.");
  }
  if (std::any_of(options.owner_of.begin(), options.owner_of.end(), [](int32_t owner) { return owner < 0; })) {
    return MakeStatus(Code::kUsage, "An owner's index is negative; owners are numbered from 0.");
  }
  if (options.partitioning == Partitioning::kHash && options.key_columns.empty() && options.num_partitions > 1) {
    return MakeStatus(Code::kUsage, "Partitioning by hash into " + std::to_string(options.num_partitions) +
                                        " partitions needs at least one key column; name one, or use round_robin.");
  }
  if (options.chunk_bytes_max < 1 || options.first_row < 0) {
    return MakeStatus(Code::kUsage, "The largest chunk must be at least 1 byte, and the first row at least 0.");
  }
  return Status::OK();
}

Status CheckSchema(const Batches& batches, const ScatterOptions& options) {
  const arrow::Schema& schema = *batches.front()->schema();
  for (size_t i = 1; i < batches.size(); ++i) {
    if (batches[i]->schema()->Equals(schema, /*check_metadata=*/false)) continue;
    return MakeStatus(Code::kUsage, "Batch " + std::to_string(i) +
                                        " has another schema than batch 0: " + batches[i]->schema()->ToString() +
                                        " instead of " + schema.ToString() + "; cast it first.");
  }
  const auto is_column = [&](int column) { return column >= 0 && column < schema.num_fields(); };
  for (const int column : options.key_columns) {
    if (!is_column(column)) {
      return MakeStatus(Code::kUsage, "Key column number " + std::to_string(column) + " is out of range: there are " +
                                          std::to_string(schema.num_fields()) + " columns.");
    }
    ARROW_RETURN_NOT_OK(CheckKeyType(*schema.field(column)->type(), schema.field(column)->name()));
  }
  if (schema.num_fields() > 0 && !is_column(options.sum_column)) {
    return MakeStatus(Code::kUsage, "The column of the content sum, number " + std::to_string(options.sum_column) +
                                        ", is out of range: there are " + std::to_string(schema.num_fields()) +
                                        " columns.");
  }
  for (const auto& field : schema.fields()) ARROW_RETURN_NOT_OK(CheckScatterType(*field->type(), field->name()));
  return Placing::Check(options, schema);
}

int64_t ChunkRowsMax(const Batches& batches, int64_t rows, int64_t chunk_bytes_max) {
  int64_t bytes = 0;
  for (const auto& batch : batches) {
    for (const auto& column : batch->columns()) bytes += ApproximateBytes(*column);
  }
  if (bytes == 0) return std::numeric_limits<int32_t>::max();
  const double row_bytes = static_cast<double>(bytes) / static_cast<double>(rows);
  const double chunk_rows = static_cast<double>(chunk_bytes_max) / row_bytes;
  return std::max<int64_t>(1, static_cast<int64_t>(std::min(chunk_rows, 2147483647.0)));
}

/// A broadcast: no row is copied here, each partition gets slices of the input.
arrow::Result<std::vector<ScatteredChunk>> Repeat(const Batches& batches, const ScatterOptions& options,
                                                  int64_t chunk_rows_max) {
  std::vector<ScatteredChunk> chunks;
  for (const auto& batch : batches) {
    for (int64_t start = 0; start < batch->num_rows(); start += chunk_rows_max) {
      const auto slice = batch->Slice(start, chunk_rows_max);
      uint64_t content_sum = 0;
      if (slice->num_columns() > 0) {
        ARROW_ASSIGN_OR_RAISE(content_sum, ContentSum(*slice, options.key_columns, options.sum_column));
      }
      for (int32_t partition = 0; partition < options.num_partitions; ++partition) {
        chunks.push_back({options.owner_of[static_cast<size_t>(partition)],
                          slice,
                          {Extent{partition, slice->num_rows(), content_sum}}});
      }
    }
  }
  return chunks;
}

}  // namespace

arrow::Result<std::vector<ScatteredChunk>> Scatter(const Batches& batches, const ScatterOptions& options) {
  ARROW_RETURN_NOT_OK(CheckOptions(options));
  if (batches.empty()) return std::vector<ScatteredChunk>();
  ARROW_RETURN_NOT_OK(CheckSchema(batches, options));
  int64_t rows = 0;
  for (const auto& batch : batches) rows += batch->num_rows();
  if (rows == 0) return std::vector<ScatteredChunk>();
  if (rows > std::numeric_limits<uint32_t>::max()) {
    return MakeStatus(Code::kLimit, "One scatter has " + std::to_string(rows) +
                                        " rows; it takes at most 4294967295, so give it fewer batches at a time.");
  }

  const int64_t chunk_rows_max = ChunkRowsMax(batches, rows, options.chunk_bytes_max);
  if (options.partitioning == Partitioning::kBroadcast) return Repeat(batches, options, chunk_rows_max);
  ARROW_ASSIGN_OR_RAISE(Routing routing, RouteRows(batches, options, chunk_rows_max));
  const auto& schema = batches.front()->schema();
  std::vector<arrow::ArrayVector> columns_of(routing.cuts.size());
  ColumnScatter scatter(routing);
  std::vector<std::optional<BatchChecksum>> checksums(routing.cuts.size());
  for (size_t i = 0; i < checksums.size(); ++i) {
    const auto owner = static_cast<size_t>(routing.cuts[i].owner);
    if (owner < options.checked_owners.size() && options.checked_owners[owner])
      checksums[i].emplace(routing.cuts[i].rows);
  }
  for (int column = 0; column < schema->num_fields(); ++column) {
    arrow::ArrayVector inputs;
    inputs.reserve(batches.size());
    for (const auto& batch : batches) inputs.push_back(batch->column(column));
    ARROW_ASSIGN_OR_RAISE(const auto pieces, scatter.Scatter(inputs, schema->field(column)->name()));
    for (size_t i = 0; i < checksums.size(); ++i) {
      if (checksums[i]) ARROW_RETURN_NOT_OK(checksums[i]->Add(*pieces[i]->data()));
    }
    for (size_t i = 0; i < pieces.size(); ++i) columns_of[i].push_back(pieces[i]);
  }
  std::vector<ScatteredChunk> chunks;
  chunks.reserve(routing.cuts.size());
  for (size_t i = 0; i < routing.cuts.size(); ++i) {
    Cut& cut = routing.cuts[i];
    ScatteredChunk& chunk = chunks.emplace_back(cut.owner);
    chunk.batch = arrow::RecordBatch::Make(schema, cut.rows, std::move(columns_of[i]));
    chunk.extents = std::move(cut.extents);
    if (checksums[i]) chunk.checksum = checksums[i]->Digest();
  }
  return chunks;
}

}  // namespace sabot::rows

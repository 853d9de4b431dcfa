// Where every input row goes: the first of the partitioner's two passes, and the content sums of what it will place.
#pragma once

#include <arrow/buffer.h>
#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "sabot/native/rows/partitioner.h"

namespace sabot::rows {

/// Output rows [start, start + rows), all for `owner`.
struct Cut {
  int32_t owner;
  int64_t start;
  int64_t rows;
  std::vector<Extent> extents;
};

struct Routing {
  int64_t rows = 0;
  arrow::MemoryPool* pool = arrow::default_memory_pool();
  std::shared_ptr<arrow::Buffer> destinations;  // uint32 per input row: its place among the output rows
  std::vector<Cut> cuts;                        // in order, covering all output rows

  const uint32_t* destination() const { return reinterpret_cast<const uint32_t*>(destinations->data()); }
};

/// Routes the rows of `batches`, which have at least one row in all; chunks hold at most `chunk_rows_max` rows.
arrow::Result<Routing> RouteRows(const std::vector<std::shared_ptr<arrow::RecordBatch>>& batches,
                                 const ScatterOptions& options, int64_t chunk_rows_max);

}  // namespace sabot::rows

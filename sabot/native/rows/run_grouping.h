// Aggregates over runs: rows with equal keys that follow each other, as they do in files sorted by them. There is no
// hash table, so that it costs little more than reading the columns.
#pragma once

#include <arrow/memory_pool.h>
#include <arrow/record_batch.h>
#include <arrow/result.h>
#include <arrow/type.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace sabot::rows {

enum class RunFunction : uint8_t { kCountAll, kCount, kSum, kMin, kMax };

/// What is made of the values of `column` in a run, as pyarrow's aggregate of that name does with its default options;
/// kCountAll takes no column.
struct RunAggregate {
  RunFunction function;
  int column;
};

struct RunRules {
  int64_t runs_max;  // with more of them nothing is given
  bool ascending;    // nor where the keys do not ascend from run to run: then each run is a whole group
};

/// Whether GroupRuns takes columns of these types so; `ascending` as in RunRules.
bool CanGroupRuns(const arrow::Schema& schema, const std::vector<int>& keys,
                  const std::vector<RunAggregate>& aggregates, bool ascending);

/// A row for each run, in order: the key columns, then the aggregates. Null where the rules say so. The columns are
/// those of which CanGroupRuns is true.
arrow::Result<std::shared_ptr<arrow::RecordBatch>> GroupRuns(const arrow::RecordBatch& rows,
                                                             const std::vector<int>& keys,
                                                             const std::vector<RunAggregate>& aggregates,
                                                             const RunRules& rules, arrow::MemoryPool* pool);

}  // namespace sabot::rows

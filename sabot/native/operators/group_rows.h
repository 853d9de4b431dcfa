// Groups the rows of a table by one key column, in the calling thread: for the keys and aggregates for which this is
// several times as fast as Acero's grouping (benchmarks/grouping.py). All others are Acero's.
#pragma once

#include <arrow/memory_pool.h>
#include <arrow/result.h>
#include <arrow/table.h>

#include <memory>
#include <string>
#include <vector>

namespace sabot::operators {

/// `column` is -1 where the function takes none.
struct GroupAggregate {
  std::string function;
  int column;
  std::string name;
};

/// The keys, in the order in which they first appear, then the aggregates, with pyarrow's values and types; null where
/// the key's type or an aggregate is not known here.
arrow::Result<std::shared_ptr<arrow::Table>> GroupRows(const std::shared_ptr<arrow::Table>& table, int key,
                                                       const std::vector<GroupAggregate>& aggregates,
                                                       arrow::MemoryPool* pool);

}  // namespace sabot::operators

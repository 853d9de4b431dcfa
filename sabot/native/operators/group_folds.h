// One aggregate of a grouping: a value for each group, to which rows are added batch by batch.
#pragma once

#include <arrow/array/data.h>
#include <arrow/memory_pool.h>
#include <arrow/result.h>
#include <arrow/status.h>
#include <arrow/type.h>

#include <cstdint>
#include <memory>
#include <string>

namespace sabot::operators {

class GroupFold {
 public:
  /// `function` is "sum", "count" or "count_all", as pyarrow has them without options; `type` is null for the last.
  /// Null for a function or type that it does not know.
  static std::unique_ptr<GroupFold> Make(const std::string& function, const arrow::DataType* type,
                                         arrow::MemoryPool* pool);

  virtual ~GroupFold() = default;
  /// From now on there are `groups` groups; called before each Add.
  virtual arrow::Status Grow(int64_t groups) = 0;
  /// Row i belongs to group numbers[i]. `values` is null where the function takes no column.
  virtual arrow::Status Add(const arrow::ArrayData* values, const uint32_t* numbers, int64_t rows) = 0;
  /// The value of each group. The last call.
  virtual arrow::Result<std::shared_ptr<arrow::ArrayData>> Finish() = 0;
};

}  // namespace sabot::operators

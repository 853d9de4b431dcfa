// Copies chosen runs of rows of any type into one new array: for the nested and view types that the scatter of flat
// columns does not take. The new array shares no buffer with its inputs, so a chunk made of it carries its own rows
// only.
#pragma once

#include <arrow/array/data.h>
#include <arrow/memory_pool.h>
#include <arrow/result.h>
#include <arrow/type.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace sabot::rows {

/// Rows [start, start + length) of input number `input`, counted from its offset.
struct Run {
  size_t input;
  int64_t start;
  int64_t length;
};

using GatherInputs = std::vector<const arrow::ArrayData*>;

/// The rows of `runs`, in their order. `inputs` are valid and of `type`; kLimit naming column `name` where 32-bit
/// offsets do not suffice.
arrow::Result<std::shared_ptr<arrow::ArrayData>> Gather(const std::shared_ptr<arrow::DataType>& type,
                                                        const GatherInputs& inputs, const std::vector<Run>& runs,
                                                        const std::string& name, arrow::MemoryPool* pool);

/// The kLimit status for a column whose values outgrow the offsets of its type.
arrow::Status TooManyValues(const std::string& name, const arrow::DataType& type);

}  // namespace sabot::rows

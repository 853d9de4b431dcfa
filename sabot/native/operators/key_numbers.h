// Numbers the different values of a key column in the order in which they first appear: the index of a grouping, and of
// a join.
#pragma once

#include <arrow/array/data.h>
#include <arrow/memory_pool.h>
#include <arrow/result.h>
#include <arrow/status.h>
#include <arrow/type.h>

#include <cstdint>
#include <limits>
#include <memory>

namespace sabot::operators {

class KeyNumbers {
 public:
  static constexpr uint32_t kNoNumber = std::numeric_limits<uint32_t>::max();

  /// Null for a type of key that it does not know: it takes whole numbers, dates and times of 4 and 8 bytes. All nulls
  /// are one key, as in pyarrow's grouping.
  static std::unique_ptr<KeyNumbers> Make(const std::shared_ptr<arrow::DataType>& type, arrow::MemoryPool* pool);

  virtual ~KeyNumbers() = default;
  /// Writes the number of each row's key to `numbers`. `keys` are valid and of the type.
  virtual arrow::Status Number(const arrow::ArrayData& keys, uint32_t* numbers) = 0;
  /// Writes the number of each row's key, or kNoNumber where there has been no such key; a null has none.
  virtual void Find(const arrow::ArrayData& keys, uint32_t* numbers) const = 0;
  /// How many different keys there have been.
  virtual int64_t count() const = 0;
  /// The keys in the order of their numbers. The last call.
  virtual arrow::Result<std::shared_ptr<arrow::ArrayData>> Finish() = 0;
};

}  // namespace sabot::operators

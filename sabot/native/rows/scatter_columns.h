// The second of the partitioner's two passes: the values of one column, copied to where the routing says.
#pragma once

#include <arrow/array.h>
#include <arrow/result.h>
#include <arrow/type.h>

#include <memory>
#include <string>
#include <vector>

#include "sabot/native/rows/routing.h"

namespace sabot::rows {

/// kUsage naming the column unless values of `type` can be scattered.
arrow::Status CheckScatterType(const arrow::DataType& type, const std::string& name);

/// Logical bytes of `array`, for the mean size of a row; approximate for nested types.
int64_t ApproximateBytes(const arrow::Array& array);

/// Scatters columns of one Routing, which must outlive it.
class ColumnScatter {
 public:
  explicit ColumnScatter(const Routing& routing) : routing_(routing) {}

  /// The column `inputs` (one array per input batch, of one type) by cuts: one array per cut of the routing.
  arrow::Result<arrow::ArrayVector> Scatter(const arrow::ArrayVector& inputs, const std::string& name);

 private:
  arrow::Result<std::shared_ptr<arrow::ArrayData>> ScatterFlat(const arrow::ArrayVector& inputs,
                                                               const std::string& name);
  arrow::Result<arrow::ArrayVector> GatherByCut(const arrow::ArrayVector& inputs, const std::string& name);
  arrow::Result<const uint32_t*> Sources();

  const Routing& routing_;
  std::shared_ptr<arrow::Buffer>
      sources_;  // uint32 per output row: its input row; made for the first column that needs it
};

}  // namespace sabot::rows

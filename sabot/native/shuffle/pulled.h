// What a pull has given, whole and audited.
#pragma once

#include <arrow/record_batch.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace sabot::shuffle {

struct Pulled {
  std::shared_ptr<arrow::Schema> schema;
  std::vector<std::shared_ptr<arrow::RecordBatch>> batches;
  int64_t rows = 0;
  int64_t bytes = 0;         // of a share's rows
  uint64_t content_sum = 0;  // of what is published: key hash 0, column 0; of a share: as in its chunks
};

}  // namespace sabot::shuffle

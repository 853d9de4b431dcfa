#include "sabot/native/shuffle/row_readers.h"

#include <arrow/util/byte_size.h>

#include <algorithm>

namespace sabot::shuffle {

std::vector<std::shared_ptr<arrow::RecordBatch>> CutToSize(const std::shared_ptr<arrow::RecordBatch>& batch,
                                                           int64_t bytes_max) {
  const auto referenced = arrow::util::ReferencedBufferSize(*batch);
  const int64_t bytes = referenced.ok() ? *referenced : arrow::util::TotalBufferSize(*batch);
  const int64_t count = std::max<int64_t>(1, (bytes + bytes_max - 1) / bytes_max);
  const int64_t rows_max = std::max<int64_t>(1, (batch->num_rows() + count - 1) / count);
  std::vector<std::shared_ptr<arrow::RecordBatch>> parts;
  for (int64_t start = 0; start < batch->num_rows(); start += rows_max) parts.push_back(batch->Slice(start, rows_max));
  return parts;
}

arrow::Status PartitionStream::ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) {
  batch->reset();
  while (ahead_.empty()) {
    ARROW_ASSIGN_OR_RAISE(const auto pieces, reader_.Next(SlotUse{}));
    if (pieces.empty()) return arrow::Status::OK();
    for (const Piece& piece : pieces)
      std::ranges::copy(CutToSize(piece.rows, batch_bytes_max_), std::back_inserter(ahead_));
  }
  *batch = std::move(ahead_.front());
  ahead_.pop_front();
  return arrow::Status::OK();
}

}  // namespace sabot::shuffle

#include "sabot/native/shuffle/marked_stream.h"

#include <arrow/ipc/message.h>

#include "sabot/native/rows/hash.h"
#include "sabot/native/shuffle/chunk_header.h"

namespace sabot::shuffle {

namespace flight = arrow::flight;

arrow::Result<std::unique_ptr<flight::FlightDataStream>> MarkedStream::Make(std::shared_ptr<const Published> part,
                                                                            StreamWatch::Stream open) {
  std::vector<std::shared_ptr<arrow::RecordBatch>> batches = part->batches;
  if (batches.empty()) {
    ARROW_ASSIGN_OR_RAISE(auto empty, arrow::RecordBatch::MakeEmpty(part->schema));
    batches.push_back(std::move(empty));
  }
  const size_t batch_count = batches.size();
  ARROW_ASSIGN_OR_RAISE(const auto reader, arrow::RecordBatchReader::Make(std::move(batches), part->schema));
  return std::unique_ptr<flight::FlightDataStream>(
      new MarkedStream(std::move(part), reader, batch_count, std::move(open)));
}

arrow::Result<flight::FlightPayload> MarkedStream::Next() {
  ARROW_ASSIGN_OR_RAISE(flight::FlightPayload payload, batches_.Next());
  if (payload.ipc_message.metadata == nullptr || payload.ipc_message.type != arrow::ipc::MessageType::RECORD_BATCH) {
    return payload;  // the end, or a dictionary
  }
  if (sent_ < part_->batches.size()) {
    const arrow::RecordBatch& batch = *part_->batches[sent_];
    rows_ += static_cast<uint64_t>(batch.num_rows());
    if (batch.num_columns() > 0) {
      const std::vector<uint64_t> no_keys(static_cast<size_t>(batch.num_rows()), 0);
      ARROW_ASSIGN_OR_RAISE(const uint64_t sum, rows::ContentSum(no_keys.data(), *batch.column(0)));
      content_sum_ += sum;
    }
  }
  const ReadMark mark{.last = sent_ + 1 == batch_count_, .sequence = sent_, .rows = rows_, .content_sum = content_sum_};
  ++sent_;
  payload.app_metadata = arrow::Buffer::FromString(EncodeReadMark(mark));
  return payload;
}

}  // namespace sabot::shuffle

#include "sabot/native/shuffle/marked_stream.h"

#include <arrow/ipc/message.h>

#include <utility>

#include "sabot/native/rows/hash.h"
#include "sabot/native/shuffle/chunk_header.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {

namespace flight = arrow::flight;

/// Reads one batch ahead, and remembers the one that it gave last.
class MarkedStream::Ahead : public arrow::RecordBatchReader {
 public:
  explicit Ahead(std::shared_ptr<arrow::RecordBatchReader> rows) : rows_(std::move(rows)) {}

  arrow::Status Start() {
    ARROW_RETURN_NOT_OK(Advance());
    if (next_ != nullptr) return arrow::Status::OK();
    return arrow::RecordBatch::MakeEmpty(schema()).Value(&next_);  // without rows there is one batch, to be marked
  }
  std::shared_ptr<arrow::Schema> schema() const override { return rows_->schema(); }
  arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) override {
    given_ = std::exchange(next_, nullptr);
    if (given_ != nullptr) ARROW_RETURN_NOT_OK(Advance());
    *batch = given_;
    return arrow::Status::OK();
  }
  const arrow::RecordBatch& given() const { return *given_; }
  bool ended() const { return next_ == nullptr; }

 private:
  arrow::Status Advance() {
    do {
      ARROW_RETURN_NOT_OK(rows_->ReadNext(&next_));
    } while (next_ != nullptr && next_->num_rows() == 0);
    return arrow::Status::OK();
  }

  const std::shared_ptr<arrow::RecordBatchReader> rows_;  // as its maker shares it
  std::shared_ptr<arrow::RecordBatch> next_;
  std::shared_ptr<arrow::RecordBatch> given_;
};

arrow::Result<std::unique_ptr<flight::FlightDataStream>> MarkedStream::Make(
    std::shared_ptr<arrow::RecordBatchReader> rows, StreamWatch::Stream open) {
  auto ahead = std::make_shared<Ahead>(std::move(rows));
  ARROW_RETURN_NOT_OK(ahead->Start());
  return std::unique_ptr<flight::FlightDataStream>(new MarkedStream(ahead, ahead, std::move(open)));
}

arrow::Result<flight::FlightPayload> MarkedStream::Next() {
  auto next = batches_.Next();
  if (!next.ok()) return ForWire(next.status());
  flight::FlightPayload payload = *std::move(next);
  if (payload.ipc_message.metadata == nullptr || payload.ipc_message.type != arrow::ipc::MessageType::RECORD_BATCH) {
    return payload;  // the end, or a dictionary
  }
  const arrow::RecordBatch& batch = rows_->given();
  row_count_ += static_cast<uint64_t>(batch.num_rows());
  ARROW_ASSIGN_OR_RAISE(const uint64_t sum, rows::ContentSum(batch, {}, 0));
  content_sum_ += sum;
  const ReadMark mark{.last = rows_->ended(), .sequence = sent_, .rows = row_count_, .content_sum = content_sum_};
  ++sent_;
  payload.app_metadata = arrow::Buffer::FromString(EncodeReadMark(mark));
  return payload;
}

}  // namespace sabot::shuffle

#include "sabot/native/shuffle/share_stream.h"

#include <arrow/ipc/message.h>

#include <algorithm>
#include <deque>
#include <iterator>
#include <utility>

#include "sabot/native/rows/checksum.h"
#include "sabot/native/shuffle/chunk_header.h"
#include "sabot/native/shuffle/row_readers.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {
namespace {

namespace flight = arrow::flight;

/// Reads one batch ahead, since the last one must be known when it goes, and remembers the one that it gave last.
class ShareRows : public arrow::RecordBatchReader {
 public:
  ShareRows(PartitionReader reader, int64_t batch_bytes_max)
      : reader_(std::move(reader)), batch_bytes_max_(batch_bytes_max) {}

  std::shared_ptr<arrow::Schema> schema() const override {
    return reader_.schema() != nullptr ? reader_.schema() : arrow::schema({});
  }
  arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) override {
    given_ = {};
    if (!started_) ARROW_RETURN_NOT_OK(Start());
    if (!ahead_.empty()) {
      given_ = std::move(ahead_.front());
      ahead_.pop_front();
      ARROW_RETURN_NOT_OK(Fill());
    }
    *batch = given_.rows;
    return arrow::Status::OK();
  }
  const arrow::RecordBatch& given() const { return *given_.rows; }
  uint32_t task() const { return given_.task; }
  bool ended() const { return ahead_.empty(); }

 private:
  struct Cut {
    std::shared_ptr<arrow::RecordBatch> rows;
    uint32_t task = 0;
  };

  /// Not before the schema has gone: what it costs to load and audit the first rows need not be waited for silently.
  arrow::Status Start() {
    started_ = true;
    ARROW_RETURN_NOT_OK(Fill());
    if (!ahead_.empty()) return arrow::Status::OK();
    ARROW_ASSIGN_OR_RAISE(auto none, arrow::RecordBatch::MakeEmpty(schema()));
    ahead_.push_back({std::move(none), 0});  // without rows there is one batch, to be marked
    return arrow::Status::OK();
  }

  arrow::Status Fill() {
    while (ahead_.empty()) {
      ARROW_ASSIGN_OR_RAISE(const auto pieces, reader_.Next(SlotUse{}));
      if (pieces.empty()) break;
      for (const Piece& piece : pieces) {
        for (auto& rows : CutToSize(piece.rows, batch_bytes_max_)) {
          ahead_.push_back({std::move(rows), piece.attempt.task});
        }
      }
    }
    return arrow::Status::OK();
  }

  PartitionReader reader_;
  const int64_t batch_bytes_max_;
  std::deque<Cut> ahead_;
  Cut given_;
  bool started_ = false;
};

class ShareStream : public flight::FlightDataStream {
 public:
  ShareStream(std::shared_ptr<ShareRows> rows, StreamWatch::Stream open)
      : rows_(std::move(rows)), batches_(rows_), open_(std::move(open)) {}

  using FlightDataStream::GetSchemaPayload;
  using FlightDataStream::Next;
  std::shared_ptr<arrow::Schema> schema() override { return batches_.schema(); }
  arrow::Result<flight::FlightPayload> GetSchemaPayload() override { return batches_.GetSchemaPayload(); }
  arrow::Result<flight::FlightPayload> Next() override {
    auto next = batches_.Next();
    if (!next.ok()) return ForWire(next.status());
    flight::FlightPayload payload = *std::move(next);
    if (payload.ipc_message.metadata == nullptr || payload.ipc_message.type != arrow::ipc::MessageType::RECORD_BATCH) {
      return payload;  // the end
    }
    const arrow::RecordBatch& batch = rows_->given();
    row_count_ += static_cast<uint64_t>(batch.num_rows());
    ShareMark mark{.last = rows_->ended(), .task = rows_->task(), .sequence = sent_++, .rows = row_count_};
    ARROW_ASSIGN_OR_RAISE(mark.checksum, rows::ChecksumBatch(batch));
    payload.app_metadata = arrow::Buffer::FromString(EncodeShareMark(mark));
    return payload;
  }

 private:
  const std::shared_ptr<ShareRows> rows_;  // shared with batches_, which reads it
  flight::RecordBatchStream batches_;
  const StreamWatch::Stream open_;
  uint32_t sent_ = 0;
  uint64_t row_count_ = 0;
};

}  // namespace

arrow::Result<std::unique_ptr<flight::FlightDataStream>> MakeShareStream(PartitionReader reader,
                                                                         int64_t batch_bytes_max,
                                                                         StreamWatch::Stream open) {
  auto rows = std::make_shared<ShareRows>(std::move(reader), batch_bytes_max);
  return std::make_unique<ShareStream>(std::move(rows), std::move(open));
}

}  // namespace sabot::shuffle

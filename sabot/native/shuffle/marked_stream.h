// A DoGet stream whose batches each carry a ReadMark, so that a reader can tell a whole stream from one that broke off.
#pragma once

#include <arrow/flight/server.h>

#include <memory>

#include "sabot/native/shuffle/published_store.h"
#include "sabot/native/shuffle/stream_watch.h"

namespace sabot::shuffle {

class MarkedStream : public arrow::flight::FlightDataStream {
 public:
  static arrow::Result<std::unique_ptr<arrow::flight::FlightDataStream>> Make(std::shared_ptr<const Published> part,
                                                                              StreamWatch::Stream open);

  using FlightDataStream::GetSchemaPayload;
  using FlightDataStream::Next;
  std::shared_ptr<arrow::Schema> schema() override { return part_->schema; }
  arrow::Result<arrow::flight::FlightPayload> GetSchemaPayload() override { return batches_.GetSchemaPayload(); }
  arrow::Result<arrow::flight::FlightPayload> Next() override;

 private:
  MarkedStream(std::shared_ptr<const Published> part, const std::shared_ptr<arrow::RecordBatchReader>& reader,
               size_t batch_count, StreamWatch::Stream open)
      : part_(std::move(part)), batches_(reader), batch_count_(batch_count), open_(std::move(open)) {}

  const std::shared_ptr<const Published> part_;  // shared with the store, which may drop it meanwhile
  arrow::flight::RecordBatchStream batches_;
  const size_t batch_count_;
  const StreamWatch::Stream open_;
  size_t sent_ = 0;
  uint64_t rows_ = 0;
  uint64_t content_sum_ = 0;
};

}  // namespace sabot::shuffle

// A DoGet stream whose batches each carry a ReadMark, so that a reader can tell a whole stream from one that broke off.
#pragma once

#include <arrow/flight/server.h>
#include <arrow/record_batch.h>

#include <memory>

#include "sabot/native/shuffle/stream_watch.h"

namespace sabot::shuffle {

/// Sends what `rows` gives, one batch ahead of the wire: the last one must be known when it goes.
class MarkedStream : public arrow::flight::FlightDataStream {
 public:
  static arrow::Result<std::unique_ptr<arrow::flight::FlightDataStream>> Make(
      std::shared_ptr<arrow::RecordBatchReader> rows, StreamWatch::Stream open);

  using FlightDataStream::GetSchemaPayload;
  using FlightDataStream::Next;
  std::shared_ptr<arrow::Schema> schema() override { return batches_.schema(); }
  arrow::Result<arrow::flight::FlightPayload> GetSchemaPayload() override { return batches_.GetSchemaPayload(); }
  arrow::Result<arrow::flight::FlightPayload> Next() override;

 private:
  class Ahead;

  MarkedStream(std::shared_ptr<Ahead> rows, const std::shared_ptr<arrow::RecordBatchReader>& reader,
               StreamWatch::Stream open)
      : rows_(std::move(rows)), batches_(reader), open_(std::move(open)) {}

  const std::shared_ptr<Ahead> rows_;  // shared with batches_, which reads it
  arrow::flight::RecordBatchStream batches_;
  const StreamWatch::Stream open_;
  uint64_t sent_ = 0;
  uint64_t row_count_ = 0;
  uint64_t content_sum_ = 0;
};

}  // namespace sabot::shuffle

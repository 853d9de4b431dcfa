// What is stored or published as streams of batches, loaded as they are read.
#pragma once

#include <arrow/record_batch.h>

#include <deque>
#include <memory>

#include "sabot/native/shuffle/partition_audit.h"
#include "sabot/native/shuffle/published_store.h"

namespace sabot::shuffle {

/// What is published, batch by batch; it may be dropped meanwhile.
class PublishedReader : public arrow::RecordBatchReader {
 public:
  PublishedReader(std::shared_ptr<const Published> part, arrow::MemoryPool* pool)
      : part_(std::move(part)), pool_(pool) {}

  std::shared_ptr<arrow::Schema> schema() const override { return part_->schema; }
  arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) override {
    batch->reset();
    if (next_ == part_->batches.size()) return arrow::Status::OK();
    return part_->batches[next_++]->Load(pool_).Value(batch);
  }

 private:
  const std::shared_ptr<const Published> part_;  // shared with the store
  arrow::MemoryPool* const pool_;
  size_t next_ = 0;
};

/// A partition's pieces, cut to about `batch_bytes_max`; audited in the calling thread.
class PartitionStream : public arrow::RecordBatchReader {
 public:
  PartitionStream(PartitionReader reader, int64_t batch_bytes_max)
      : reader_(std::move(reader)), batch_bytes_max_(batch_bytes_max) {}

  std::shared_ptr<arrow::Schema> schema() const override {
    return reader_.schema() != nullptr ? reader_.schema() : arrow::schema({});
  }
  arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) override;

 private:
  PartitionReader reader_;
  const int64_t batch_bytes_max_;
  std::deque<std::shared_ptr<arrow::RecordBatch>> ahead_;
};

/// Slices of about `bytes_max` by mean row bytes, one row at least; none where there are no rows.
std::vector<std::shared_ptr<arrow::RecordBatch>> CutToSize(const std::shared_ptr<arrow::RecordBatch>& batch,
                                                           int64_t bytes_max);

}  // namespace sabot::shuffle

// The chunk checksum: XXH3-64 over a batch's logical buffers, equal on both ends of an IPC stream (docs/protocol.md).
#pragma once

#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <cstdint>
#include <memory>

namespace sabot::rows {

/// The checksum of a batch whose columns come one after the other: whoever writes a column adds it while it is in the
/// cache. What ChecksumBatch says of batches holds for columns here.
class BatchChecksum {
 public:
  explicit BatchChecksum(int64_t num_rows);
  BatchChecksum(BatchChecksum&&) noexcept;
  BatchChecksum& operator=(BatchChecksum&&) noexcept;
  ~BatchChecksum();

  /// The next column, in schema order.
  arrow::Status Add(const arrow::ArrayData& column);

  /// Of all columns that were added.
  uint64_t Digest() const;

 private:
  class Stream;
  std::unique_ptr<Stream> stream_;
};

/// XXH3-64 over the buffers in schema order, each cut to its logical length: offsets start at 0, unused bits are zero,
/// a validity bitmap counts only where there are nulls. A slice and its copy after IPC give the same. Safe for a batch
/// that nobody has validated: lengths and offsets that reach out of their buffers are kIntegrity. Union and run-end
/// encoded columns are kUsage.
arrow::Result<uint64_t> ChecksumBatch(const arrow::RecordBatch& batch);

}  // namespace sabot::rows

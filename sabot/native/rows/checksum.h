// The chunk checksum: XXH3-64 over a batch's logical buffers, equal on both ends of an IPC stream (docs/protocol.md).
#pragma once

#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <cstdint>
#include <functional>
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

  /// Takes bytes over that have just been added.
  using Take = std::function<void(const uint8_t* bytes, int64_t size)>;

  /// The next column, in schema order.
  arrow::Status Add(const arrow::ArrayData& column);
  /// The same of a column of values of one width (no booleans, no dictionary): `take` gets the values, piece by piece,
  /// each while it is in the cache.
  arrow::Status AddAndTake(const arrow::ArrayData& column, const Take& take);

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

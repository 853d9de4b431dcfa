// Batches that an agent publishes for pull, by name and index: results, uploads, registered partitions. Thread-safe.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace sabot::shuffle {

struct Published {
  std::shared_ptr<arrow::Schema> schema;
  std::vector<std::shared_ptr<arrow::RecordBatch>> batches;
  int64_t rows = 0;
  uint64_t content_sum = 0;  // key hash 0, column 0
  int64_t bytes = 0;
  std::chrono::steady_clock::time_point published_at;
};

class PublishedStore {
 public:
  /// Cuts `batches` to about `batch_bytes_max` each, sums them and keeps them; kUsage where the name and index are
  /// taken.
  arrow::Result<std::shared_ptr<const Published>> Publish(
      const std::string& name, int64_t index, std::shared_ptr<arrow::Schema> schema,
      const std::vector<std::shared_ptr<arrow::RecordBatch>>& batches, int64_t batch_bytes_max);
  /// kUsage where nothing is published so.
  arrow::Result<std::shared_ptr<const Published>> Find(const std::string& name, int64_t index) const;
  /// Drops what is named `prefix` or lies below "prefix/".
  void DropPrefix(const std::string& prefix);

  /// The names published, each with the age of its oldest part in seconds.
  std::vector<std::pair<std::string, double>> NamesWithAge() const;
  int64_t bytes() const;

 private:
  mutable std::mutex mutex_;  // guards parts_ and bytes_; a leaf
  std::map<std::pair<std::string, int64_t>, std::shared_ptr<const Published>> parts_;
  int64_t bytes_ = 0;
};

}  // namespace sabot::shuffle

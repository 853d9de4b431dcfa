// Batches that an agent publishes for pull, by name and index, in memory or on disk: results, uploads, registered
// partitions. Thread-safe.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "sabot/native/spill/kept_rows.h"
#include "sabot/native/spill/row_block.h"
#include "sabot/native/spill/spill_writer.h"

namespace sabot::shuffle {

/// What is published under one name and index.
struct Published {
  std::shared_ptr<arrow::Schema> schema;
  std::vector<std::shared_ptr<spill::KeptRows>> batches;
  int64_t rows = 0;
  uint64_t content_sum = 0;  // key hash 0, column 0
  int64_t bytes = 0;         // when all of it is in memory
  std::chrono::steady_clock::time_point published_at;
};

class PublishedStore : public spill::SpillSource, public std::enable_shared_from_this<PublishedStore> {
 public:
  struct Options {
    spill::BlockSource blocks;  // where they are kept, and on whose account
    std::string agent;          // our address, for messages
  };

  PublishedStore() : PublishedStore(Options()) {}
  explicit PublishedStore(Options options) : options_(std::move(options)) {}

  /// Cuts `batches` to about `batch_bytes_max` each, sums them and keeps a copy, letting go of each once it is copied;
  /// kUsage where the name and index are taken, kLimit where rows of this name found no room on disk: more of them
  /// would fill the memory. What `ours` says are blocks of blocks() alone, and small enough, is kept as it is.
  arrow::Result<std::shared_ptr<const Published>> Publish(const std::string& name, int64_t index,
                                                          std::shared_ptr<arrow::Schema> schema,
                                                          std::vector<std::shared_ptr<arrow::RecordBatch>> batches,
                                                          int64_t batch_bytes_max, bool ours = false);
  /// Adds copies of `batches` to what Finish publishes under the name and index, so that a part may be larger than
  /// memory: what has been added may go to disk before the next comes. Until then it is not found.
  arrow::Status Add(const std::string& name, int64_t index, std::shared_ptr<arrow::Schema> schema,
                    std::vector<std::shared_ptr<arrow::RecordBatch>> batches, int64_t batch_bytes_max);
  /// Publishes what was added, once at least; kUsage where nothing was, or it was published already.
  arrow::Result<std::shared_ptr<const Published>> Finish(const std::string& name, int64_t index);
  /// Drops what was added and is not published.
  void Abandon(const std::string& name, int64_t index);
  /// kUsage where nothing is published so.
  arrow::Result<std::shared_ptr<const Published>> Find(const std::string& name, int64_t index) const;
  /// Drops what is named `prefix` or lies below "prefix/".
  void DropPrefix(const std::string& prefix);
  void DropAll();

  /// The names published, each with the age of its oldest part in seconds.
  std::vector<std::pair<std::string, double>> NamesWithAge() const;
  int64_t bytes() const;
  arrow::MemoryPool* pool() const { return options_.blocks.pool; }
  const spill::BlockSource& blocks() const { return options_.blocks; }

  void BeginRound() override;
  std::unique_ptr<spill::SpillJob> TakeColdest(int64_t bytes, const std::shared_ptr<spill::SpillSpace>& space) override;

 private:
  class Spilling;
  struct Part {
    std::shared_ptr<Published> published;  // shared with who reads it, which nobody does while it grows
    size_t spilled = 0;                    // how many of its batches are on disk
    bool stuck = false;                    // no folder had room for it when it was last tried
    bool grows = false;
  };

  /// Copies of `batches`, cut to about `batch_bytes_max` each, with their sums.
  arrow::Result<std::shared_ptr<Published>> Keep(const std::string& name, int64_t index,
                                                 std::shared_ptr<arrow::Schema> schema,
                                                 std::vector<std::shared_ptr<arrow::RecordBatch>> batches,
                                                 int64_t batch_bytes_max, bool ours) const;
  void TellFreeable() const;

  void Swapped(const std::string& name, int64_t index, const std::shared_ptr<const Published>& part, size_t count);
  void DropThose(const std::function<bool(const std::string&)>& named);
  void Stuck(const std::string& name, int64_t index, const std::shared_ptr<const Published>& part,
             const arrow::Status& status);

  const Options options_;
  mutable std::mutex mutex_;  // guards all below; a leaf
  std::map<std::pair<std::string, int64_t>, Part> parts_;
  std::map<std::string, std::shared_ptr<spill::SpillGroup>> files_;  // by name
  std::map<std::string, arrow::Status> no_room_;                     // by name, why rows of it are not on disk
  int64_t bytes_ = 0;
  bool may_retry_ = false;  // what is stuck, in this round of the spill writer's
  std::chrono::steady_clock::time_point retry_at_{};
};

}  // namespace sabot::shuffle

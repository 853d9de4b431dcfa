// The reader's side of the audit: rows are loaded, where they are on disk, and their sums computed anew before they are
// released, as morsels in the slots.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "sabot/native/shuffle/chunk_store.h"
#include "sabot/native/shuffle/slot_call.h"

namespace sabot::shuffle {

/// Which shuffle and partition a message should name.
struct AuditNames {
  std::string shuffle_id;
  std::string agent;
  int32_t partition = 0;
  int32_t num_partitions = 1;
};

/// Reads a partition piece by piece. Of what is on disk about `loaded_bytes_max` are in memory at a time; what is in
/// memory already is released at once. Not for several threads at a time.
class PartitionReader {
 public:
  struct Options {
    AuditNames names;
    arrow::MemoryPool* pool = arrow::default_memory_pool();
    int64_t loaded_bytes_max = 32 << 20;
    bool audit = true;  // a guard: a benchmark switches it off to see its cost
  };

  PartitionReader(PartitionContents contents, Options options)
      : contents_(std::move(contents)), options_(std::move(options)) {}

  /// The next pieces; none at the end. Their rows and content sums have been recomputed, and that every row's hash
  /// belongs to the partition; the last ones come only when the partition's sums are those that the manifests promise.
  /// kIntegrity names the culprit. Blocks the caller, never a slot. A failure is the reader's last word.
  arrow::Result<std::vector<Piece>> Next(const SlotUse& slots);
  /// All pieces that are left, in the order of task and sequence: rows as their tasks gave them, wherever they lay.
  arrow::Result<std::vector<Piece>> ReadAll(const SlotUse& slots);

  /// Puts what is to be read into the order of task and sequence, piece by piece; false where it cannot be: rows that
  /// lie on disk together may have others between them. Before the first Next.
  bool Arrange();

  const std::shared_ptr<arrow::Schema>& schema() const { return contents_.schema; }
  /// What has been released so far, and how many of the rows came from other agents.
  const PartitionCount& released() const { return released_; }
  int64_t network_rows() const { return network_rows_; }

 private:
  arrow::Result<std::vector<Piece>> LoadNext(const SlotUse& slots);
  arrow::Status CheckTotal() const;

  PartitionContents contents_;
  const Options options_;
  size_t next_ = 0;
  PartitionCount released_;
  int64_t network_rows_ = 0;
  arrow::Status failure_;
};

}  // namespace sabot::shuffle

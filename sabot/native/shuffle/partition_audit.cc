#include "sabot/native/shuffle/partition_audit.h"

#include <arrow/array.h>

#include <algorithm>

#include "sabot/native/rows/hash.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {
namespace {

class AuditRun : public AwaitedRun {
 public:
  AuditRun(const PartitionContents& contents, const AuditNames& names)
      : contents_(contents), names_(names), sums_(contents.pieces.size()), statuses_(contents.pieces.size()) {}

  size_t item_count() const noexcept override { return contents_.pieces.size(); }
  slots::Source source_of(size_t index) const noexcept override { return contents_.pieces[index].source; }
  void RunItem(size_t index, int, int64_t) noexcept override {
    statuses_[index] = AuditPiece(contents_.pieces[index], &sums_[index]);
  }

  arrow::Result<PartitionSum> Total() const {
    PartitionSum total;
    for (size_t i = 0; i < sums_.size(); ++i) {
      ARROW_RETURN_NOT_OK(statuses_[i]);
      total.Add(sums_[i].rows, sums_[i].content_sum);
    }
    return total;
  }

 private:
  arrow::Status AuditPiece(const Piece& piece, PartitionSum* sum) const {
    const arrow::RecordBatch& batch = *piece.rows;
    std::vector<uint64_t> key_hashes(static_cast<size_t>(batch.num_rows()), 0);
    const std::vector<int> keys(contents_.layout.key_columns.begin(), contents_.layout.key_columns.end());
    for (const int key : keys) {
      if (key >= batch.num_columns()) return Wrong(piece, "names a key column that its rows do not have");
    }
    ARROW_RETURN_NOT_OK(rows::HashKeys(batch, keys, key_hashes.data()));
    if (!InPlace(batch, keys, key_hashes, piece.partition)) {
      return Wrong(piece, "has a row whose key belongs to another partition");
    }
    sum->rows = batch.num_rows();
    if (batch.num_columns() == 0) return arrow::Status::OK();
    const int column = static_cast<int>(piece.attempt.task % static_cast<uint32_t>(batch.num_columns()));
    ARROW_ASSIGN_OR_RAISE(sum->content_sum, rows::ContentSum(key_hashes.data(), *batch.column(column)));
    return arrow::Status::OK();
  }

  /// Whether every row belongs to `partition`, where the layout says how to tell.
  bool InPlace(const arrow::RecordBatch& batch, const std::vector<int>& keys, const std::vector<uint64_t>& key_hashes,
               int32_t partition) const {
    if (contents_.layout.by_hash) {
      return std::ranges::all_of(
          key_hashes, [&](uint64_t hash) { return rows::PartitionOf(hash, names_.num_partitions) == partition; });
    }
    if (!contents_.layout.by_column) return true;
    if (keys.size() != 1 || batch.schema()->field(keys[0])->type()->id() != arrow::Type::INT32) return false;
    const auto& named = static_cast<const arrow::Int32Array&>(*batch.column(keys[0]));
    for (int64_t row = 0; row < named.length(); ++row) {
      if (named.IsNull(row) || named.Value(row) != partition) return false;
    }
    return true;
  }

  arrow::Status Wrong(const Piece& piece, const std::string& what) const {
    return MakeStatus(Code::kIntegrity,
                      "Chunk " + std::to_string(piece.sequence) + " " + what + " (shuffle=" + names_.shuffle_id +
                          ", partition=" + std::to_string(piece.partition) +
                          ", task=" + std::to_string(piece.attempt.task) +
                          ", attempt=" + std::to_string(piece.attempt.attempt) + ", agent=" + names_.agent + ")");
  }

  const PartitionContents& contents_;  // outlives the run: AuditPartition waits for it
  const AuditNames& names_;
  std::vector<PartitionSum> sums_;
  std::vector<arrow::Status> statuses_;
};

}  // namespace

arrow::Result<PartitionSum> AuditPartition(const PartitionContents& contents, const AuditNames& names,
                                           const SlotUse& slots) {
  const std::string facts = " (shuffle=" + names.shuffle_id + ", partition=" + std::to_string(names.partition) +
                            ", agent=" + names.agent + ")";
  auto run = std::make_shared<AuditRun>(contents, names);
  ARROW_RETURN_NOT_OK(RunAndWait(slots, run, "audit a partition" + facts));
  ARROW_ASSIGN_OR_RAISE(const PartitionSum released, run->Total());
  if (released == contents.promised) return released;
  if (released.rows != contents.promised.rows) {
    return MakeStatus(Code::kIntegrity, "A partition has " + std::to_string(released.rows) +
                                            " rows where its senders sent " + std::to_string(contents.promised.rows) +
                                            facts);
  }
  return MakeStatus(Code::kIntegrity,
                    "A partition's rows are not those that its senders sent: the content sums differ" + facts);
}

}  // namespace sabot::shuffle

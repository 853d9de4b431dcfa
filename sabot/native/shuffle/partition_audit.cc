#include "sabot/native/shuffle/partition_audit.h"

#include <arrow/array.h>

#include <algorithm>
#include <utility>

#include "sabot/native/rows/hash.h"
#include "sabot/native/rows/hash_values.h"
#include "sabot/native/rows/row_bytes.h"
#include "sabot/native/rows/row_hasher.h"
#include "sabot/native/rows/wide_loops.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {
namespace {

/// About how much the rows of a part on disk take in memory. How much room they have there says nothing of that: the
/// same value in all rows packs to a hundredth.
int64_t UnpackedBytesOf(const StoredPart& part, double row_bytes) {
  return static_cast<int64_t>(row_bytes * static_cast<double>(part.run->segment_rows(part.segment)));
}

class AuditRun : public AwaitedRun {
 public:
  AuditRun(std::span<StoredPart> parts, const PartitionContents& contents, const PartitionReader::Options& options)
      : parts_(parts),
        contents_(contents),
        options_(options),
        pieces_(parts.size()),
        sums_(parts.size()),
        statuses_(parts.size()) {}

  size_t item_count() const noexcept override { return parts_.size(); }
  slots::Source source_of(size_t index) const noexcept override {
    return parts_[index].run != nullptr ? slots::Source::kLocal : parts_[index].piece.source;
  }
  void RunItem(size_t index, int, int64_t) noexcept override { statuses_[index] = LoadAndAudit(index); }

  /// What was asked for, in order, added to `total`.
  arrow::Result<std::vector<Piece>> Released(PartitionCount* total) {
    std::vector<Piece> released;
    for (size_t i = 0; i < parts_.size(); ++i) {
      ARROW_RETURN_NOT_OK(statuses_[i]);
      total->Add(sums_[i].sum.rows, sums_[i].sum.content_sum, sums_[i].bytes);
      std::ranges::move(pieces_[i], std::back_inserter(released));
    }
    return released;
  }

 private:
  arrow::Status LoadAndAudit(size_t index) {
    StoredPart& part = parts_[index];
    std::vector<Piece>& pieces = pieces_[index];
    if (part.run == nullptr) {
      pieces.push_back(std::move(part.piece));
    } else {
      ARROW_ASSIGN_OR_RAISE(auto loaded, part.run->Load(part.segment, options_.pool));
      for (spill::LoadedPiece& piece : loaded) {
        const AttemptKey attempt{piece.chunk.task, piece.chunk.attempt};
        if (!contents_.attempts.contains(attempt)) continue;
        const auto source = piece.chunk.from_network ? slots::Source::kNetwork : slots::Source::kLocal;
        pieces.push_back({std::move(piece.rows), source, attempt, piece.chunk.sequence, part.piece.partition});
      }
      part.run.reset();
    }
    for (const Piece& piece : pieces) {
      if (options_.audit) {
        ARROW_RETURN_NOT_OK(Audit(piece, &sums_[index]));
      } else {
        sums_[index].Add(piece.rows->num_rows(), 0, 0);
      }
    }
    return arrow::Status::OK();
  }

  arrow::Status Audit(const Piece& piece, PartitionCount* sum) const {
    const arrow::RecordBatch& batch = *piece.rows;
    const std::vector<int> keys(contents_.layout.key_columns.begin(), contents_.layout.key_columns.end());
    for (const int key : keys) {
      if (key >= batch.num_columns()) return Wrong(piece, "names a key column that its rows do not have");
      ARROW_RETURN_NOT_OK(rows::CheckKeyType(*batch.column(key)->type(), batch.column_name(key)));
    }
    if (contents_.layout.by_column && !IsNamed(batch, keys, piece.partition)) return Misplaced(piece);
    const auto columns = static_cast<uint32_t>(batch.num_columns());
    rows::RowHasher hasher(batch, keys,
                           columns == 0 ? rows::RowHasher::kNoSum : static_cast<int>(piece.attempt.task % columns));
    const int64_t block_rows = std::min(hasher.block_rows(), batch.num_rows());
    std::vector<uint64_t> key_hashes(static_cast<size_t>(block_rows));
    const bool by_hash = contents_.layout.by_hash;
    const int32_t num_partitions = options_.names.num_partitions;
    if (by_hash && (piece.partition < 0 || piece.partition >= num_partitions)) return Misplaced(piece);
    const rows::PartitionBounds bounds(by_hash ? piece.partition : 0, by_hash ? num_partitions : 1);
    uint64_t content_sum = 0;
    for (int64_t row = 0; row < batch.num_rows(); row += block_rows) {
      const int64_t rows = std::min(block_rows, batch.num_rows() - row);
      ARROW_ASSIGN_OR_RAISE(const uint64_t added, hasher.Sum(row, rows, key_hashes.data()));
      content_sum += added;
      if (by_hash && !rows::AllWithin(bounds, key_hashes.data(), rows)) return Misplaced(piece);
    }
    sum->Add(batch.num_rows(), content_sum, rows::BytesOfRows(batch));
    return arrow::Status::OK();
  }

  /// Whether the one key column names `partition` in every row.
  static bool IsNamed(const arrow::RecordBatch& batch, const std::vector<int>& keys, int32_t partition) {
    if (keys.size() != 1 || batch.schema()->field(keys[0])->type()->id() != arrow::Type::INT32) return false;
    const auto& named = static_cast<const arrow::Int32Array&>(*batch.column(keys[0]));
    for (int64_t row = 0; row < named.length(); ++row) {
      if (named.IsNull(row) || named.Value(row) != partition) return false;
    }
    return true;
  }

  arrow::Status Misplaced(const Piece& piece) const {
    return Wrong(piece, "has a row whose key belongs to another partition");
  }

  arrow::Status Wrong(const Piece& piece, const std::string& what) const {
    return MakeStatus(
        Code::kIntegrity,
        "Chunk " + std::to_string(piece.sequence) + " " + what + " (shuffle=" + options_.names.shuffle_id +
            ", partition=" + std::to_string(piece.partition) + ", task=" + std::to_string(piece.attempt.task) +
            ", attempt=" + std::to_string(piece.attempt.attempt) + ", agent=" + options_.names.agent + ")");
  }

  const std::span<StoredPart> parts_;  // outlives the run, as the next two: the reader waits for it
  const PartitionContents& contents_;
  const PartitionReader::Options& options_;
  std::vector<std::vector<Piece>> pieces_;
  std::vector<PartitionCount> sums_;
  std::vector<arrow::Status> statuses_;
};

std::string FactsOf(const AuditNames& names) {
  return " (shuffle=" + names.shuffle_id + ", partition=" + std::to_string(names.partition) + ", agent=" + names.agent +
         ")";
}

}  // namespace

arrow::Result<std::vector<Piece>> PartitionReader::Next(const SlotUse& slots) {
  ARROW_RETURN_NOT_OK(failure_);
  auto pieces = LoadNext(slots);
  if (!pieces.ok()) failure_ = pieces.status();
  return pieces;
}

arrow::Result<std::vector<Piece>> PartitionReader::ReadAll(const SlotUse& slots) {
  std::vector<Piece> all;
  while (true) {
    ARROW_ASSIGN_OR_RAISE(auto pieces, Next(slots));
    if (pieces.empty()) break;
    std::ranges::move(pieces, std::back_inserter(all));
  }
  std::ranges::stable_sort(all, {}, [](const Piece& piece) { return std::pair(piece.attempt, piece.sequence); });
  return all;
}

bool PartitionReader::Arrange() {
  using Place = std::pair<AttemptKey, uint32_t>;
  struct Placed {
    Place first, last;
    size_t part;
  };
  std::vector<Placed> placed;
  for (size_t i = 0; i < contents_.parts.size(); ++i) {
    const StoredPart& part = contents_.parts[i];
    std::vector<Place> places;
    if (part.run == nullptr) {
      places.emplace_back(part.piece.attempt, part.piece.sequence);
    } else {
      for (const spill::ChunkTag& chunk : part.run->ChunksIn(part.segment)) {
        const AttemptKey attempt{chunk.task, chunk.attempt};
        if (contents_.attempts.contains(attempt)) places.emplace_back(attempt, chunk.sequence);
      }
    }
    if (places.empty()) continue;  // a segment with rows of other attempts alone
    if (!std::ranges::is_sorted(places)) return false;
    placed.push_back({places.front(), places.back(), i});
  }
  std::ranges::sort(placed, {}, &Placed::first);
  for (size_t i = 1; i < placed.size(); ++i) {
    if (placed[i].first < placed[i - 1].last) return false;
  }
  std::vector<StoredPart> arranged;
  for (const Placed& one : placed) arranged.push_back(std::move(contents_.parts[one.part]));
  contents_.parts = std::move(arranged);
  return true;
}

arrow::Result<std::vector<Piece>> PartitionReader::LoadNext(const SlotUse& slots) {
  std::vector<Piece> pieces;
  while (pieces.empty()) {
    const size_t first = next_;
    int64_t bytes = 0;
    while (next_ < contents_.parts.size() && (bytes < options_.loaded_bytes_max || next_ == first)) {
      const StoredPart& part = contents_.parts[next_++];
      if (part.run != nullptr) bytes += UnpackedBytesOf(part, contents_.row_bytes);
    }
    if (first == next_) break;
    const std::span<StoredPart> parts(contents_.parts.data() + first, next_ - first);
    auto run = std::make_shared<AuditRun>(parts, contents_, options_);
    ARROW_RETURN_NOT_OK(RunAndWait(slots, run, "audit a partition" + FactsOf(options_.names)));
    ARROW_ASSIGN_OR_RAISE(pieces, run->Released(&released_));
  }
  for (const Piece& piece : pieces) {
    if (piece.source == slots::Source::kNetwork) network_rows_ += piece.rows->num_rows();
  }
  if (next_ == contents_.parts.size()) ARROW_RETURN_NOT_OK(CheckTotal());
  return pieces;
}

arrow::Status PartitionReader::CheckTotal() const {
  if (released_.sum == contents_.promised || !options_.audit) return arrow::Status::OK();
  if (released_.sum.rows != contents_.promised.rows) {
    return MakeStatus(Code::kIntegrity, "A partition has " + std::to_string(released_.sum.rows) +
                                            " rows where its senders sent " + std::to_string(contents_.promised.rows) +
                                            FactsOf(options_.names));
  }
  return MakeStatus(
      Code::kIntegrity,
      "A partition's rows are not those that its senders sent: the content sums differ" + FactsOf(options_.names));
}

}  // namespace sabot::shuffle

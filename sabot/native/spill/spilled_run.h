// Rows that were written to disk together: segments sorted by partition, each an Arrow IPC message with LZ4, and an
// index of 24 bytes a segment and 8 a piece that stays in memory.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "sabot/native/spill/spill_space.h"

namespace sabot::spill {

/// Which chunk rows are of: one task's attempt, the chunk's number in it, and whether it came from another agent.
struct ChunkTag {
  uint32_t task = 0;
  uint32_t attempt = 0;
  uint32_t sequence = 0;
  bool from_network = false;
};

/// Rows to be written: consecutive ones of one partition of a chunk.
struct RowsToSpill {
  uint32_t partition = 0;
  uint32_t chunk = 0;  // index into the tags
  std::shared_ptr<arrow::RecordBatch> rows;
};

/// Rows read back.
struct LoadedPiece {
  ChunkTag chunk;
  std::shared_ptr<arrow::RecordBatch> rows;
};

class SpilledRun {
 public:
  /// What is written, and what a message should name.
  struct Content {
    std::string name;   // of the shuffle or of what is published
    std::string agent;  // our address
    std::shared_ptr<arrow::Schema> schema;
    std::vector<ChunkTag> chunks;
    std::vector<RowsToSpill> pieces;  // in the order in which a partition's are to be read
    bool coalesce = true;             // false: each piece is a segment, in the order given
  };

  /// Writes `content` at the end of the group's file in the folder whose turn it is, or of the next one where that is
  /// full. kLimit where none has room; nothing is left of it then.
  static arrow::Result<std::shared_ptr<const SpilledRun>> Write(Content content, SpillGroup* group);

  /// The segments of `partition`, as [first, end).
  std::pair<uint32_t, uint32_t> SegmentsOf(uint32_t partition) const;
  uint32_t segment_count() const { return static_cast<uint32_t>(segments_.size()) - 1; }
  int64_t segment_bytes(uint32_t segment) const { return segments_[segment + 1].offset - segments_[segment].offset; }
  int64_t segment_rows(uint32_t segment) const;
  /// The chunks that a segment has rows of, in its order.
  std::vector<ChunkTag> ChunksIn(uint32_t segment) const;

  /// Reads a segment back, checks it against what was written and unpacks it into memory of `pool`. kIntegrity naming
  /// shuffle, partition, task and agent.
  arrow::Result<std::vector<LoadedPiece>> Load(uint32_t segment, arrow::MemoryPool* pool) const;

  int64_t bytes() const { return segments_.back().offset - segments_.front().offset; }
  int64_t index_bytes() const;

 private:
  struct Segment {
    int64_t offset;
    uint64_t checksum;  // XXH3-64 of the bytes in the file
    uint32_t partition;
    uint32_t first_piece;
  };
  struct PieceEntry {
    uint32_t chunk;
    uint32_t rows;
  };
  static_assert(sizeof(Segment) == 24 && sizeof(PieceEntry) == 8);

  SpilledRun() = default;
  arrow::Status WriteTo(const Content& content, SpillFile* file);
  arrow::Status WriteSegment(const Content& content, size_t first, size_t end, SpillFile* file);
  arrow::Status Changed(uint32_t segment, const std::string& what) const;
  arrow::Result<std::vector<std::shared_ptr<arrow::RecordBatch>>> Decode(std::shared_ptr<arrow::Buffer> bytes,
                                                                         arrow::MemoryPool* pool) const;

  std::string name_;
  std::string agent_;
  std::shared_ptr<arrow::Schema> schema_;
  std::shared_ptr<SpillFile> file_;  // shared with the runs beside it in the file
  std::vector<ChunkTag> chunks_;
  std::vector<Segment> segments_;  // and one more, for where the last one ends
  std::vector<PieceEntry> pieces_;
};

}  // namespace sabot::spill

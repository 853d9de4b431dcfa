#include "sabot/native/shuffle/placement_digest.h"

#include "sabot/native/rows/hash.h"

namespace sabot::shuffle {

arrow::Result<uint64_t> PlacementDigest(const std::vector<rows::ScatteredChunk>& chunks) {
  uint64_t digest = 0;
  std::vector<uint64_t> row_hashes;
  std::vector<uint64_t> value_hashes;
  for (const rows::ScatteredChunk& chunk : chunks) {
    row_hashes.assign(static_cast<size_t>(chunk.batch->num_rows()), 0);
    value_hashes.resize(row_hashes.size());
    for (const auto& column : chunk.batch->columns()) {
      ARROW_RETURN_NOT_OK(rows::HashColumn(*column, value_hashes.data()));
      for (size_t i = 0; i < row_hashes.size(); ++i) row_hashes[i] = rows::Mix(row_hashes[i], value_hashes[i]);
    }
    size_t row = 0;
    for (const rows::Extent& extent : chunk.extents) {
      const uint64_t partition = static_cast<uint64_t>(extent.partition) + 1;
      for (int64_t i = 0; i < extent.rows; ++i) digest += rows::Mix(row_hashes[row++], partition);
    }
  }
  return digest;
}

}  // namespace sabot::shuffle

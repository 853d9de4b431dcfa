// The placement digest: the same for the same rows in the same partitions, whatever their order, cuts and owners.
#include "sabot/native/shuffle/placement_digest.h"

#include "sabot/native/tests/rows_arrays.h"

namespace sabot::shuffle {
namespace {

using rows::FromJson;
using Rows = std::vector<std::pair<int, std::string>>;

/// A chunk of rows (number, text) in their order; consecutive rows of one of `partitions` make an extent.
rows::ScatteredChunk Chunk(const Rows& rows, const std::vector<int32_t>& partitions) {
  std::string numbers;
  std::string texts;
  rows::ScatteredChunk chunk{0, nullptr, {}};
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::string comma = i == 0 ? "" : ", ";
    numbers += comma + std::to_string(rows[i].first);
    texts += comma + rows[i].second;
    if (i == 0 || chunk.extents.back().partition != partitions[i]) chunk.extents.push_back({partitions[i], 0, 0});
    ++chunk.extents.back().rows;
  }
  chunk.batch = rows::MakeBatch({{"number", FromJson(arrow::int64(), "[" + numbers + "]")},
                                 {"text", FromJson(arrow::utf8(), "[" + texts + "]")}});
  return chunk;
}

uint64_t Digest(const std::vector<rows::ScatteredChunk>& chunks) { return PlacementDigest(chunks).ValueOrDie(); }

const Rows kRows = {{1, "\"a\""}, {2, "\"b\""}, {3, "null"}};

TEST(PlacementDigest, OrderAndCutsDoNotCount) {
  const uint64_t whole = Digest({Chunk(kRows, {0, 0, 1})});
  EXPECT_NE(whole, 0U);
  EXPECT_EQ(whole, Digest({Chunk({kRows[2]}, {1}), Chunk({kRows[1], kRows[0]}, {0, 0})}));
  EXPECT_EQ(whole, Digest({Chunk({kRows[0]}, {0})}) + Digest({Chunk({kRows[1], kRows[2]}, {0, 1})}));
}

TEST(PlacementDigest, EveryMoveAndEveryValueCounts) {
  const uint64_t whole = Digest({Chunk(kRows, {0, 0, 1})});
  EXPECT_NE(whole, Digest({Chunk(kRows, {0, 1, 1})})) << "a row in another partition";
  EXPECT_NE(whole, Digest({Chunk(kRows, {1, 1, 0})})) << "partitions swapped";
  EXPECT_NE(whole, Digest({Chunk({kRows[0], kRows[1]}, {0, 0})})) << "a row less";
  EXPECT_NE(whole, Digest({Chunk({kRows[0], kRows[0], kRows[2]}, {0, 0, 1})})) << "one lost, another doubled";
  EXPECT_NE(whole, Digest({Chunk({{1, "\"b\""}, {2, "\"a\""}, kRows[2]}, {0, 0, 1})})) << "values torn from their rows";
  EXPECT_NE(whole, Digest({Chunk({kRows[0], kRows[1], {3, "\"\""}}, {0, 0, 1})})) << "another value";
}

}  // namespace
}  // namespace sabot::shuffle

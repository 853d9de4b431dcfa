// Joining by one key: pairs come in the probing rows' order, a key's rows in the index's, whatever the chunks; nulls
// match nothing; what is left to Acero.
#include "sabot/native/operators/key_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "sabot/native/tests/rows_arrays.h"

namespace sabot::operators {
namespace {

using rows::ArrayPtr;
using rows::FromJson;
using rows::Moved;
using Keys = std::vector<std::optional<int64_t>>;
using Pairs = std::vector<std::pair<int32_t, int32_t>>;

std::unique_ptr<KeyIndex> Made(const arrow::ChunkedArray& keys) {
  return KeyIndex::Make(keys, arrow::default_memory_pool()).ValueOrDie();
}

arrow::ChunkedArray Chunked(const std::shared_ptr<arrow::DataType>& type, const std::vector<std::string>& chunks) {
  arrow::ArrayVector arrays;
  for (const std::string& chunk : chunks) arrays.push_back(Moved(FromJson(type, chunk)));
  return arrow::ChunkedArray(arrays, type);
}

Pairs PairsOf(const KeyMatches& matches) {
  const auto& indexed = static_cast<const arrow::Int32Array&>(*matches.indexed);
  Pairs pairs;
  for (int64_t i = 0; i < indexed.length(); ++i) {
    const int32_t probing = matches.probing == nullptr
                                ? static_cast<int32_t>(i)
                                : static_cast<const arrow::Int32Array&>(*matches.probing).Value(i);
    pairs.emplace_back(probing, indexed.Value(i));
  }
  return pairs;
}

Pairs Matched(const KeyIndex& index, const arrow::ChunkedArray& keys) {
  return PairsOf(index.Match(keys).ValueOrDie());
}

arrow::ChunkedArray InChunks(const Keys& keys, size_t chunk) {
  arrow::ArrayVector arrays;
  for (size_t start = 0; start < keys.size(); start += chunk) {
    arrow::Int64Builder builder;
    for (size_t row = start; row < std::min(keys.size(), start + chunk); ++row) {
      EXPECT_TRUE(builder.AppendOrNull(keys[row]).ok());
    }
    arrays.push_back(builder.Finish().ValueOrDie());
  }
  return arrow::ChunkedArray(arrays, arrow::int64());
}

/// What two loops over all rows find.
Pairs Expected(const Keys& probing, const Keys& indexed) {
  Pairs pairs;
  for (size_t row = 0; row < probing.size(); ++row) {
    for (size_t other = 0; other < indexed.size(); ++other) {
      if (probing[row] && probing[row] == indexed[other]) pairs.emplace_back(row, other);
    }
  }
  return pairs;
}

TEST(KeyIndex, RowsWithOneMatchEachAreNotNumbered) {
  const auto index = Made(Chunked(arrow::int32(), {"[5, 7]", "[9]"}));
  const auto matches = index->Match(Chunked(arrow::int32(), {"[9]", "[5, 9, 7]"})).ValueOrDie();
  EXPECT_EQ(matches.probing, nullptr);
  EXPECT_EQ(PairsOf(matches), (Pairs{{0, 2}, {1, 0}, {2, 2}, {3, 1}}));
}

TEST(KeyIndex, RowsOfAKeyComeInOrderWhateverTheChunks) {
  const auto index = Made(Chunked(arrow::int64(), {"[5, 7]", "[]", "[5, 9, 5]"}));
  const auto matches = index->Match(Chunked(arrow::int64(), {"[]", "[5]", "[8, 7, 5]"})).ValueOrDie();
  ASSERT_NE(matches.probing, nullptr);
  EXPECT_EQ(PairsOf(matches), (Pairs{{0, 0}, {0, 2}, {0, 4}, {2, 1}, {3, 0}, {3, 2}, {3, 4}}));
}

TEST(KeyIndex, NullsMatchNothingOnEitherSide) {
  const auto index = Made(Chunked(arrow::timestamp(arrow::TimeUnit::MICRO), {"[null, 3]", "[null, 4]"}));
  const auto keys = Chunked(arrow::timestamp(arrow::TimeUnit::MICRO), {"[null, 4, null]", "[3]"});
  EXPECT_EQ(Matched(*index, keys), (Pairs{{1, 3}, {3, 1}}));
}

TEST(KeyIndex, NoRowsOnOneSideOrOnBothMatchNothing) {
  const auto none = Chunked(arrow::int64(), {});
  const auto some = Chunked(arrow::int64(), {"[0, null, 1]"});
  EXPECT_TRUE(Matched(*Made(none), some).empty());
  EXPECT_TRUE(Matched(*Made(some), none).empty());
  EXPECT_TRUE(Matched(*Made(none), none).empty());
}

TEST(KeyIndex, AKeyOfMoreThanSixteenRowsAndTypesThatItDoesNotKnowAreLeftToAcero) {
  Keys keys(16, 3);
  EXPECT_NE(Made(InChunks(keys, 5)), nullptr);
  keys.emplace_back(3);
  EXPECT_EQ(Made(InChunks(keys, 5)), nullptr);
  EXPECT_EQ(Made(InChunks(Keys(17, std::nullopt), 5)), nullptr);
  EXPECT_EQ(Made(Chunked(arrow::utf8(), {R"(["a"])"})), nullptr);
  EXPECT_EQ(Made(Chunked(arrow::float64(), {"[1.5]"})), nullptr);
}

TEST(KeyIndex, AnyKeysMatchAsInTwoLoops) {
  for (const uint32_t seed : {1U, 2U, 3U, 4U, 5U, 6U, 7U, 8U}) {
    std::mt19937 random(seed);
    const auto drawn = [&random](size_t rows, int64_t range) {
      Keys keys(rows);
      for (auto& key : keys) {
        const auto number = static_cast<int64_t>(random() % static_cast<uint32_t>(range));
        if (number != 0) key = (number - range / 2) << 33;  // far apart, and of either sign
      }
      return keys;
    };
    const Keys indexed = drawn(300, 150), probing = drawn(500, 200);
    const auto index = Made(InChunks(indexed, 64));
    ASSERT_NE(index, nullptr) << "seed " << seed;
    EXPECT_EQ(Matched(*index, InChunks(probing, 77)), Expected(probing, indexed)) << "seed " << seed;
  }
}

TEST(KeyIndex, ThreadsMatchAtOnce) {
  Keys indexed(4000), probing(4000);
  for (size_t row = 0; row < indexed.size(); ++row) {
    indexed[row] = static_cast<int64_t>(row / 2);
    probing[row] = static_cast<int64_t>(row);
  }
  const auto index = Made(InChunks(indexed, 1000));
  const Pairs expected = Matched(*index, InChunks(probing, 1000));
  ASSERT_EQ(expected.size(), 4000U);
  std::vector<Pairs> found(4);
  {
    std::vector<std::jthread> threads;
    for (auto& pairs : found) {
      threads.emplace_back([&] { pairs = Matched(*index, InChunks(probing, 512)); });
    }
  }
  for (const auto& pairs : found) EXPECT_EQ(pairs, expected);
}

}  // namespace
}  // namespace sabot::operators

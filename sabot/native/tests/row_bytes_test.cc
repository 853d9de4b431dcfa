// Bytes of rows: the values' own, whatever slice, copy or longer array they lie in, so that counts add up.
#include "sabot/native/rows/row_bytes.h"

#include <gtest/gtest.h>

#include <vector>

#include "sabot/native/tests/rows_arrays.h"

namespace sabot::rows {
namespace {

int64_t BytesOfColumn(const ArrayPtr& array) { return BytesOfRows(*MakeBatch({{"x", array}})); }

TEST(RowBytes, AreWhatTheProtocolSaysOfEachTypeOfValue) {
  const std::vector<int64_t> expected = {
      0,                        // null
      4,                        // boolean, a byte a value
      4,                        // int8
      8,                        // uint16
      16,                       // float32
      32,                       // float64
      32,                       // timestamp
      64,                       // decimal128
      128,                      // decimal256
      64,                       // month_day_nano_interval
      12,                       // fixed_size_binary(3)
      4 * 4 + 1 + 37,           // utf8
      4 * 8 + 1 + 37,           // large_binary
      4 * 16 + 22 + 37,         // utf8_view: what does not lie in the view itself
      4 * 4 + 5 * 4,            // list of int32
      4 * 8 + 3 * 4 + 2,        // large_list of utf8
      4 * 8 + 5 * 4,            // list_view of int32
      4 * 16 + 3 * 16 + 22,     // large_list_view of utf8_view
      8,                        // fixed_size_list of two booleans
      4 * 4 + 3 * (4 + 1 + 8),  // map of utf8 to int64
      4 * 8 + 4 * 4 + 4 + 1,    // struct of int64 and list of utf8
  };
  const std::vector<ArrayPtr> arrays = OneOfEach();
  ASSERT_EQ(arrays.size(), expected.size());
  for (size_t i = 0; i < arrays.size(); ++i) {
    EXPECT_EQ(BytesOfColumn(arrays[i]), expected[i]) << arrays[i]->type()->ToString();
  }
}

TEST(RowBytes, DoNotDependOnWhereTheValuesLie) {
  for (const ArrayPtr& array : OneOfEach()) {
    const auto batch = MakeBatch({{"x", array}}), moved = MakeBatch({{"x", Moved(array)}});
    const int64_t bytes = BytesOfRows(*batch);
    EXPECT_EQ(BytesOfRows(*moved), bytes) << array->type()->ToString();
    EXPECT_EQ(BytesOfRows(*IpcCopy(moved)), bytes) << array->type()->ToString();
  }
}

TEST(RowBytes, AddUpOverEveryCut) {
  std::vector<std::pair<std::string, ArrayPtr>> columns;
  for (const ArrayPtr& array : OneOfEach()) columns.emplace_back("x", Moved(array));
  const auto batch = MakeBatch(columns);
  const RowBytes bytes(*batch);
  const int64_t all = BytesOfRows(*batch);
  for (int64_t first = 0; first <= 4; ++first) {
    for (int64_t second = first; second <= 4; ++second) {
      EXPECT_EQ(bytes.Of(0, first) + bytes.Of(first, second - first) + bytes.Of(second, 4 - second), all);
      EXPECT_EQ(BytesOfRows(*batch->Slice(first, second - first)), bytes.Of(first, second - first));
    }
  }
}

TEST(RowBytes, OfNoRowsAreNone) {
  for (const ArrayPtr& array : OneOfEach()) {
    const ArrayPtr empty = arrow::MakeEmptyArray(array->type()).ValueOrDie();
    EXPECT_EQ(BytesOfColumn(empty), 0) << array->type()->ToString();
    EXPECT_EQ(BytesOfColumn(array->Slice(4)), 0) << array->type()->ToString();
  }
  EXPECT_EQ(BytesOfRows(*MakeBatch({})), 0);
  // An array without values may have no offsets at all.
  const auto bare = arrow::MakeArray(arrow::ArrayData::Make(arrow::utf8(), 0, {nullptr, nullptr, nullptr}));
  EXPECT_EQ(BytesOfColumn(bare), 0);
}

TEST(RowBytes, OfANullListCountOnlyWhatItsOffsetsSpan) {
  // A view that is null may point anywhere: what it spans belongs to no row.
  const auto values = FromJson(arrow::int32(), "[1, 2, 3, 4]");
  const auto offsets = FromJson(arrow::int32(), "[0, 99]"), sizes = FromJson(arrow::int32(), "[2, 50]");
  const uint8_t valid = 0b01;
  const auto bitmap = arrow::Buffer::FromString(std::string(1, static_cast<char>(valid)));
  const auto views = arrow::MakeArray(
      arrow::ArrayData::Make(arrow::list_view(arrow::int32()), 2,
                             {bitmap, offsets->data()->buffers[1], sizes->data()->buffers[1]}, {values->data()}));
  EXPECT_EQ(BytesOfColumn(views), 2 * 8 + 2 * 4);
}

}  // namespace
}  // namespace sabot::rows

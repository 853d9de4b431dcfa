// Grouping by one key: keys are found again while the table of them grows, nulls are one key, sums are null without
// values.
#include "sabot/native/operators/group_rows.h"

#include <gtest/gtest.h>

#include <vector>

#include "sabot/native/tests/rows_arrays.h"

namespace sabot::operators {
namespace {

using rows::FromJson;

std::shared_ptr<arrow::Table> TableOf(const arrow::ArrayVector& columns) {
  return arrow::Table::Make(
      arrow::schema({arrow::field("k", columns[0]->type()), arrow::field("v", columns[1]->type())}), columns);
}

const std::vector<GroupAggregate> kTotals{{"sum", 1, "sum"}, {"count", 1, "count"}, {"count_all", -1, "all"}};

std::shared_ptr<arrow::Table> Grouped(const std::shared_ptr<arrow::Table>& table) {
  return GroupRows(table, 0, kTotals, arrow::default_memory_pool()).ValueOrDie();
}

TEST(GroupRows, NullsAreOneKeyAndAGroupWithoutValuesHasNoSum) {
  const auto table = TableOf({rows::Moved(FromJson(arrow::int32(), "[7, null, 8, 7, null]")),
                              rows::Moved(FromJson(arrow::int64(), "[1, 2, null, 3, 4]"))});
  const auto groups = Grouped(table);
  EXPECT_TRUE(groups->column(0)->chunk(0)->Equals(FromJson(arrow::int32(), "[7, null, 8]")));
  EXPECT_TRUE(groups->column(1)->chunk(0)->Equals(FromJson(arrow::int64(), "[4, 6, null]")));
  EXPECT_TRUE(groups->column(2)->chunk(0)->Equals(FromJson(arrow::int64(), "[2, 2, 0]")));
  EXPECT_TRUE(groups->column(3)->chunk(0)->Equals(FromJson(arrow::int64(), "[2, 2, 1]")));
}

TEST(GroupRows, KeysAreFoundAgainWhileTheTableOfThemGrows) {
  constexpr int64_t kKeys = 100'000;
  arrow::Int64Builder keys, values;
  for (int64_t row = 0; row < 3 * kKeys; ++row) {
    ASSERT_TRUE(keys.Append((row % kKeys) << 20).ok());
    ASSERT_TRUE(values.Append(row).ok());
  }
  const auto groups = Grouped(TableOf({keys.Finish().ValueOrDie(), values.Finish().ValueOrDie()}));
  ASSERT_EQ(groups->num_rows(), kKeys);
  const auto& found = static_cast<const arrow::Int64Array&>(*groups->column(0)->chunk(0));
  const auto& sums = static_cast<const arrow::Int64Array&>(*groups->column(1)->chunk(0));
  for (int64_t group = 0; group < kKeys; ++group) {
    ASSERT_EQ(found.Value(group), group << 20);
    ASSERT_EQ(sums.Value(group), 3 * group + 3 * kKeys);
  }
}

TEST(GroupRows, WhatItDoesNotKnowItLeavesAlone) {
  const auto texts = TableOf({FromJson(arrow::utf8(), "[]"), FromJson(arrow::int64(), "[]")});
  EXPECT_EQ(Grouped(texts), nullptr);
  const auto decimals = TableOf({FromJson(arrow::int64(), "[]"), FromJson(arrow::decimal128(9, 2), "[]")});
  EXPECT_EQ(Grouped(decimals), nullptr);
}

}  // namespace
}  // namespace sabot::operators

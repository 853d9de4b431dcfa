// Runs of rows with equal keys: where they end, what their aggregates are, and when nothing is given.
#include "sabot/native/rows/run_grouping.h"

#include <gtest/gtest.h>

#include <vector>

#include "sabot/native/tests/rows_arrays.h"

namespace sabot::rows {
namespace {

const std::vector<RunAggregate> kAll{{RunFunction::kSum, 1},
                                     {RunFunction::kCount, 1},
                                     {RunFunction::kCountAll, 0},
                                     {RunFunction::kMin, 1},
                                     {RunFunction::kMax, 1}};
constexpr RunRules kAnyRuns{.runs_max = 1000, .ascending = false};
constexpr RunRules kWholeGroups{.runs_max = 1000, .ascending = true};

BatchPtr Runs(const ArrayPtr& keys, const ArrayPtr& values, const RunRules& rules) {
  return GroupRuns(*MakeBatch({{"k", keys}, {"v", values}}), {0}, kAll, rules, arrow::default_memory_pool())
      .ValueOrDie();
}

TEST(RunGrouping, ARunEndsWithItsKeyAndNullsAreOneKey) {
  const auto runs = Runs(Moved(FromJson(arrow::int32(), "[7, 7, null, null, 7, 8]")),
                         Moved(FromJson(arrow::int16(), "[1, 2, null, null, 5, -6]")), kAnyRuns);
  EXPECT_TRUE(runs->column(0)->Equals(FromJson(arrow::int32(), "[7, null, 7, 8]")));
  EXPECT_TRUE(runs->column(1)->Equals(FromJson(arrow::int64(), "[3, null, 5, -6]")));
  EXPECT_TRUE(runs->column(2)->Equals(FromJson(arrow::int64(), "[2, 0, 1, 1]")));
  EXPECT_TRUE(runs->column(3)->Equals(FromJson(arrow::int64(), "[2, 2, 1, 1]")));
  EXPECT_TRUE(runs->column(4)->Equals(FromJson(arrow::int16(), "[1, null, 5, -6]")));
  EXPECT_TRUE(runs->column(5)->Equals(FromJson(arrow::int16(), "[2, null, 5, -6]")));
  ASSERT_TRUE(runs->ValidateFull().ok());
}

TEST(RunGrouping, DecimalsAreSummedInAllTheirDigits) {
  const auto runs =
      Runs(Moved(FromJson(arrow::int64(), "[1, 1, 2]")),
           Moved(FromJson(arrow::decimal128(20, 2), R"(["999999999999999999.99", "0.01", "-3.50"])")), kAnyRuns);
  EXPECT_TRUE(runs->column(1)->Equals(FromJson(arrow::decimal128(38, 2), R"(["1000000000000000000.00", "-3.50"])")));
  EXPECT_TRUE(runs->column(4)->Equals(FromJson(arrow::decimal128(20, 2), R"(["0.01", "-3.50"])")));
}

TEST(RunGrouping, OnlyAscendingKeysMakeWholeGroups) {
  const auto values = FromJson(arrow::float64(), "[1, 2, 3]");
  EXPECT_NE(Runs(FromJson(arrow::uint8(), "[1, 1, 200]"), values, kWholeGroups), nullptr);
  EXPECT_EQ(Runs(FromJson(arrow::uint8(), "[1, 2, 1]"), values, kWholeGroups), nullptr);
  EXPECT_EQ(Runs(FromJson(arrow::int8(), "[1, null, 2]"), values, kWholeGroups), nullptr);
  EXPECT_EQ(Runs(FromJson(arrow::int8(), "[-1, -2, 0]"), values, kWholeGroups), nullptr);
}

TEST(RunGrouping, MoreRunsThanWantedOrNoRowsGiveNothing) {
  const auto keys = FromJson(arrow::int64(), "[1, 2, 3]");
  const auto values = FromJson(arrow::float32(), "[1, null, 3]");
  EXPECT_EQ(Runs(keys, values, {.runs_max = 2, .ascending = false}), nullptr);
  EXPECT_NE(Runs(keys, values, {.runs_max = 3, .ascending = false}), nullptr);
  EXPECT_EQ(Runs(keys->Slice(0, 0), values->Slice(0, 0), kAnyRuns), nullptr);
}

}  // namespace
}  // namespace sabot::rows

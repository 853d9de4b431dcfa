// Steps and morsel runs without Python: what they keep, compute and report; hooks stand where Python would.
#include <arrow/array/builder_primitive.h>
#include <arrow/compute/expression.h>
#include <arrow/record_batch.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "sabot/native/operators/morsel_run.h"
#include "sabot/native/operators/step.h"
#include "sabot/native/slots/slot_pool.h"

namespace sabot::operators {
namespace {

namespace cp = arrow::compute;

Rows Numbers(const std::vector<std::optional<int64_t>>& values) {
  arrow::Int64Builder builder;
  for (const auto& value : values) {
    EXPECT_TRUE((value ? builder.Append(*value) : builder.AppendNull()).ok());
  }
  auto column = builder.Finish().ValueOrDie();
  const auto length = column->length();
  return arrow::RecordBatch::Make(arrow::schema({arrow::field("a", arrow::int64())}), length, {std::move(column)});
}

cp::Expression GreaterThan(int64_t bound) { return cp::call("greater", {cp::field_ref("a"), cp::literal(bound)}); }

TEST(Steps, FilterDropsWhereTheAnswerIsNull) {
  const auto kept = MakeFilter(GreaterThan(1))->Run(Numbers({1, 2, std::nullopt, 3}), {}).ValueOrDie();
  EXPECT_TRUE(kept->Equals(*Numbers({2, 3})));
}

TEST(Steps, FilterByALiteralKeepsAllOrNothing) {
  const Rows rows = Numbers({1, 2});
  EXPECT_TRUE(MakeFilter(cp::literal(true))->Run(rows, {}).ValueOrDie()->Equals(*rows));
  EXPECT_EQ(MakeFilter(cp::literal(false))->Run(rows, {}).ValueOrDie()->num_rows(), 0);
}

TEST(Steps, FilterThatIsNotBooleanIsATypeError) {
  EXPECT_TRUE(MakeFilter(cp::field_ref("a"))->Run(Numbers({1}), {}).status().IsTypeError());
}

TEST(Steps, AggregateInAnExpressionIsRefused) {
  const auto sum = cp::call("sum", {cp::field_ref("a")});
  EXPECT_FALSE(MakeProject({"s"}, {sum})->Run(Numbers({1}), {}).ok());
}

TEST(Steps, ProjectBroadcastsLiterals) {
  const auto step = MakeProject({"x", "one"}, {cp::field_ref("a"), cp::literal(int64_t{1})});
  const auto rows = step->Run(Numbers({5, std::nullopt}), {}).ValueOrDie();
  EXPECT_TRUE(rows->ValidateFull().ok());
  EXPECT_EQ(rows->schema()->field_names(), (std::vector<std::string>{"x", "one"}));
  EXPECT_TRUE(rows->column(1)->Equals(*Numbers({1, 1})->column(0)));
}

// Stands where a Python function would: raises for a batch whose first value is `fails_at`, gives none for 0.
struct Fake {
  int64_t fails_at;
  int held = 1;  // references, as Python would count them
};

std::atomic<int> entered{0};

const PythonHooks kFakeHooks = {
    [] { entered.fetch_add(1); },
    [](void* function, const Rows& rows, Rows* result, void** exception) {
      auto* fake = static_cast<Fake*>(function);
      const int64_t first = static_cast<const arrow::Int64Array&>(*rows->column(0)).Value(0);
      if (first == fake->fails_at) {
        ++fake->held;
        *exception = fake;
      } else if (first != 0) {
        *result = rows;
      }
    },
    [](void* object) { --static_cast<Fake*>(object)->held; },
};

TEST(Steps, CallGivesBackEveryReference) {
  entered.store(0);
  Fake fake{7};
  {
    const auto step = MakeCall(kFakeHooks, &fake);
    const auto failed = step->Run(Numbers({7}), {}).status();
    EXPECT_EQ(PythonException::Of(failed), &fake);
    EXPECT_EQ(step->Run(Numbers({0}), {}).ValueOrDie(), nullptr);
    EXPECT_EQ(PythonException::Of(arrow::Status::Invalid("another")), nullptr);
    EXPECT_EQ(fake.held, 2);
    EXPECT_EQ(entered.load(), 2);
  }
  EXPECT_EQ(fake.held, 0);
}

std::shared_ptr<MorselRun> RunOver(const Rows& rows, int64_t each, std::unique_ptr<Step> step) {
  auto steps = std::make_shared<Steps>();
  steps->push_back(std::move(step));
  auto run = std::make_shared<MorselRun>(steps);
  for (int64_t start = 0; start < rows->num_rows(); start += each) {
    run->Add({.batch = rows, .start_row = start, .num_rows = each, .partition_id = start});
  }
  return run;
}

TEST(MorselRun, OutcomesStandInTheOrderOfTheMorsels) {
  auto pool = slots::SlotPool::Make({.num_slots = 3});
  auto run = RunOver(Numbers({1, 2, 3, 4, 5, 6}), 2, MakeFilter(GreaterThan(3)));
  ASSERT_EQ(pool->Submit(run), slots::Outcome::kAccepted);
  while (!run->WaitFor(1'000)) continue;
  EXPECT_FALSE(run->failed());
  EXPECT_EQ(run->outcome(0).rows->num_rows(), 0);
  EXPECT_TRUE(run->outcome(1).rows->Equals(*Numbers({4})));
  EXPECT_TRUE(run->outcome(2).rows->Equals(*Numbers({5, 6})));
}

TEST(MorselRun, FirstFailureSkipsTheRestAndNamesItsMorsel) {
  auto pool = slots::SlotPool::Make({.num_slots = 1});
  Fake fake{3};
  auto run = RunOver(Numbers({1, 2, 3, 4, 5}), 1, MakeCall(kFakeHooks, &fake));
  int ends = 0;
  run->NotifyOnFinish([](void* context) { ++*static_cast<int*>(context); }, &ends);
  ASSERT_EQ(pool->Submit(run), slots::Outcome::kAccepted);
  while (!run->WaitFor(1'000)) continue;
  pool->Shutdown(/*drain=*/true);  // the notice follows the end that WaitFor sees
  EXPECT_EQ(ends, 1);
  ASSERT_TRUE(run->failed());
  EXPECT_EQ(run->failure().index, 2u);
  EXPECT_EQ(run->failure().slot_id, 0);
  EXPECT_EQ(run->skipped(), 2u);
  EXPECT_EQ(run->outcome(3).slot_id, -1);
}

TEST(MorselRun, LetsGoOfABatchWithItsLastMorsel) {
  auto pool = slots::SlotPool::Make({.num_slots = 2});
  Rows rows = Numbers({0, 0, 0});
  const std::weak_ptr<arrow::RecordBatch> watch = rows;
  Fake fake{7};
  auto run = RunOver(rows, 1, MakeCall(kFakeHooks, &fake));
  rows.reset();
  ASSERT_EQ(pool->Submit(run), slots::Outcome::kAccepted);
  while (!run->WaitFor(1'000)) continue;
  EXPECT_TRUE(watch.expired());
}

}  // namespace
}  // namespace sabot::operators

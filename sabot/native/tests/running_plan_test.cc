// Plans in the slots, as who waits for them sees them: their rows, their errors, and every way to end them early.
#include "sabot/native/operators/running_plan.h"

#include <arrow/acero/options.h>
#include <arrow/array/builder_primitive.h>
#include <arrow/compute/exec.h>
#include <arrow/compute/expression.h>
#include <arrow/compute/initialize.h>
#include <arrow/table.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <semaphore>
#include <thread>
#include <vector>

#include "sabot/native/status.h"
#include "sabot/native/tests/counting_run.h"

namespace sabot::operators {
namespace {

namespace ac = arrow::acero;
namespace cp = arrow::compute;

using slots::MakePool;
using slots::MakeRun;
using slots::SlotPool;

constexpr int64_t kWaitUs = 10'000;
constexpr int64_t kRows = 200'000;

/// Rows 0, step, 2 * step ... below kRows, in chunks, of which each is a task.
std::shared_ptr<arrow::Table> Numbers(const std::string& name, int64_t step, int64_t chunk_rows = 10'000) {
  arrow::ArrayVector chunks;
  arrow::Int64Builder builder;
  for (int64_t value = 0; value < kRows; value += step) {
    EXPECT_TRUE(builder.Append(value).ok());
    if (builder.length() == chunk_rows) chunks.push_back(builder.Finish().ValueOrDie());
  }
  chunks.push_back(builder.Finish().ValueOrDie());
  auto column = std::make_shared<arrow::ChunkedArray>(std::move(chunks));
  return arrow::Table::Make(arrow::schema({arrow::field(name, arrow::int64())}), {std::move(column)});
}

ac::Declaration Source(std::shared_ptr<arrow::Table> table) {
  return {"table_source", ac::TableSourceNodeOptions(std::move(table))};
}

ac::Declaration Join() {
  ac::HashJoinNodeOptions options({arrow::FieldRef("a")}, {arrow::FieldRef("b")});
  return {"hashjoin", {Source(Numbers("a", 1)), Source(Numbers("b", 4))}, std::move(options)};
}

ac::Declaration Project(ac::Declaration input, cp::Expression expression) {
  return ac::Declaration::Sequence({std::move(input), {"project", ac::ProjectNodeOptions({std::move(expression)})}});
}

/// A source that never ends by itself; what it gives is filtered away.
class Endless {
 public:
  ac::Declaration declaration() {
    arrow::Int64Builder builder;
    for (int64_t value = 0; value < 1'000; ++value) EXPECT_TRUE(builder.Append(value).ok());
    const arrow::Datum column(builder.Finish().ValueOrDie());
    const auto batches = batches_;
    auto generator = [column, batches] {
      batches->fetch_add(1);
      return arrow::Future<std::optional<cp::ExecBatch>>::MakeFinished(cp::ExecBatch({column}, 1'000));
    };
    const ac::SourceNodeOptions source(arrow::schema({arrow::field("a", arrow::int64())}), std::move(generator));
    const ac::FilterNodeOptions nothing(cp::call("less", {cp::field_ref("a"), cp::literal(int64_t{0})}));
    return ac::Declaration::Sequence({{"source", source}, {"filter", nothing}});
  }
  void WaitForBatches(int count) const {
    while (batches_->load() < count) std::this_thread::yield();
  }

 private:
  std::shared_ptr<std::atomic<int>> batches_ = std::make_shared<std::atomic<int>>(0);
};

class RunningPlanTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { ASSERT_TRUE(cp::Initialize().ok()); }

  std::unique_ptr<RunningPlan> Start(const ac::Declaration& declaration) {
    return RunningPlan::Start(declaration, {.pool = pool_, .threads_max = RunningPlan::ThreadsMax()}).ValueOrDie();
  }
  arrow::Result<std::shared_ptr<arrow::Table>> Run(const ac::Declaration& declaration) {
    const auto plan = Start(declaration);
    while (!plan->WaitFor(kWaitUs)) continue;
    return plan->result();
  }
  void ExpectIdle() const {
    EXPECT_EQ(pool_->queue_depth_approx(), 0);
    UntilAllParked(*pool_);
  }

  std::shared_ptr<SlotPool> pool_ = MakePool(3);
};

TEST_F(RunningPlanTest, GivesEveryRowOnce) {
  EXPECT_EQ(Run(Source(Numbers("a", 1))).ValueOrDie()->num_rows(), kRows);
  EXPECT_EQ(Run(Join()).ValueOrDie()->num_rows(), kRows / 4);
  EXPECT_GT(slots::Processed(*pool_), 20);  // in tasks, not in one go
  ExpectIdle();
}

TEST_F(RunningPlanTest, AnErrorEndsThePlan) {
  auto divided = cp::call("divide", {cp::literal(int64_t{1}), cp::field_ref("a")});
  const auto result = Run(Project(Source(Numbers("a", 1)), std::move(divided)));
  EXPECT_TRUE(result.status().IsInvalid()) << result.status();
  ExpectIdle();
}

TEST_F(RunningPlanTest, ADeclarationThatIsNoPlanIsRefused) {
  const SlotExecutor::Options options{.pool = pool_, .threads_max = 8};
  EXPECT_FALSE(RunningPlan::Start({"no such node", ac::ExecNodeOptions()}, options).ok());
  EXPECT_FALSE(RunningPlan::Start(Project(Source(Numbers("a", 1)), cp::field_ref("b")), options).ok());
}

TEST_F(RunningPlanTest, CancelEndsAPlanThatWouldNotEnd) {
  Endless endless;
  const auto plan = Start(endless.declaration());
  endless.WaitForBatches(100);
  EXPECT_FALSE(plan->WaitFor(1'000));
  plan->Cancel();
  while (!plan->WaitFor(kWaitUs)) continue;
  EXPECT_EQ(CodeOf(plan->result().status()), Code::kCancelled);
  ExpectIdle();
}

TEST_F(RunningPlanTest, CancelAtAnyMomentEndsAJoin) {
  for (int tasks = 0; tasks < 40; ++tasks) {
    const int64_t before = slots::Processed(*pool_);
    const auto plan = Start(Join());
    while (slots::Processed(*pool_) < before + tasks && !plan->WaitFor(100)) continue;
    plan->Cancel();
    while (!plan->WaitFor(kWaitUs)) continue;
    const auto result = plan->result();  // it may have ended before
    ASSERT_TRUE(result.ok() || CodeOf(result.status()) == Code::kCancelled) << result.status();
    if (result.ok()) ASSERT_EQ((*result)->num_rows(), kRows / 4);
  }
  ExpectIdle();
}

TEST_F(RunningPlanTest, DroppingAPlanLeavesNothingInTheSlots) {
  Endless endless;
  auto plan = Start(endless.declaration());
  endless.WaitForBatches(100);
  plan.reset();
  ExpectIdle();
}

TEST_F(RunningPlanTest, AShutdownThatSkipsEndsThePlanWithAdvice) {
  Endless endless;
  const auto plan = Start(endless.declaration());
  endless.WaitForBatches(100);
  std::jthread ending([&] { pool_->Shutdown(/*drain=*/false); });
  while (!plan->WaitFor(kWaitUs)) continue;
  EXPECT_EQ(CodeOf(plan->result().status()), Code::kUsage);
}

TEST_F(RunningPlanTest, ADrainingShutdownLetsThePlanEnd) {
  const auto plan = Start(Join());
  std::jthread draining([&] { pool_->Shutdown(/*drain=*/true); });
  while (!plan->WaitFor(kWaitUs)) continue;
  const auto result = plan->result();  // refused where it was shut down before the first task was queued
  if (result.ok()) {
    EXPECT_EQ((*result)->num_rows(), kRows / 4);
  } else {
    EXPECT_EQ(CodeOf(result.status()), Code::kUsage);
  }
}

TEST_F(RunningPlanTest, FromInsideASlotItWaitsForNoOther) {
  std::counting_semaphore<2> held{0};
  std::counting_semaphore<2> gate{0};
  auto others = MakeRun(2, [&](size_t, int) {
    held.release();
    gate.acquire();
  });
  pool_->Submit(others);
  held.acquire();
  held.acquire();
  int64_t rows = 0;
  auto nested = MakeRun(1, [&](size_t, int) { rows = Run(Join()).ValueOrDie()->num_rows(); });
  pool_->Submit(nested);
  nested->Wait();  // the other two slots are held until it has ended
  EXPECT_EQ(rows, kRows / 4);
  gate.release(2);
  others->Wait();
}

TEST_F(RunningPlanTest, ManyAtOnceEndOnFewSlots) {
  std::vector<std::jthread> callers;
  std::atomic<int> good{0};
  for (int c = 0; c < 8; ++c) {
    callers.emplace_back([&] {
      if (Run(Join()).ValueOrDie()->num_rows() == kRows / 4) good.fetch_add(1);
    });
  }
  callers.clear();
  EXPECT_EQ(good.load(), 8);
}

}  // namespace
}  // namespace sabot::operators

// Acero's executor over the slots: each task is run or told why not, once, whatever ends first.
#include "sabot/native/operators/slot_executor.h"

#include <arrow/status.h>
#include <arrow/util/cancel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <semaphore>
#include <set>
#include <thread>
#include <vector>

#include "sabot/native/status.h"
#include "sabot/native/tests/counting_run.h"

namespace sabot::operators {
namespace {

using slots::MakePool;
using slots::MakeRun;
using slots::SlotPool;

constexpr int64_t kSliceUs = 10'000;

std::shared_ptr<SlotExecutor> MakeExecutor(const std::shared_ptr<SlotPool>& pool, size_t threads_max = 64) {
  return SlotExecutor::Make({.pool = pool, .threads_max = threads_max});
}

/// What became of a number of tasks, and where.
class Tasks {
 public:
  explicit Tasks(size_t count) : ran_(count), told_(count) {}

  /// `tellable`: with a callback to be told why it does not run.
  arrow::Status Spawn(SlotExecutor& executor, size_t index, bool tellable = true,
                      arrow::StopToken token = arrow::StopToken::Unstoppable()) {
    arrow::internal::FnOnce<void(const arrow::Status&)> on_stop;
    if (tellable) {
      on_stop = [this, index](const arrow::Status& why) {
        {
          std::lock_guard lock(mutex_);
          why_ = why;
        }
        told_[index].fetch_add(1);
      };
    }
    return executor.Spawn(
        arrow::internal::TaskHints{}, [this, index] { Ran(index); }, std::move(token), std::move(on_stop));
  }

  bool EachAnsweredOnce() const {
    for (size_t i = 0; i < ran_.size(); ++i) {
      if (ran_[i].load() + told_[i].load() != 1) return false;
    }
    return true;
  }
  size_t ran() const { return Sum(ran_); }
  size_t told() const { return Sum(told_); }
  std::set<std::thread::id> threads() const {
    std::lock_guard lock(mutex_);
    return threads_;
  }
  arrow::Status why() const {
    std::lock_guard lock(mutex_);
    return why_;
  }

 private:
  void Ran(size_t index) {
    {
      std::lock_guard lock(mutex_);
      threads_.insert(std::this_thread::get_id());
    }
    ran_[index].fetch_add(1);
  }
  static size_t Sum(const std::vector<std::atomic<int>>& counts) {
    size_t sum = 0;
    for (const auto& count : counts) sum += count.load();
    return sum;
  }

  std::vector<std::atomic<int>> ran_;
  std::vector<std::atomic<int>> told_;
  mutable std::mutex mutex_;
  std::set<std::thread::id> threads_;
  arrow::Status why_;
};

/// Holds the pool's only slot until it is let go.
class HeldSlot {
 public:
  explicit HeldSlot(SlotPool& pool)
      : run_(MakeRun(1, [this](size_t, int) {
          entered_.release();
          gate_.acquire();
        })) {
    pool.Submit(run_);
    entered_.acquire();
  }
  ~HeldSlot() { LetGo(); }
  void LetGo() {
    if (!gone_) gate_.release();
    gone_ = true;
    run_->Wait();
  }

 private:
  std::binary_semaphore entered_{0};
  std::binary_semaphore gate_{0};
  bool gone_ = false;
  std::shared_ptr<slots::CountingRun> run_;
};

void WorkToTheEnd(SlotExecutor& executor) {
  executor.PlanFinished();
  while (!executor.Work(kSliceUs)) ASSERT_FALSE(executor.refused());
}

TEST(SlotExecutor, RunsEveryTaskOfManySpawnersOnceInTheSlots) {
  const std::shared_ptr<SlotPool> pool = MakePool(4);
  const auto executor = MakeExecutor(pool);
  Tasks tasks(4'000);
  std::vector<std::jthread> spawners;
  for (size_t s = 0; s < 4; ++s) {
    spawners.emplace_back([&, s] {
      for (size_t i = s; i < 4'000; i += 4) ASSERT_TRUE(tasks.Spawn(*executor, i, i % 2 == 0).ok());
    });
  }
  spawners.clear();
  WorkToTheEnd(*executor);
  EXPECT_TRUE(tasks.EachAnsweredOnce());
  EXPECT_EQ(tasks.ran(), 4'000u);
  EXPECT_FALSE(tasks.threads().contains(std::this_thread::get_id()));
  EXPECT_EQ(pool->queue_depth_approx(), 0);
}

TEST(SlotExecutor, TasksMaySpawnTasks) {
  const std::shared_ptr<SlotPool> pool = MakePool(2);
  const auto executor = MakeExecutor(pool);
  Tasks tasks(1'000);
  std::binary_semaphore ended{0};
  std::function<void(size_t)> next = [&](size_t index) {
    ASSERT_TRUE(tasks.Spawn(*executor, index).ok());
    if (index + 1 < 1'000) {
      ASSERT_TRUE(executor->Spawn([&next, index] { next(index + 1); }).ok());
    } else {
      ended.release();
    }
  };
  next(0);
  ended.acquire();
  WorkToTheEnd(*executor);
  EXPECT_TRUE(tasks.EachAnsweredOnce());
}

TEST(SlotExecutor, AtMostOneItemIsQueuedWhateverTheTasks) {
  const std::shared_ptr<SlotPool> pool = MakePool(1);
  const auto executor = MakeExecutor(pool);
  HeldSlot held(*pool);
  Tasks tasks(100);
  for (size_t i = 0; i < 100; ++i) ASSERT_TRUE(tasks.Spawn(*executor, i).ok());
  EXPECT_EQ(pool->queue_depth_approx(), 1);
  held.LetGo();
  WorkToTheEnd(*executor);
  EXPECT_EQ(tasks.ran(), 100u);
}

TEST(SlotExecutor, StopTellsTasksWhyAndLeavesTheOthersToTheWaitingThread) {
  const std::shared_ptr<SlotPool> pool = MakePool(1);
  const auto executor = MakeExecutor(pool);
  HeldSlot held(*pool);
  Tasks tasks(10);
  for (size_t i = 0; i < 10; ++i) ASSERT_TRUE(tasks.Spawn(*executor, i, i < 7).ok());
  executor->Stop(MakeStatus(Code::kCancelled, "first"));
  executor->Stop(MakeStatus(Code::kOther, "second"));
  WorkToTheEnd(*executor);  // while the slot is held: nothing may need it
  EXPECT_TRUE(tasks.EachAnsweredOnce());
  EXPECT_EQ(tasks.told(), 7u);
  EXPECT_EQ(tasks.threads(), std::set{std::this_thread::get_id()});
  EXPECT_EQ(CodeOf(tasks.why()), Code::kCancelled);
  EXPECT_EQ(pool->queue_depth_approx(), 0);
}

TEST(SlotExecutor, StopWhileSlotsWorkAnswersEveryTaskOnce) {
  for (int round = 0; round < 50; ++round) {
    const std::shared_ptr<SlotPool> pool = MakePool(3);
    const auto executor = MakeExecutor(pool);
    Tasks tasks(300);
    std::jthread spawner([&] {
      for (size_t i = 0; i < 300; ++i) ASSERT_TRUE(tasks.Spawn(*executor, i, i % 3 == 0).ok());
    });
    while (tasks.ran() < static_cast<size_t>(round)) std::this_thread::yield();
    executor->Stop(MakeStatus(Code::kCancelled, "stopped"));
    spawner.join();
    WorkToTheEnd(*executor);
    ASSERT_TRUE(tasks.EachAnsweredOnce());
  }
}

TEST(SlotExecutor, ATaskWhoseTokenWasStoppedIsToldInsteadOfRun) {
  const std::shared_ptr<SlotPool> pool = MakePool(1);
  const auto executor = MakeExecutor(pool);
  HeldSlot held(*pool);
  arrow::StopSource source;
  Tasks tasks(3);
  ASSERT_TRUE(tasks.Spawn(*executor, 0, true, source.token()).ok());
  ASSERT_TRUE(tasks.Spawn(*executor, 1).ok());
  ASSERT_TRUE(tasks.Spawn(*executor, 2, true, source.token()).ok());
  source.RequestStop(arrow::Status::Cancelled("by its token"));
  held.LetGo();
  WorkToTheEnd(*executor);
  EXPECT_TRUE(tasks.EachAnsweredOnce());
  EXPECT_EQ(tasks.ran(), 1u);
  EXPECT_EQ(tasks.why().message(), "by its token");
}

TEST(SlotExecutor, TasksQueuedAtAShutdownAreAnsweredOnceStopped) {
  const std::shared_ptr<SlotPool> pool = MakePool(1);
  const auto executor = MakeExecutor(pool);
  Tasks tasks(20);
  std::jthread ending;
  {
    HeldSlot held(*pool);
    for (size_t i = 0; i < 10; ++i) ASSERT_TRUE(tasks.Spawn(*executor, i, i % 2 == 0).ok());
    EXPECT_FALSE(executor->refused());
    ending = std::jthread([&] { pool->Shutdown(/*drain=*/false); });
    while (!executor->refused()) executor->Work(kSliceUs);
  }
  ending.join();
  for (size_t i = 10; i < 20; ++i) ASSERT_TRUE(tasks.Spawn(*executor, i, i % 2 == 0).ok());
  EXPECT_EQ(tasks.ran() + tasks.told(), 0u);
  executor->Stop(MakeStatus(Code::kUsage, "shut down"));
  WorkToTheEnd(*executor);
  EXPECT_TRUE(tasks.EachAnsweredOnce());
  EXPECT_EQ(tasks.told(), 10u);
}

TEST(SlotExecutor, ADrainingPoolRunsWhatItsTasksSpawn) {
  const std::shared_ptr<SlotPool> pool = MakePool(1);
  const auto executor = MakeExecutor(pool);
  Tasks tasks(50);
  std::binary_semaphore gate{0};
  ASSERT_TRUE(executor
                  ->Spawn([&] {
                    gate.acquire();
                    for (size_t i = 0; i < 50; ++i) ASSERT_TRUE(tasks.Spawn(*executor, i).ok());
                  })
                  .ok());
  std::jthread draining([&] { pool->Shutdown(/*drain=*/true); });
  while (pool->Submit(MakeRun(0)) == slots::Outcome::kAccepted) std::this_thread::yield();
  gate.release();
  draining.join();
  WorkToTheEnd(*executor);
  EXPECT_EQ(tasks.ran(), 50u);
}

TEST(SlotExecutor, MadeInASlotItRunsAllInThatSlotWhileTheOthersAreHeld) {
  const std::shared_ptr<SlotPool> pool = MakePool(2);
  HeldSlot held(*pool);
  Tasks tasks(200);
  std::thread::id slot;
  auto nested = MakeRun(1, [&](size_t, int) {
    slot = std::this_thread::get_id();
    const auto executor = MakeExecutor(pool);
    EXPECT_EQ(executor->GetCapacity(), 1);
    std::jthread elsewhere([&] {  // as an I/O thread would
      for (size_t i = 0; i < 100; ++i) ASSERT_TRUE(tasks.Spawn(*executor, i).ok());
      EXPECT_FALSE(executor->OwnsThisThread());
    });
    for (size_t i = 100; i < 200; ++i) ASSERT_TRUE(tasks.Spawn(*executor, i).ok());
    EXPECT_TRUE(executor->OwnsThisThread());
    elsewhere.join();
    WorkToTheEnd(*executor);
  });
  pool->Submit(nested);
  nested->Wait();
  EXPECT_TRUE(tasks.EachAnsweredOnce());
  EXPECT_EQ(tasks.threads(), std::set{slot});
}

TEST(SlotExecutor, NoMoreThreadsThanItMayHaveRunItsTasks) {
  for (const size_t threads_max : {1, 2, 3}) {
    const std::shared_ptr<SlotPool> pool = MakePool(6);
    const auto executor = MakeExecutor(pool, threads_max);
    Tasks tasks(1'000);
    std::jthread spawner([&] {
      for (size_t i = 0; i < 1'000; ++i) ASSERT_TRUE(tasks.Spawn(*executor, i).ok());
      executor->PlanFinished();
    });
    while (!executor->Work(kSliceUs)) continue;
    EXPECT_EQ(tasks.ran(), 1'000u);
    EXPECT_LE(tasks.threads().size(), threads_max);
  }
}

}  // namespace
}  // namespace sabot::operators

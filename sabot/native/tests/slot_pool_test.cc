// The slot pool at work: each item run or skipped exactly once, no wake-up lost, fair turns.
#include "sabot/native/slots/slot_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <semaphore>
#include <set>
#include <thread>
#include <vector>

#include "sabot/native/tests/counting_run.h"

namespace sabot::slots {
namespace {

TEST(SlotPool, MakeRefusesOptionsOutOfRange) {
  EXPECT_EQ(MakePool(-1), nullptr);
  EXPECT_EQ(MakePool(SlotPool::kSlotsMax + 1), nullptr);
  EXPECT_EQ(MakePool(1, 3), nullptr);
  EXPECT_EQ(MakePool(1, 1), nullptr);
}

TEST(SlotPool, ZeroSlotsMeansOnePerCore) {
  EXPECT_EQ(MakePool(0)->num_slots(), static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
}

TEST(SlotPool, RunsEveryItemOnce) {
  auto pool = MakePool(4);
  auto run = MakeRun(1'000);
  ASSERT_EQ(pool->Submit(run), Outcome::kAccepted);
  EXPECT_TRUE(run->EndedOnce());
  EXPECT_EQ(run->ran(), 1'000u);
}

TEST(SlotPool, RunWithoutItemsFinishesAtOnce) {
  auto pool = MakePool(1);
  auto run = MakeRun(0);
  ASSERT_EQ(pool->Submit(run), Outcome::kAccepted);
  EXPECT_EQ(run->finished(), 1);
}

TEST(SlotPool, SecondSubmitOfARunIsRefused) {
  auto pool = MakePool(1);
  auto run = MakeRun(3);
  ASSERT_EQ(pool->Submit(run), Outcome::kAccepted);
  EXPECT_EQ(pool->Submit(run), Outcome::kInvalid);
  EXPECT_EQ(pool->Submit(nullptr), Outcome::kInvalid);
  EXPECT_TRUE(run->EndedOnce());
}

TEST(SlotPool, CountersIncludeEveryItemWhenTheRunFinishes) {
  auto pool = MakePool(3);
  for (int round = 0; round < 200; ++round) {
    const int64_t before = Processed(*pool);
    auto run = MakeRun(7, {}, Source::kNetwork);
    int64_t seen = -1;
    run->on_finished = [&] { seen = Processed(*pool); };
    ASSERT_EQ(pool->Submit(run), Outcome::kAccepted);
    run->Wait();
    ASSERT_EQ(seen, before + 7);
    ASSERT_EQ(pool->queue_depth_approx(), 0);
  }
  for (const SlotStats& slot : pool->stats()) EXPECT_EQ(slot.network_morsels, slot.morsels_processed);
}

TEST(SlotPool, LetsGoOfARunAfterItsLastItem) {
  auto pool = MakePool(2);
  auto run = MakeRun(10);
  const std::weak_ptr<CountingRun> watch = run;
  ASSERT_EQ(pool->Submit(run), Outcome::kAccepted);
  run->Wait();
  run.reset();
  UntilAllParked(*pool);
  EXPECT_TRUE(watch.expired());
}

TEST(SlotPool, RunsTakeTurnsItemByItem) {
  auto pool = MakePool(1);
  std::binary_semaphore gate{0};
  auto blocker = MakeRun(1, [&](size_t, int) { gate.acquire(); });
  std::vector<int> order;  // one slot: written by one thread, read after the end
  auto first = MakeRun(3, [&](size_t, int) { order.push_back(1); });
  auto second = MakeRun(3, [&](size_t, int) { order.push_back(2); });
  pool->Submit(blocker);
  pool->Submit(first);
  pool->Submit(second);
  gate.release();
  first->Wait();
  second->Wait();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 1, 2, 1, 2}));
}

TEST(SlotPool, MoreRunsThanTheRingHasCellsAllEndInTurn) {
  auto pool = MakePool(1, 2);
  std::binary_semaphore gate{0};
  auto blocker = MakeRun(1, [&](size_t, int) { gate.acquire(); });
  pool->Submit(blocker);
  std::vector<size_t> order;
  std::vector<std::shared_ptr<CountingRun>> runs;
  for (size_t r = 0; r < 50; ++r) {
    runs.push_back(MakeRun(2, [&order, r](size_t, int) { order.push_back(r); }));
    ASSERT_EQ(pool->Submit(runs.back()), Outcome::kAccepted);
  }
  gate.release();
  for (auto& run : runs) ASSERT_TRUE(run->EndedOnce());
  for (size_t i = 0; i < order.size(); ++i) ASSERT_EQ(order[i], i % 50) << "item " << i;
}

TEST(SlotPool, NoWakeUpIsLost) {
  auto pool = MakePool(3, 2);
  for (int round = 0; round < 3'000; ++round) {
    // Every other round the submits race with the slots' way to sleep.
    if (round % 2 == 0) UntilAllParked(*pool);
    auto a = MakeRun(1);
    auto b = MakeRun(2);
    pool->Submit(a);
    pool->Submit(b);
    a->Wait();
    b->Wait();
  }
}

TEST(SlotPool, WorkThatComesWhileTheOnlySlotGoesToSleepIsSeen) {
  auto pool = MakePool(1);
  std::vector<std::shared_ptr<CountingRun>> runs;
  for (int round = 0; round < 50'000; ++round) runs.push_back(MakeRun(1));
  for (int round = 0; auto& run : runs) {
    pool->Submit(run);
    while (run->finished() == 0) continue;  // not Wait(): the next Submit must meet the slot on its way to sleep
    for (int pause = ++round % 512; pause > 0; --pause) (void)run->finished();
  }
}

TEST(SlotPool, EverySlotWorksWhenThereIsWorkForEach) {
  constexpr int kSlots = 6;
  auto pool = MakePool(kSlots);
  for (int round = 0; round < 100; ++round) {
    if (round % 2 == 0) UntilAllParked(*pool);
    std::latch all_in(kSlots);  // passes only when every slot holds an item at once: a lost wake-up hangs here
    auto run = MakeRun(kSlots, [&](size_t, int) { all_in.arrive_and_wait(); });
    pool->Submit(run);
    ASSERT_TRUE(run->EndedOnce());
  }
}

TEST(SlotPool, ManySubmittersAtOnceLoseNothing) {
  auto pool = MakePool(3, 2);
  std::vector<std::jthread> callers;
  std::atomic<int> bad{0};
  for (int c = 0; c < 6; ++c) {
    callers.emplace_back([&, c] {
      for (int round = 0; round < 200; ++round) {
        auto run = MakeRun(1 + (round + c) % 5);
        if (pool->Submit(run) != Outcome::kAccepted || !run->EndedOnce() || run->skipped() > 0) bad.fetch_add(1);
      }
    });
  }
  callers.clear();
  EXPECT_EQ(bad.load(), 0);
}

TEST(SlotPool, SubmitFromASlotRunsThereBeforeItReturns) {
  auto pool = MakePool(1);
  std::set<int> slots;
  bool inside = false;
  auto inner = MakeRun(5, [&](size_t, int slot_id) { slots.insert(slot_id); });
  auto empty = MakeRun(0);
  auto outer = MakeRun(1, [&](size_t, int slot_id) {
    inside = pool->on_slot_thread();
    pool->Submit(inner);
    pool->Submit(empty);
    EXPECT_EQ(inner->finished(), 1);
    EXPECT_EQ(empty->finished(), 1);
    slots.insert(slot_id);
  });
  pool->Submit(outer);
  outer->Wait();
  EXPECT_TRUE(inside);
  EXPECT_FALSE(pool->on_slot_thread());
  EXPECT_EQ(slots, std::set<int>{0});
  EXPECT_EQ(Processed(*pool), 6);
}

TEST(SlotPool, CancelSkipsWhatHasNotStartedAndNothingElse) {
  auto pool = MakePool(1);
  std::binary_semaphore started{0};
  std::binary_semaphore gate{0};
  auto cancelled = MakeRun(10, [&](size_t, int) {
    started.release();
    gate.acquire();
  });
  auto other = MakeRun(10);
  pool->Submit(cancelled);
  pool->Submit(other);
  started.acquire();
  pool->Cancel(cancelled);
  EXPECT_EQ(cancelled->skipped(), 9u);
  EXPECT_EQ(cancelled->finished(), 0);
  gate.release();
  EXPECT_TRUE(cancelled->EndedOnce());
  EXPECT_TRUE(other->EndedOnce());
  EXPECT_EQ(other->ran(), 10u);
  pool->Cancel(cancelled);  // a finished Run is left alone
  EXPECT_TRUE(cancelled->EndedOnce());
}

TEST(SlotPool, CancelOfAWaitingRunFinishesItInTheCaller) {
  auto pool = MakePool(1);
  std::binary_semaphore gate{0};
  auto blocker = MakeRun(1, [&](size_t, int) { gate.acquire(); });
  auto run = MakeRun(4);
  pool->Submit(blocker);
  pool->Submit(run);
  pool->Cancel(run);
  EXPECT_EQ(run->finished(), 1);
  EXPECT_EQ(run->skipped(), 4u);
  gate.release();
  EXPECT_TRUE(blocker->EndedOnce());
}

TEST(SlotPool, RunThatFailsSkipsItsOwnRest) {
  auto pool = MakePool(1);
  auto run = MakeRun(10);
  run->FailAt(2);
  pool->Submit(run);
  EXPECT_TRUE(run->EndedOnce());
  EXPECT_EQ(run->ran(), 3u);
  EXPECT_EQ(pool->queue_depth_approx(), 0);
}

TEST(SlotPool, CancelRacingWithTheSlotsLeavesNoItemOut) {
  auto pool = MakePool(3);
  for (int round = 0; round < 500; ++round) {
    auto run = MakeRun(20);
    std::jthread canceller([&] { pool->Cancel(run); });
    pool->Submit(run);
    pool->Cancel(run);
    ASSERT_TRUE(run->EndedOnce());
  }
}

}  // namespace
}  // namespace sabot::slots

// What slots do for each other and jobs to each other: stealing, narrow starts, wake-ups, shares; and what happens
// without each of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <latch>
#include <limits>
#include <semaphore>
#include <thread>
#include <vector>

#include "sabot/native/slots/slot_pool.h"
#include "sabot/native/tests/counting_run.h"

namespace sabot::slots {
namespace {

using Clock = std::chrono::steady_clock;

int64_t Stolen(const SlotPool& pool) {
  int64_t sum = 0;
  for (const SlotStats& slot : pool.stats()) sum += slot.stolen_morsels;
  return sum;
}

/// A thousand short items, of which one stays until the others have run or the other slot has nothing left to do; how
/// many had run when it went on. A slot is dealt many short ones at once, so some wait behind the one that stays.
size_t RunWithOneThatStays(SlotPool& pool) {
  std::atomic<size_t> ran{0};
  size_t seen = 0;
  auto run = MakeRun(1'000, [&](size_t index, int) {
    if (index == 500) {
      while (ran.load() < 999 && pool.parked_slots_approx() == 0) std::this_thread::yield();
      seen = ran.load();
    }
    ran.fetch_add(1);
  });
  pool.Submit(run);
  EXPECT_TRUE(run->EndedOnce());
  return seen;
}

TEST(SlotPoolSharing, IdleSlotsStealWhatWaitsBehindALongItem) {
  const auto pool = SlotPool::Make({.num_slots = 2});
  // Rarely the item that stays is the last that its slot was dealt: then there is nothing to steal.
  for (int round = 0; round < 50 && Stolen(*pool) == 0; ++round) {
    std::atomic<size_t> ran{0};
    std::atomic<int> inside{0};
    auto run = MakeRun(1'000, [&](size_t index, int) {
      if (index < 2) {  // both slots are awake from here on
        inside.fetch_add(1);
        while (inside.load() < 2) std::this_thread::yield();
      }
      while (index == 500 && ran.load() < 999) std::this_thread::yield();  // without stealing: for ever
      ran.fetch_add(1);
    });
    pool->Submit(run);
    ASSERT_TRUE(run->EndedOnce());
  }
  EXPECT_GT(Stolen(*pool), 0);
}

TEST(SlotPoolSharing, WithoutStealingItemsWaitBehindALongOne) {
  const auto pool = SlotPool::Make({.num_slots = 2, .steal = false});
  size_t fewest = 999;
  for (int round = 0; round < 20 && fewest == 999; ++round) {
    UntilAllParked(*pool);
    fewest = std::min(fewest, RunWithOneThatStays(*pool));
  }
  EXPECT_LT(fewest, 999u);
  EXPECT_EQ(Stolen(*pool), 0);
}

/// The most slots that were inside an item at once.
int MostAtOnce(SlotPool& pool, bool narrow, int64_t item_us) {
  std::atomic<int> inside{0};
  std::atomic<int> most{0};
  auto run = MakeRun(400, [&](size_t, int) {
    const int now = inside.fetch_add(1) + 1;
    for (int seen = most.load(); seen < now && !most.compare_exchange_weak(seen, now);) continue;
    const auto end = Clock::now() + std::chrono::microseconds(item_us);
    while (Clock::now() < end) std::this_thread::yield();
    inside.fetch_sub(1);
  });
  run->narrow = narrow;
  pool.Submit(run);
  EXPECT_TRUE(run->EndedOnce());
  return most.load();
}

TEST(SlotPoolSharing, LongItemsOfANarrowRunBringInTheOtherSlots) {
  const auto pool = SlotPool::Make({.num_slots = 3});
  EXPECT_GT(MostAtOnce(*pool, true, 500), 1);
  EXPECT_GT(MostAtOnce(*pool, false, 500), 1);
}

TEST(SlotPoolSharing, NarrowRunIsOneSlotsUntilItIsWidened) {
  const auto pool = SlotPool::Make({.num_slots = 3});
  std::latch all_in(3);
  std::binary_semaphore first_in{0};
  auto run = MakeRun(3, [&](size_t index, int) {
    if (index == 0) first_in.release();
    all_in.arrive_and_wait();
  });
  run->narrow = true;
  pool->Submit(run);
  first_in.acquire();
  while (pool->parked_slots_approx() < 2) std::this_thread::yield();  // the others have found nothing to do
  EXPECT_EQ(pool->queue_depth_approx(), 2);
  pool->Widen(run);
  EXPECT_TRUE(run->EndedOnce());
  pool->Widen(run);  // a finished Run is left alone
}

TEST(SlotPoolSharing, WithoutWakingParkedSlotsSleepOverWork) {
  const auto pool = SlotPool::Make({.num_slots = 2, .wake = false});
  UntilAllParked(*pool);
  auto run = MakeRun(5);
  pool->Submit(run);
  EXPECT_EQ(pool->parked_slots_approx(), 2);
  EXPECT_EQ(pool->queue_depth_approx(), 5);
  EXPECT_EQ(run->finished(), 0);
  pool->Shutdown(/*drain=*/true);
  EXPECT_EQ(run->ran(), 5u);
}

/// The part of the slot time that job "one" (weight 1, long items) got next to job "three" (weight 3, short ones). An
/// item's time is from the end of the last one to its own: what the slot does between them, it does for it.
double ShareOfOne(bool fair) {
  const auto pool = SlotPool::Make({.num_slots = 1, .fair = fair});
  std::binary_semaphore gate{0};
  auto blocker = MakeRun(1, [&](size_t, int) { gate.acquire(); });
  pool->Submit(blocker);
  std::atomic<bool> stop{false};
  int64_t used[2] = {};  // one slot: written by one thread, as the next
  auto last_end = Clock::time_point{};
  const auto job = [&](int which, int64_t item_us) {
    return MakeRun(1'000'000, [&, which, item_us](size_t, int) {
      if (stop.load(std::memory_order_relaxed)) return;
      const auto start = Clock::now();
      while (Clock::now() - start < std::chrono::microseconds(item_us)) continue;
      const auto end = Clock::now();
      used[which] += (end - (last_end == Clock::time_point{} ? start : last_end)).count();
      last_end = end;
      if (used[0] + used[1] > 400'000'000) stop.store(true, std::memory_order_relaxed);
    });
  };
  auto one = job(0, 3'000);
  auto three = job(1, 20);
  pool->Submit(one, {"one", 1.0});
  pool->Submit(three, {"three", 3.0});
  gate.release();
  while (!stop.load()) std::this_thread::yield();
  pool->Cancel(one);
  pool->Cancel(three);
  EXPECT_TRUE(one->EndedOnce());
  EXPECT_TRUE(three->EndedOnce());
  return static_cast<double>(used[0]) / static_cast<double>(used[0] + used[1]);
}

TEST(SlotPoolSharing, WeightsOneAndThreeGetAQuarterAndThreeQuartersOfTheTime) {
  std::vector<double> shares;  // the median of three: what else the machine does may stop the slot for a while in one
  for (int round = 0; round < 3; ++round) shares.push_back(ShareOfOne(/*fair=*/true));
  std::nth_element(shares.begin(), shares.begin() + 1, shares.end());
  EXPECT_NEAR(shares[1], 0.25, 0.05);
}

TEST(SlotPoolSharing, WithoutFairnessLongItemsGetTheTime) { EXPECT_GT(ShareOfOne(/*fair=*/false), 0.5); }

/// How many items of a job, which were short and now take long, still run before another job that has come in between.
int LongItemsBeforeAnotherJob(bool fair) {
  constexpr size_t kTurnsLong = 10'000;
  const auto pool = SlotPool::Make({.num_slots = 1, .fair = fair});
  std::binary_semaphore turned{0};
  std::binary_semaphore submitted{0};
  std::atomic<bool> other_ran{false};
  int before = 0;  // one slot: written by one thread
  auto run = MakeRun(2 * kTurnsLong, [&](size_t index, int) {
    if (index == kTurnsLong) {
      turned.release();
      submitted.acquire();
    }
    if (index < kTurnsLong || other_ran.load() || before == 50) return;
    ++before;
    const auto end = Clock::now() + std::chrono::microseconds(200);
    while (Clock::now() < end) continue;
  });
  auto other = MakeRun(1, [&](size_t, int) { other_ran.store(true); });
  pool->Submit(run, {"long", 1.0});
  turned.acquire();
  pool->Submit(other, {"other", 1.0});
  submitted.release();
  EXPECT_TRUE(run->EndedOnce());
  EXPECT_TRUE(other->EndedOnce());
  return before;
}

TEST(SlotPoolSharing, ItemsThatTurnOutLongDoNotKeepAnotherJobWaitingForTheirLease) {
  EXPECT_LE(LongItemsBeforeAnotherJob(/*fair=*/true), 2);
}

TEST(SlotPoolSharing, WithoutFairnessAnotherJobWaitsForTheWholeLease) {
  int most = 0;  // now and then the item that turns long is the last of its lease
  for (int round = 0; round < 10 && most <= 2; ++round) most = std::max(most, LongItemsBeforeAnotherJob(false));
  EXPECT_GT(most, 2);
}

TEST(SlotPoolSharing, WeightOutOfRangeIsRefused) {
  auto pool = MakePool(1);
  for (const double weight : {0.0, -1.0, 1e-9, 1e9, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_EQ(pool->Submit(MakeRun(1), {"job", weight}), Outcome::kInvalid) << weight;
  }
}

TEST(SlotPoolSharing, ItemsAreCountedBeforeTheyAreShown) {
  auto pool = MakePool(1);
  auto run = MakeRun(100);
  int64_t shown = 0;
  run->on_counted = [&](size_t) { EXPECT_EQ(Processed(*pool), ++shown); };
  pool->Submit(run);
  EXPECT_TRUE(run->EndedOnce());
  EXPECT_EQ(shown, 100);
}

}  // namespace
}  // namespace sabot::slots

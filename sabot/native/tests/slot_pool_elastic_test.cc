// Slots that come and go, and the end of a pool: no item is lost or run twice, and every caller gets an answer.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>
#include <semaphore>
#include <string>
#include <thread>
#include <vector>

#include "sabot/native/slots/slot_pool.h"
#include "sabot/native/tests/counting_run.h"

namespace sabot::slots {
namespace {

TEST(SlotPoolElastic, SlotsComeAndGoWhileWorkRuns) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  auto pool = MakePool(2, 4);
  std::atomic<bool> stop{false};
  std::atomic<int> bad{0};
  std::vector<std::jthread> callers;
  for (int c = 0; c < 2; ++c) {
    callers.emplace_back([&] {
      while (!stop.load()) {
        auto run = MakeRun(50);
        if (pool->Submit(run) != Outcome::kAccepted || !run->EndedOnce() || run->ran() != 50) bad.fetch_add(1);
      }
    });
  }
  std::mt19937 random(seed);
  for (int step = 0; step < 300; ++step) {
    if (random() % 2 == 0) {
      if (pool->num_slots() >= 6) continue;
      ASSERT_EQ(pool->AddSlots(1 + random() % 2), Outcome::kAccepted);
    } else if (pool->num_slots() > 1) {
      ASSERT_EQ(pool->RemoveSlots(1), Outcome::kAccepted);
    }
  }
  stop.store(true);
  callers.clear();
  EXPECT_EQ(bad.load(), 0);
}

TEST(SlotPoolElastic, ShutdownComesBackAtItsDeadlineAndCanBeCarriedToItsEnd) {
  auto pool = MakePool(1);
  std::binary_semaphore entered{0};
  std::binary_semaphore released{0};
  auto held = MakeRun(1, [&](size_t, int) {
    entered.release();
    released.acquire();
  });
  auto waiting = MakeRun(3);
  pool->Submit(held);
  entered.acquire();
  pool->Submit(waiting);
  const auto soon = [] { return std::chrono::steady_clock::now() + std::chrono::milliseconds(20); };
  EXPECT_EQ(pool->Shutdown(/*drain=*/true, soon()), Outcome::kBusy);
  EXPECT_EQ(waiting->skipped(), 0);
  EXPECT_EQ(pool->Submit(MakeRun(1)), Outcome::kShutDown);
  EXPECT_EQ(pool->AddSlots(1), Outcome::kShutDown);
  EXPECT_EQ(pool->Shutdown(/*drain=*/false, soon()), Outcome::kBusy);
  EXPECT_EQ(waiting->skipped(), 3);
  EXPECT_EQ(pool->num_slots(), 1);
  released.release();
  EXPECT_EQ(pool->Shutdown(/*drain=*/true), Outcome::kAccepted);
  EXPECT_EQ(pool->num_slots(), 0);
  EXPECT_TRUE(held->EndedOnce());
}

TEST(SlotPoolElastic, ShutdownWithoutDrainSkipsTheRestOfANarrowRun) {
  auto pool = MakePool(2);
  std::binary_semaphore entered{0};
  std::binary_semaphore released{0};
  auto run = MakeRun(100, [&](size_t, int) {
    entered.release();
    released.acquire();
  });
  run->narrow = true;
  pool->Submit(run);
  entered.acquire();
  EXPECT_EQ(pool->Shutdown(/*drain=*/false, std::chrono::steady_clock::now()), Outcome::kBusy);
  released.release();
  EXPECT_EQ(pool->Shutdown(/*drain=*/true), Outcome::kAccepted);
  EXPECT_EQ(run->ran(), 1u);
  EXPECT_EQ(run->skipped(), 99u);
  EXPECT_TRUE(run->EndedOnce());
}

// The slot that is being removed is the last one to have work when the pool drains.
void DrainWhileTheSlotWithTheWorkIsRemoved(bool narrow) {
  for (bool met = false; !met;) {
    auto pool = MakePool(2);
    std::binary_semaphore entered{0};
    std::binary_semaphore released{0};
    std::atomic<int> slot{-1};
    auto queued = MakeRun(1);
    queued->queued = true;
    auto run = MakeRun(narrow ? 10 : 1, [&](size_t index, int slot_id) {
      if (index != 0) return;
      slot.store(slot_id);
      entered.release();
      released.acquire();
      if (!narrow) pool->Submit(queued);
    });
    run->narrow = narrow;
    pool->Submit(run);
    entered.acquire();
    met = slot.load() == 1;  // the one that RemoveSlots takes
    {
      std::jthread remover([&] { pool->RemoveSlots(1); });
      while (pool->num_slots() == 2) std::this_thread::yield();
      std::jthread closer([&] { pool->Shutdown(/*drain=*/true); });
      while (pool->Submit(MakeRun(1)) == Outcome::kAccepted) std::this_thread::yield();
      while (pool->parked_slots_approx() > 0) std::this_thread::yield();
      released.release();
    }
    EXPECT_TRUE(run->EndedOnce());
    EXPECT_EQ(run->ran(), run->item_count());
    if (!narrow) EXPECT_EQ(queued->ran(), 1u);
  }
}

TEST(SlotPoolElastic, WhatARemovedSlotQueuesWhileThePoolDrainsIsRun) { DrainWhileTheSlotWithTheWorkIsRemoved(false); }
TEST(SlotPoolElastic, NarrowRunOnARemovedSlotIsDrained) { DrainWhileTheSlotWithTheWorkIsRemoved(true); }

TEST(SlotPoolElastic, NoTwoSlotsEverShareAnId) {
  auto pool = MakePool(3);
  std::vector<std::atomic<int>> inside(SlotPool::kSlotsMax);
  std::atomic<int> shared{0};
  auto run = MakeRun(5'000, [&](size_t, int slot_id) {
    if (inside[slot_id].fetch_add(1) != 0) shared.fetch_add(1);
    inside[slot_id].fetch_sub(1);
  });
  pool->Submit(run);
  while (run->finished() == 0) {
    pool->RemoveSlots(2);
    pool->AddSlots(2);
  }
  EXPECT_TRUE(run->EndedOnce());
  EXPECT_EQ(shared.load(), 0);
}

TEST(SlotPoolElastic, RemovingTheLastSlotIsRefused) {
  auto pool = MakePool(2);
  EXPECT_EQ(pool->RemoveSlots(2), Outcome::kLastSlot);
  EXPECT_EQ(pool->RemoveSlots(1), Outcome::kAccepted);
  EXPECT_EQ(pool->RemoveSlots(1), Outcome::kLastSlot);
  EXPECT_EQ(pool->RemoveSlots(0), Outcome::kInvalid);
  EXPECT_EQ(pool->AddSlots(0), Outcome::kInvalid);
  EXPECT_EQ(pool->AddSlots(SlotPool::kSlotsMax), Outcome::kInvalid);
  EXPECT_EQ(pool->num_slots(), 1);
}

TEST(SlotPoolElastic, SlotMayAddSlotsAndMayNotJoinThem) {
  auto pool = MakePool(1);
  auto run = MakeRun(1, [&](size_t, int) {
    EXPECT_EQ(pool->AddSlots(1), Outcome::kAccepted);
    EXPECT_EQ(pool->RemoveSlots(1), Outcome::kInvalid);
    EXPECT_EQ(pool->Shutdown(true), Outcome::kInvalid);
  });
  pool->Submit(run);
  run->Wait();
  EXPECT_EQ(pool->num_slots(), 2);
}

TEST(SlotPoolElastic, ShutdownThatDrainsRunsEverything) {
  auto pool = MakePool(2, 2);
  std::vector<std::shared_ptr<CountingRun>> runs;
  for (int r = 0; r < 40; ++r) {
    runs.push_back(MakeRun(5));
    pool->Submit(runs.back());
  }
  EXPECT_EQ(pool->Shutdown(/*drain=*/true), Outcome::kAccepted);
  for (auto& run : runs) {
    ASSERT_TRUE(run->EndedOnce());
    ASSERT_EQ(run->ran(), 5u);
  }
  EXPECT_EQ(pool->Submit(MakeRun(1)), Outcome::kShutDown);
  EXPECT_EQ(pool->AddSlots(1), Outcome::kShutDown);
  EXPECT_EQ(pool->RemoveSlots(1), Outcome::kShutDown);
  EXPECT_EQ(pool->Shutdown(false), Outcome::kAccepted);
  EXPECT_EQ(pool->num_slots(), 0);
}

TEST(SlotPoolElastic, ShutdownWithoutDrainAnswersForEveryItem) {
  auto pool = MakePool(1, 2);
  std::binary_semaphore started{0};
  std::binary_semaphore gate{0};
  auto blocker = MakeRun(3, [&](size_t index, int) {
    if (index > 0) return;
    started.release();
    gate.acquire();
  });
  pool->Submit(blocker);
  std::vector<std::shared_ptr<CountingRun>> runs;
  for (int r = 0; r < 10; ++r) {
    runs.push_back(MakeRun(5));
    pool->Submit(runs.back());
  }
  started.acquire();
  std::jthread closer([&] { pool->Shutdown(/*drain=*/false); });
  // What has not started is skipped while the blocker still runs; before that a slot could go on with it.
  const auto all_skipped = [&] {
    return blocker->skipped() == 2 && std::ranges::all_of(runs, [](const auto& run) { return run->skipped() == 5; });
  };
  while (!all_skipped()) std::this_thread::yield();
  gate.release();
  closer.join();
  EXPECT_TRUE(blocker->EndedOnce());
  EXPECT_EQ(blocker->ran(), 1u);
  for (auto& run : runs) {
    ASSERT_TRUE(run->EndedOnce());
    ASSERT_EQ(run->skipped(), 5u);
  }
}

TEST(SlotPoolElastic, SubmitsRacingWithShutdownAllGetAnAnswer) {
  for (int round = 0; round < 60; ++round) {
    auto pool = MakePool(2, 2);
    std::atomic<int> bad{0};
    std::vector<std::jthread> callers;
    for (int c = 0; c < 4; ++c) {
      callers.emplace_back([&] {
        while (true) {
          auto run = MakeRun(3);
          const Outcome outcome = pool->Submit(run);
          if (outcome == Outcome::kShutDown) return;
          if (outcome != Outcome::kAccepted || !run->EndedOnce()) bad.fetch_add(1);
        }
      });
    }
    pool->Shutdown(/*drain=*/round % 2 == 0);
    callers.clear();
    ASSERT_EQ(bad.load(), 0);
  }
}

TEST(SlotPoolElastic, SlotMayDestroyItsOwnPool) {
  auto owner = MakePool(2);
  SlotPool* pool = owner.get();
  std::binary_semaphore handed_over{0};
  auto run = MakeRun(1, [&](size_t, int) {
    handed_over.acquire();
    owner.reset();
  });
  pool->Submit(run);
  handed_over.release();
  EXPECT_TRUE(run->EndedOnce());
}

}  // namespace
}  // namespace sabot::slots

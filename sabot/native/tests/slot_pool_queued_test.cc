// Runs that join the queue even when a slot submits them: who runs them, and how they end with the pool.
#include <gtest/gtest.h>

#include <atomic>
#include <semaphore>
#include <thread>
#include <vector>

#include "sabot/native/slots/slot_pool.h"
#include "sabot/native/tests/counting_run.h"

namespace sabot::slots {
namespace {

std::shared_ptr<CountingRun> MakeQueued(size_t items, Body body = {}) {
  auto run = MakeRun(items, std::move(body));
  run->queued = true;
  return run;
}

/// Whose item submits another such Run, and so on for as long as the pool takes them.
struct Chain {
  explicit Chain(SlotPool& pool) : pool(pool) {}

  Outcome SubmitNext() {
    auto run = MakeQueued(1, [this](size_t, int) {
      ran.fetch_add(1);
      if (ran.load() < length.load() && SubmitNext() != Outcome::kAccepted) refused.fetch_add(1);
    });
    return pool.Submit(std::move(run));
  }

  SlotPool& pool;
  std::atomic<int> length{1'000'000'000};
  std::atomic<int> ran{0};
  std::atomic<int> refused{0};
};

TEST(SlotPoolQueued, AnotherSlotTakesWhatASlotQueues) {
  auto pool = MakePool(2);
  std::binary_semaphore taken{0};
  auto inner = MakeQueued(1, [&](size_t, int) { taken.release(); });
  auto outer = MakeRun(1, [&](size_t, int) {
    pool->Submit(inner);
    taken.acquire();  // hangs where the item runs in this slot
  });
  UntilAllParked(*pool);
  pool->Submit(outer);
  EXPECT_TRUE(outer->EndedOnce());
  EXPECT_TRUE(inner->EndedOnce());
}

TEST(SlotPoolQueued, TheOnlySlotRunsWhatItQueuedAfterItsItem) {
  auto pool = MakePool(1);
  auto inner = MakeQueued(3);
  auto outer = MakeRun(1, [&](size_t, int) {
    EXPECT_EQ(pool->Submit(inner), Outcome::kAccepted);
    EXPECT_EQ(inner->ran(), 0u);
  });
  pool->Submit(outer);
  EXPECT_TRUE(inner->EndedOnce());
  EXPECT_EQ(inner->ran(), 3u);
}

TEST(SlotPoolQueued, ASlotThatLeavesHandsOverWhatItQueued) {
  for (int round = 0; round < 200; ++round) {
    auto pool = MakePool(2);
    Chain chain(*pool);
    chain.length = 50;
    ASSERT_EQ(chain.SubmitNext(), Outcome::kAccepted);
    pool->RemoveSlots(1);
    pool->Shutdown(/*drain=*/true);
    ASSERT_EQ(chain.ran.load(), 50);
  }
}

TEST(SlotPoolQueued, WhatSlotsQueueWhileThePoolDrainsRuns) {
  auto pool = MakePool(3);
  Chain chain(*pool);
  chain.length = 500;
  std::binary_semaphore gate{0};
  auto outer = MakeRun(1, [&](size_t, int) {
    gate.acquire();
    chain.SubmitNext();
  });
  pool->Submit(outer);
  std::jthread draining([&] { pool->Shutdown(/*drain=*/true); });
  while (pool->Submit(MakeRun(1)) == Outcome::kAccepted) std::this_thread::yield();
  gate.release();
  draining.join();
  EXPECT_EQ(chain.ran.load(), 500);
}

TEST(SlotPoolQueued, AShutdownThatSkipsEndsAChainOfQueuedRuns) {
  for (const bool draining_first : {false, true}) {
    auto pool = MakePool(2);
    Chain chain(*pool);
    chain.SubmitNext();
    while (chain.ran.load() < 100) std::this_thread::yield();
    std::jthread draining;
    if (draining_first) draining = std::jthread([&] { pool->Shutdown(/*drain=*/true); });
    pool->Shutdown(/*drain=*/false);  // hangs where slots go on to queue
    EXPECT_LE(chain.refused.load(), 1);
  }
}

TEST(SlotPoolQueued, NothingAShutdownSkippedRunsAfterIt) {
  auto pool = MakePool(1);
  std::binary_semaphore gate{0};
  auto inner = MakeQueued(2);
  auto outer = MakeRun(1, [&](size_t, int) {
    gate.acquire();
    pool->Submit(inner);
  });
  pool->Submit(outer);
  std::jthread ending([&] { pool->Shutdown(/*drain=*/false); });
  while (pool->Submit(MakeRun(1)) == Outcome::kAccepted) std::this_thread::yield();
  gate.release();
  ending.join();
  EXPECT_EQ(inner->ran(), 0u);
}

}  // namespace
}  // namespace sabot::slots

// The ledger against a plain model of itself, and its promises under threads: the limit is never passed, and whoever
// was refused is told when there is room.
#include "sabot/native/memory/ledger.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <random>
#include <thread>
#include <vector>

namespace sabot::memory {
namespace {

constexpr Ledger::Options kThousand{.bytes_max = 1000, .high_water = 0.75, .low_water = 0.5};

TEST(Ledger, ReservationsAndAllocationsOfTasksAreNotCountedTwice) {
  Ledger ledger(kThousand);
  ASSERT_TRUE(ledger.TryReserve(Promise::kTasks, 300));
  ASSERT_TRUE(ledger.TryAllocate(200));
  EXPECT_EQ(ledger.committed(), 300);
  ASSERT_TRUE(ledger.TryAllocate(200));
  EXPECT_EQ(ledger.committed(), 400) << "they took more than they reserved";
  ledger.Hold(Account::kStore, 150);
  EXPECT_EQ(ledger.committed(), 150 + 300);
  ASSERT_TRUE(ledger.TryReserve(Promise::kCredits, 10));
  ledger.SetWorkers(20);
  EXPECT_EQ(ledger.committed(), 150 + 300 + 10 + 20);
}

TEST(Ledger, AllocationsAndMeasuredMemoryNeverPassTheLimit) {
  Ledger ledger(kThousand);
  ledger.SetWorkers(100);
  ledger.SetOutside(100);
  EXPECT_FALSE(ledger.TryAllocate(801));
  EXPECT_TRUE(ledger.TryAllocate(800));
  EXPECT_FALSE(ledger.TryAllocate(1));
  ledger.SetWorkers(99);
  EXPECT_TRUE(ledger.TryAllocate(1));
}

TEST(Ledger, WithoutALimitNothingIsRefusedAndNobodyIsTold) {
  Ledger ledger({});
  int told = 0;
  ledger.AddListener(Event::kHighWater, [&] { ++told; });
  EXPECT_TRUE(ledger.TryAllocate(int64_t{1} << 60));
  EXPECT_TRUE(ledger.TryReserve(Promise::kTasks, int64_t{1} << 60));
  EXPECT_FALSE(ledger.above_high_water());
  EXPECT_EQ(ledger.bytes_to_free(), 0);
  EXPECT_EQ(told, 0);
}

TEST(Ledger, ReservationsStayBelowTheHighWaterMarkUnlessForced) {
  Ledger ledger(kThousand);
  EXPECT_TRUE(ledger.TryReserve(Promise::kCredits, 750));
  EXPECT_FALSE(ledger.TryReserve(Promise::kTasks, 1));
  ledger.Reserve(Promise::kTasks, 500);
  EXPECT_EQ(ledger.committed(), 1250);
}

TEST(Ledger, MoreToFreeIsToldWhileRoomIsWantedAndNotOtherwise) {
  Ledger ledger(kThousand);
  int told = 0;
  ledger.AddListener(Event::kHighWater, [&] { ++told; });
  ASSERT_TRUE(ledger.TryAllocate(700));
  ledger.TellFreeable();
  EXPECT_EQ(told, 0);
  ASSERT_TRUE(ledger.TryAllocate(100));
  EXPECT_EQ(told, 1);
  ledger.TellFreeable();
  EXPECT_EQ(told, 2);
  ledger.Free(700);
  ledger.TellFreeable();
  EXPECT_EQ(told, 2);
}

TEST(Ledger, TellsOnceAtTheHighMarkAndOnceAtTheLowOne) {
  Ledger ledger(kThousand);
  int high = 0, freed = 0;
  ledger.AddListener(Event::kHighWater, [&] { ++high; });
  ledger.AddListener(Event::kFreed, [&] { ++freed; });
  ASSERT_TRUE(ledger.TryAllocate(750));
  EXPECT_EQ(high, 0);
  ASSERT_TRUE(ledger.TryAllocate(1));
  ASSERT_TRUE(ledger.TryAllocate(1));
  EXPECT_EQ(high, 1);
  EXPECT_EQ(ledger.bytes_to_free(), 252);
  ledger.Free(200);
  EXPECT_EQ(ledger.bytes_to_free(), 52) << "down to the low mark, once the high one was passed";
  EXPECT_EQ(freed, 0);
  ledger.Free(52);
  EXPECT_EQ(freed, 1);
  ledger.Free(100);
  EXPECT_EQ(freed, 1) << "nobody waits";
  EXPECT_EQ(ledger.bytes_to_free(), 0);
}

TEST(Ledger, WhoWasRefusedIsToldWhenItWouldFitAndNotBefore) {
  Ledger ledger(kThousand);
  int high = 0, freed = 0;
  ledger.AddListener(Event::kHighWater, [&] { ++high; });
  ledger.AddListener(Event::kFreed, [&] { ++freed; });
  ASSERT_TRUE(ledger.TryAllocate(700));
  EXPECT_FALSE(ledger.TryReserve(Promise::kTasks, 900)) << "never fits";
  EXPECT_FALSE(ledger.TryReserve(Promise::kCredits, 100));
  EXPECT_FALSE(ledger.TryReserve(Promise::kCredits, 200));
  EXPECT_EQ(high, 3) << "each refusal asks for room";
  EXPECT_EQ(ledger.bytes_to_free(), 50);
  ledger.Free(49);
  EXPECT_EQ(freed, 0);
  ledger.Free(1);
  EXPECT_EQ(freed, 1);
  EXPECT_TRUE(ledger.TryReserve(Promise::kCredits, 100));
}

TEST(Ledger, WithdrawnWishFreesNothingAndHasTheOthersTryAgain) {
  Ledger ledger(kThousand);
  int freed = 0;
  ledger.AddListener(Event::kFreed, [&] { ++freed; });
  ASSERT_TRUE(ledger.TryAllocate(700));
  ASSERT_FALSE(ledger.TryReserve(Promise::kTasks, 300));
  ASSERT_FALSE(ledger.TryReserve(Promise::kCredits, 100));
  EXPECT_EQ(ledger.bytes_to_free(), 50);
  ledger.Withdraw(Promise::kCredits);
  EXPECT_EQ(freed, 1);
  EXPECT_EQ(ledger.bytes_to_free(), 250) << "the task still waits";
  ledger.Withdraw(Promise::kTasks);
  EXPECT_EQ(ledger.bytes_to_free(), 0);
  ledger.Withdraw(Promise::kTasks);
  EXPECT_EQ(freed, 2) << "there was nothing to withdraw";
}

TEST(Ledger, WhatIsGrantedAfterARefusalIsWantedNoMore) {
  Ledger ledger(kThousand);
  ASSERT_TRUE(ledger.TryAllocate(700));
  ASSERT_FALSE(ledger.TryReserve(Promise::kCredits, 100));
  EXPECT_TRUE(ledger.TryReserve(Promise::kCredits, 50));
  EXPECT_EQ(ledger.bytes_to_free(), 0);
}

TEST(Ledger, WhatIsOnlyGoodToHaveAsksNobodyForRoom) {
  Ledger ledger(kThousand);
  int high = 0;
  ledger.AddListener(Event::kHighWater, [&] { ++high; });
  ASSERT_TRUE(ledger.TryAllocate(700));
  EXPECT_FALSE(ledger.ReserveIfRoom(Promise::kCredits, 100));
  EXPECT_EQ(ledger.bytes_to_free(), 0);
  EXPECT_EQ(high, 0);
  EXPECT_TRUE(ledger.ReserveIfRoom(Promise::kCredits, 50));
}

TEST(Ledger, RemovedListenerIsNotCalled) {
  Ledger ledger(kThousand);
  int told = 0;
  const int64_t id = ledger.AddListener(Event::kHighWater, [&] { ++told; });
  ledger.RemoveListener(id);
  ledger.RemoveListener(id);
  ASSERT_TRUE(ledger.TryAllocate(900));
  EXPECT_EQ(told, 0);
}

// What the ledger is to be, without atomics; and one random step of both.
struct Model {
  int64_t pool = 0, outside = 0, workers = 0, credits = 0, tasks = 0;
  std::array<int64_t, kAccounts> held{};

  int64_t Held() const { return held[0] + held[1] + held[2]; }
  int64_t Committed() const {
    return Held() + std::max({tasks, pool + outside - Held(), int64_t{0}}) + credits + workers;
  }

  void Take(Ledger* ledger, unsigned what, int64_t bytes, size_t account, bool* refused) {
    switch (what) {
      case 0:
        if (ledger->TryAllocate(bytes)) {
          pool += bytes;
        } else {
          EXPECT_GT(pool + outside + workers + bytes, 1000);
        }
        break;
      case 1:
        ledger->Hold(static_cast<Account>(account), bytes);
        held[account] += bytes;
        break;
      case 2:
        *refused = !ledger->TryReserve(Promise::kCredits, bytes);
        EXPECT_EQ(*refused, Committed() + bytes > 750);
        if (!*refused) credits += bytes;
        break;
      case 3:
        ledger->Reserve(Promise::kTasks, bytes);
        tasks += bytes;
        break;
      case 4:
        ledger->SetWorkers(bytes);
        workers = bytes;
        break;
      default:
        ledger->SetOutside(bytes);
        outside = bytes;
    }
  }

  void GiveBack(Ledger* ledger, unsigned what, int64_t bytes, size_t account) {
    const auto least = [&](int64_t* of) {
      const int64_t given = std::min(bytes, *of);
      *of -= given;
      return given;
    };
    switch (what) {
      case 0:
        ledger->Free(least(&pool));
        break;
      case 1:
        ledger->Drop(static_cast<Account>(account), least(&held[account]));
        break;
      case 2:
        ledger->Unreserve(Promise::kCredits, least(&credits));
        break;
      default:
        ledger->Unreserve(Promise::kTasks, least(&tasks));
    }
  }
};

TEST(Ledger, AgreesWithAPlainModelAndItsListenersSeeEachCrossing) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  Ledger ledger(kThousand);
  Model model;
  bool pressed = false, told_freed = false, told_high = false;
  ledger.AddListener(Event::kHighWater, [&] { told_high = true; });
  ledger.AddListener(Event::kFreed, [&] { told_freed = true; });
  for (int step = 0; step < 200'000; ++step) {
    const auto bytes = static_cast<int64_t>(random() % 200);
    const size_t account = random() % kAccounts;
    bool refused = false;
    told_high = told_freed = false;
    if (random() % 2 == 0) {
      model.Take(&ledger, random() % 6, bytes, account, &refused);
    } else {
      model.GiveBack(&ledger, random() % 4, bytes, account);
    }
    const int64_t after = model.Committed();
    ASSERT_EQ(ledger.committed(), after) << "step " << step;
    EXPECT_EQ(ledger.allocated(), model.pool + model.outside);
    if (!pressed && after > 750) {
      pressed = true;
      EXPECT_TRUE(told_high) << "step " << step;
    }
    if (pressed && after <= 500) {
      pressed = false;
      EXPECT_TRUE(told_freed) << "step " << step;
    }
    EXPECT_TRUE(!refused || told_high) << "step " << step;
    EXPECT_TRUE(!pressed || ledger.bytes_to_free() >= after - 500) << "step " << step;
  }
  EXPECT_LE(ledger.snapshot().peak, 1000);
}

TEST(Ledger, ThreadsNeverPassTheLimitAndLeaveNothingBehind) {
  Ledger ledger({.bytes_max = 1'000'000});
  std::vector<std::jthread> threads;
  for (unsigned seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&ledger, seed] {
      std::mt19937 random(seed);
      std::deque<int64_t> mine;
      for (int i = 0; i < 20'000; ++i) {
        const auto bytes = static_cast<int64_t>(random() % 100'000);
        if (ledger.TryAllocate(bytes)) {
          mine.push_back(bytes);
          ledger.Hold(Account::kStore, bytes);
        }
        EXPECT_LE(ledger.allocated(), 1'000'000);
        while (mine.size() > random() % 8) {
          ledger.Drop(Account::kStore, mine.front());
          ledger.Free(mine.front());
          mine.pop_front();
        }
      }
      for (const int64_t bytes : mine) {
        ledger.Drop(Account::kStore, bytes);
        ledger.Free(bytes);
      }
    });
  }
  threads.clear();
  EXPECT_EQ(ledger.committed(), 0);
  EXPECT_GT(ledger.snapshot().peak, 0);
}

// Each thread waits for room by the listener alone: a call that is lost hangs it until the deadline.
TEST(Ledger, NobodyWhoWaitsForRoomIsForgotten) {
  Ledger ledger(kThousand);
  std::mutex mutex;
  std::condition_variable freed;
  int64_t freed_count = 0;  // guarded by mutex
  ledger.AddListener(Event::kFreed, [&] {
    const std::lock_guard lock(mutex);
    ++freed_count;
    freed.notify_all();
  });
  std::vector<std::jthread> threads;
  for (unsigned seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      for (int i = 0; i < 3'000; ++i) {
        const auto bytes = static_cast<int64_t>(300 + random() % 400);
        while (true) {
          std::unique_lock lock(mutex);
          const int64_t seen = freed_count;
          lock.unlock();
          if (ledger.TryReserve(Promise::kCredits, bytes)) break;
          lock.lock();
          ASSERT_TRUE(freed.wait_for(lock, std::chrono::seconds(20), [&] { return freed_count != seen; }));
        }
        std::this_thread::yield();  // with the room in hand, so that others are refused
        ledger.Unreserve(Promise::kCredits, bytes);
      }
    });
  }
  threads.clear();
  EXPECT_EQ(ledger.committed(), 0);
}

TEST(Ledger, RemovingAListenerWaitsForTheCallUnderWay) {
  Ledger ledger(kThousand);
  for (int i = 0; i < 200; ++i) {
    auto told = std::make_unique<int>(0);  // gone right after: ThreadSanitizer and AddressSanitizer see a late call
    const int64_t id = ledger.AddListener(Event::kHighWater, [seen = told.get()] { ++*seen; });
    std::jthread presser([&] {
      ASSERT_TRUE(ledger.TryAllocate(900));
      ledger.Free(900);
    });
    ledger.RemoveListener(id);
    told.reset();
  }
}

}  // namespace
}  // namespace sabot::memory

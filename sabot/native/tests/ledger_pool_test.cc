// The pool: every byte is counted and given back, contents survive a change of size, blocks are recycled within the
// limit, and what does not fit is refused by type.
#include "sabot/native/memory/ledger_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "sabot/native/status.h"

namespace sabot::memory {
namespace {

constexpr int64_t kMiB = 1 << 20;

std::shared_ptr<Ledger> LimitedTo(int64_t bytes_max) {
  return std::make_shared<Ledger>(Ledger::Options{.bytes_max = bytes_max});
}

TEST(LedgerPool, WithoutAWatchFreedBlocksGoBackAtOnce) {
  LedgerPool pool(LimitedTo(0));
  uint8_t* block = nullptr;
  ASSERT_TRUE(pool.Allocate(kMiB, &block).ok());
  pool.Free(block, kMiB);
  EXPECT_EQ(pool.idle_bytes(), 0);
}

TEST(LedgerPool, EveryByteIsCountedWhileItIsAllocated) {
  const auto ledger = LimitedTo(64 * kMiB);
  LedgerPool pool(ledger);
  for (const int64_t size : {int64_t{0}, int64_t{1}, int64_t{1000}, 256 * 1024 - 1L, 256 * 1024L, 5 * kMiB + 3}) {
    uint8_t* bytes = nullptr;
    ASSERT_TRUE(pool.Allocate(size, &bytes).ok());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes) % 64, 0);
    if (size > 0) std::memset(bytes, 1, static_cast<size_t>(size));
    EXPECT_GE(ledger->allocated(), size);
    EXPECT_LE(ledger->allocated(), size + size / 8 + 4096);
    EXPECT_EQ(pool.bytes_allocated(), size);
    pool.Free(bytes, size);
    EXPECT_EQ(ledger->allocated(), 0);
    EXPECT_EQ(pool.bytes_allocated(), 0);
  }
}

TEST(LedgerPool, BeyondTheLimitIsALimitErrorThatNamesTheKey) {
  LedgerPool pool(LimitedTo(8 * kMiB));
  uint8_t* kept = nullptr;
  ASSERT_TRUE(pool.Allocate(5 * kMiB, &kept).ok());
  uint8_t* more = nullptr;
  for (const arrow::Status& refused : {pool.Allocate(4 * kMiB, &more), pool.Reallocate(5 * kMiB, 9 * kMiB, &kept)}) {
    EXPECT_TRUE(refused.IsOutOfMemory());
    EXPECT_EQ(CodeOf(refused), Code::kLimit);
    EXPECT_NE(refused.message().find("raise memory.bytes_max"), std::string::npos) << refused.message();
  }
  pool.Free(kept, 5 * kMiB);
  EXPECT_EQ(pool.ledger()->allocated(), 0);
}

TEST(LedgerPool, SizesThatNoMachineHasAreRefusedWithOrWithoutALimit) {
  for (const int64_t bytes_max : {int64_t{0}, 8 * kMiB}) {
    LedgerPool pool(LimitedTo(bytes_max));
    uint8_t* kept = nullptr;
    ASSERT_TRUE(pool.Allocate(kMiB, &kept).ok());
    for (const int64_t size : {std::numeric_limits<int64_t>::max(), (int64_t{1} << 62) + 1, int64_t{-1}}) {
      uint8_t* more = nullptr;
      EXPECT_FALSE(pool.Allocate(size, &more).ok()) << size;
      EXPECT_FALSE(pool.Reallocate(kMiB, size, &kept).ok()) << size;
      EXPECT_EQ(pool.ledger()->allocated(), kMiB) << size;
    }
    pool.Free(kept, kMiB);
    EXPECT_EQ(pool.ledger()->allocated(), 0);
  }
}

TEST(LedgerPool, BlocksAreRecycled) {
  for (const bool recycles : {true, false}) {
    LedgerPool pool(LimitedTo(64 * kMiB), {.recycles = recycles});
    pool.SetWatched(true);
    uint8_t* first = nullptr;
    ASSERT_TRUE(pool.Allocate(4 * kMiB, &first).ok());
    first[0] = 7;
    pool.Free(first, 4 * kMiB);
    EXPECT_EQ(pool.idle_bytes(), recycles ? 4 * kMiB : 0);
    uint8_t* second = nullptr;
    ASSERT_TRUE(pool.Allocate(7 * kMiB / 2, &second).ok());
    EXPECT_EQ(second[0], recycles ? 7 : 0) << "a fresh block is zeroed";
    pool.Free(second, 7 * kMiB / 2);
  }
}

TEST(LedgerPool, BlockThatGrowsGoesIntoAnIdleOne) {
  LedgerPool pool(LimitedTo(64 * kMiB));
  pool.SetWatched(true);
  uint8_t* large = nullptr;
  ASSERT_TRUE(pool.Allocate(4 * kMiB, &large).ok());
  large[3 * kMiB] = 7;
  pool.Free(large, 4 * kMiB);
  uint8_t* growing = nullptr;
  ASSERT_TRUE(pool.Allocate(kMiB, &growing).ok());
  growing[kMiB - 1] = 42;
  ASSERT_TRUE(pool.Reallocate(kMiB, 4 * kMiB, &growing).ok());
  EXPECT_EQ(growing[kMiB - 1], 42);
  EXPECT_EQ(growing[3 * kMiB], 7) << "a fresh block is zeroed";
  EXPECT_EQ(pool.idle_bytes(), kMiB);
  EXPECT_EQ(pool.ledger()->allocated(), 4 * kMiB);
  pool.Free(growing, 4 * kMiB);
  EXPECT_EQ(pool.ledger()->allocated(), 0);
}

TEST(LedgerPool, IdleBlockOfAtLeastHalfTheSizeIsExtended) {
  for (const bool is_near : {true, false}) {
    LedgerPool pool(LimitedTo(64 * kMiB));
    pool.SetWatched(true);
    uint8_t* small = nullptr;
    const int64_t size = is_near ? 3 * kMiB : kMiB;
    ASSERT_TRUE(pool.Allocate(size, &small).ok());
    small[0] = 7;
    pool.Free(small, size);
    uint8_t* large = nullptr;
    ASSERT_TRUE(pool.Allocate(4 * kMiB, &large).ok());
    EXPECT_EQ(large[0], is_near ? 7 : 0);
    large[4 * kMiB - 1] = 1;
    EXPECT_EQ(pool.idle_bytes(), is_near ? 0 : size);
    EXPECT_EQ(pool.ledger()->allocated(), 4 * kMiB);
    pool.Free(large, 4 * kMiB);
  }
}

TEST(LedgerPool, IdleBlocksMakeRoomForWhatIsAllocated) {
  LedgerPool pool(LimitedTo(16 * kMiB));
  pool.SetWatched(true);
  std::vector<uint8_t*> blocks(8);
  for (auto& block : blocks) ASSERT_TRUE(pool.Allocate(2 * kMiB, &block).ok());
  for (auto* block : blocks) pool.Free(block, 2 * kMiB);
  EXPECT_EQ(pool.idle_bytes(), 16 * kMiB);
  uint8_t* large = nullptr;
  ASSERT_TRUE(pool.Allocate(12 * kMiB, &large).ok());
  EXPECT_LE(pool.idle_bytes(), 4 * kMiB);
  pool.ledger()->SetWorkers(4 * kMiB);
  pool.GiveBackIdle(std::chrono::hours(1));
  EXPECT_EQ(pool.idle_bytes(), 0) << "the workers have that place";
  pool.Free(large, 12 * kMiB);
}

TEST(LedgerPool, WhatHasLongBeenIdleIsGivenBack) {
  LedgerPool pool(LimitedTo(0));
  pool.SetWatched(true);
  uint8_t* block = nullptr;
  ASSERT_TRUE(pool.Allocate(kMiB, &block).ok());
  pool.Free(block, kMiB);
  pool.GiveBackIdle(std::chrono::hours(1));
  EXPECT_EQ(pool.idle_bytes(), kMiB);
  pool.GiveBackIdle(std::chrono::milliseconds(0));
  EXPECT_EQ(pool.idle_bytes(), 0);
}

TEST(LedgerPool, ContentsSurviveEveryChangeOfSize) {
  const auto ledger = LimitedTo(0);
  LedgerPool pool(ledger);
  pool.SetWatched(true);
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  uint8_t* bytes = nullptr;
  int64_t size = 1;
  ASSERT_TRUE(pool.Allocate(size, &bytes).ok());
  bytes[0] = 42;
  for (int step = 0; step < 2'000; ++step) {
    const int64_t next = 1 + static_cast<int64_t>(random() % (random() % 2 == 0 ? kMiB : 3000));
    const uint8_t last = bytes[std::min(size, next) - 1];
    ASSERT_TRUE(pool.Reallocate(size, next, &bytes).ok());
    ASSERT_EQ(bytes[0], 42);
    ASSERT_EQ(bytes[std::min(size, next) - 1], last);
    size = next;
    if (size > 1) bytes[size - 1] = static_cast<uint8_t>(step);
    ASSERT_EQ(pool.bytes_allocated(), size);
  }
  pool.Free(bytes, size);
  EXPECT_EQ(ledger->allocated(), 0);
}

TEST(LedgerPool, ThreadsShareBlocksAndLeaveNothingBehind) {
  const auto ledger = LimitedTo(32 * kMiB);
  LedgerPool pool(ledger);
  pool.SetWatched(true);
  std::vector<std::jthread> threads;
  for (unsigned seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&pool, seed] {
      std::mt19937 random(seed);
      for (int i = 0; i < 2'000; ++i) {
        const auto size = static_cast<int64_t>(random() % (random() % 2 == 0 ? 4 * kMiB : 1000)) + 1;
        uint8_t* bytes = nullptr;
        if (!pool.Allocate(size, &bytes).ok()) continue;
        bytes[0] = bytes[size - 1] = static_cast<uint8_t>(seed);
        if (i % 50 == 0) pool.GiveBackIdle(std::chrono::milliseconds(0));
        EXPECT_EQ(bytes[size / 2 == 0 ? 0 : size - 1], static_cast<uint8_t>(seed)) << "nobody else has this block";
        pool.Free(bytes, size);
      }
    });
  }
  threads.clear();
  EXPECT_EQ(ledger->allocated(), 0);
  EXPECT_EQ(pool.bytes_allocated(), 0);
}

}  // namespace
}  // namespace sabot::memory

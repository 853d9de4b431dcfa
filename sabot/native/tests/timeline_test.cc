// The timeline's ring: it keeps the last entries, and who reads while it is written sees whole entries only.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "sabot/native/slots/timeline_ring.h"

namespace sabot::slots {
namespace {

/// Every field says which entry it belongs to.
TimelineEntry EntryOf(int64_t n) {
  return {.start_ns = n,
          .end_ns = n + 1,
          .rows = n + 2,
          .bytes = n + 3,
          .partition = n + 4,
          .gil_wait_ns = n + 5,
          .job = static_cast<uint32_t>(n + 6),
          .operator_serial = static_cast<uint32_t>(n + 7),
          .network = n % 2 == 0,
          .stolen = n % 3 == 0};
}

bool IsWhole(const TimelineEntry& entry) {
  const TimelineEntry whole = EntryOf(entry.start_ns);
  return entry.end_ns == whole.end_ns && entry.rows == whole.rows && entry.bytes == whole.bytes &&
         entry.partition == whole.partition && entry.gil_wait_ns == whole.gil_wait_ns && entry.job == whole.job &&
         entry.operator_serial == whole.operator_serial && entry.network == whole.network &&
         entry.stolen == whole.stolen;
}

std::vector<int64_t> Starts(const TimelineRing& ring) {
  std::vector<TimelineEntry> entries;
  ring.Read(&entries);
  std::vector<int64_t> starts;
  for (const auto& entry : entries) {
    EXPECT_TRUE(IsWhole(entry)) << entry.start_ns;
    starts.push_back(entry.start_ns);
  }
  std::sort(starts.begin(), starts.end());
  return starts;
}

TEST(TimelineRing, KeepsTheLastEntries) {
  TimelineRing ring(3);
  EXPECT_TRUE(Starts(ring).empty());
  for (int64_t n = 0; n < 2; ++n) ring.Add(EntryOf(n));
  EXPECT_EQ(Starts(ring), (std::vector<int64_t>{0, 1}));
  for (int64_t n = 2; n < 100; ++n) ring.Add(EntryOf(n));
  EXPECT_EQ(Starts(ring), (std::vector<int64_t>{97, 98, 99}));
}

TEST(TimelineRing, CapacityZeroKeepsNothing) {
  TimelineRing ring(0);
  ring.Add(EntryOf(1));
  EXPECT_TRUE(Starts(ring).empty());
}

TEST(TimelineRing, WhatIsNotKnownStaysUnknown) {
  TimelineRing ring(2);
  ring.Add({.start_ns = 5, .end_ns = 6});
  std::vector<TimelineEntry> entries;
  ring.Read(&entries);
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_EQ(entries[0].rows, -1);
  EXPECT_EQ(entries[0].bytes, -1);
  EXPECT_EQ(entries[0].partition, -1);
  EXPECT_EQ(entries[0].job, 0u);
}

TEST(TimelineRing, ReadersSeeWholeEntriesWhileItIsWritten) {
  constexpr int64_t kEntries = 50'000;
  TimelineRing ring(4);
  std::atomic<bool> done{false};
  std::atomic<int64_t> read{0};
  std::atomic<int64_t> torn{0};
  auto reader = [&] {
    std::vector<TimelineEntry> entries;
    do {
      entries.clear();
      ring.Read(&entries);
      for (const auto& entry : entries) (IsWhole(entry) ? read : torn).fetch_add(1);
    } while (!done.load());
  };
  {
    std::jthread one(reader);
    std::jthread two(reader);
    for (int64_t n = 0; n < kEntries || read.load() == 0; ++n) ring.Add(EntryOf(n));
    done.store(true);
  }
  EXPECT_EQ(torn.load(), 0);
  EXPECT_GT(read.load(), 0);
  EXPECT_EQ(Starts(ring).size(), 4u);
}

}  // namespace
}  // namespace sabot::slots

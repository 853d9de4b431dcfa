// The logbook: names as numbers, histograms per operator, and what slots tell while they run.
#include "sabot/native/slots/logbook.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include "sabot/native/slots/slot_usage.h"
#include "sabot/native/tests/counting_run.h"

namespace sabot::slots {
namespace {

using std::chrono::nanoseconds;
using Time = std::chrono::steady_clock::time_point;

Time At(int64_t ns) { return Time(nanoseconds(ns)); }

ItemTimes Took(int64_t queue_ns, int64_t run_ns) {
  return {At(1'000), At(1'000 + queue_ns), At(1'000 + queue_ns + run_ns)};
}

ItemNote NamedNote(ItemNames names) {
  ItemNote note;
  note.names = names;
  return note;
}

int64_t Morsels(const OperatorStats& stats) {
  int64_t sum = 0;
  for (int64_t count : stats.totals.run.counts) sum += count;
  return sum;
}

TEST(NameTable, SameNameHasTheSameSerial) {
  NameTable table(2);
  const auto a = table.Intern("a");
  EXPECT_NE(a.serial, 0u);
  EXPECT_EQ(table.Intern("a").serial, a.serial);
  EXPECT_NE(table.Intern("b").serial, a.serial);
  EXPECT_EQ(table.Intern("").serial, 0u);
}

TEST(NameTable, ForgetsWhatWasUsedLongestAgo) {
  NameTable table(2);
  const auto a = table.Intern("a");
  const auto b = table.Intern("b");
  table.Intern("a");
  const auto c = table.Intern("c");
  EXPECT_EQ(c.place, b.place);
  EXPECT_EQ(table.entries().size(), 2u);
  EXPECT_EQ(table.Intern("a").serial, a.serial);
  EXPECT_GT(table.Intern("b").serial, c.serial);
}

TEST(NameTable, CutsLongNamesBetweenCharacters) {
  NameTable table(2);
  const std::string name = std::string(NameTable::kNameBytesMax - 1, 'x') + "\xC3\xA9 and more";
  EXPECT_EQ(table.Intern(name).name, std::string(NameTable::kNameBytesMax - 1, 'x'));
}

TEST(Histogram, TimesFallIntoBucketsBelowTheirBounds) {
  for (size_t i = 0; i + 1 < HistogramCounts::kBuckets; ++i) {
    EXPECT_EQ(HistogramCounts::BucketOf(HistogramCounts::BoundNs(i) - 1), i);
    EXPECT_EQ(HistogramCounts::BucketOf(HistogramCounts::BoundNs(i)), i + 1);
  }
  EXPECT_EQ(HistogramCounts::BucketOf(-5), 0u);
  EXPECT_EQ(HistogramCounts::BucketOf(INT64_MAX), HistogramCounts::kBuckets - 1);
}

TEST(Logbook, MergesAnOperatorsTimesOverSlots) {
  Logbook logbook(0);
  const ItemNames names = logbook.Name("job", "filter");
  logbook.OfSlot(0)->Add(Took(2'000, 500), NamedNote(names));
  logbook.OfSlot(3)->Add(Took(2'000, 5'000), NamedNote(names));
  const auto stats = logbook.operator_stats();
  ASSERT_EQ(stats.size(), 1u);
  EXPECT_EQ(stats[0].name, "filter");
  EXPECT_EQ(stats[0].totals.queue.counts[1], 2);
  EXPECT_EQ(stats[0].totals.queue.sum_ns, 4'000);
  EXPECT_EQ(stats[0].totals.run.counts[0], 1);
  EXPECT_EQ(stats[0].totals.run.counts[3], 1);
  EXPECT_EQ(stats[0].totals.run.sum_ns, 5'500);
}

TEST(Logbook, CountsOfAForgottenOperatorAreNotItsSuccessors) {
  Logbook logbook(0);
  auto slot = logbook.OfSlot(0);
  const ItemNames first = logbook.Name("", "first");
  slot->Add(Took(1, 1), NamedNote(first));
  for (size_t i = 0; i < SlotLog::kOperatorsMax; ++i) {
    slot->Add(Took(1, 1), NamedNote(logbook.Name("", "later" + std::to_string(i))));
  }
  slot->Add(Took(1, 1), NamedNote(first));  // it still runs, but its place is another's
  const auto stats = logbook.operator_stats();
  EXPECT_EQ(stats.size(), SlotLog::kOperatorsMax);
  for (const auto& one : stats) {
    EXPECT_NE(one.name, "first");
    EXPECT_EQ(Morsels(one), 1) << one.name;
  }
}

TEST(Logbook, ReadersNeverSeeTheCountsOfAnotherOperator) {
  // Each operator runs for 1024 ns times its serial and no other: a mixture of two would have another quotient.
  constexpr uint32_t kOperators = 2'000;
  SlotLog log(0);
  std::atomic<uint32_t> current{1};
  std::atomic<int64_t> mixed{0};
  {
    std::jthread reader([&] {
      for (uint32_t serial = 1; serial < kOperators; serial = current.load()) {
        OperatorTotals totals;
        if (!log.AddTo(serial, 0, &totals)) continue;
        // A time may be summed up and not counted yet, or the reverse.
        if (totals.run.sum_ns % (int64_t{1024} * serial) != 0) mixed.fetch_add(1);
      }
    });
    for (uint32_t serial = 1; serial <= kOperators; ++serial) {
      current.store(serial);
      for (int i = 0; i < 20; ++i) log.Add(Took(1, int64_t{1024} * serial), NamedNote({0, serial, 0}));
    }
  }
  EXPECT_EQ(mixed.load(), 0);
}

TEST(Logbook, SlotOfTheSameIdGoesOnWithTheLog) {
  auto pool = SlotPool::Make({.num_slots = 2, .timeline_morsels = 8});
  pool->logbook().OfSlot(1)->Add(Took(1, 1), NamedNote(pool->logbook().Name("", "before")));
  ASSERT_EQ(pool->RemoveSlots(1), Outcome::kAccepted);
  ASSERT_EQ(pool->AddSlots(1), Outcome::kAccepted);
  EXPECT_EQ(pool->logbook().operator_stats().size(), 1u);
  EXPECT_EQ(pool->logbook().timeline(10).entries.size(), 1u);
}

TEST(Logbook, TimelineIsSortedAndBounded) {
  Logbook logbook(4);
  for (int64_t n = 0; n < 4; ++n) {
    logbook.OfSlot(0)->Add({At(0), At(10 * n), At(10 * n + 1)}, {});
    logbook.OfSlot(1)->Add({At(0), At(10 * n + 5), At(10 * n + 6)}, {});
  }
  EXPECT_EQ(logbook.timeline(100).entries.size(), 8u);
  const auto last = logbook.timeline(3);
  ASSERT_EQ(last.entries.size(), 3u);
  EXPECT_EQ(last.entries[0].entry.start_ns, 25);
  EXPECT_EQ(last.entries[2].entry.start_ns, 35);
  EXPECT_EQ(last.entries[2].slot_id, 1);
}

TEST(Logbook, NestedItemHasANoteOfItsOwn) {
  auto pool = SlotPool::Make({.num_slots = 1, .timeline_morsels = 8});
  auto inner = MakeRun(1, [](size_t, int) { NoteScope::Here()->rows = 7; });
  auto outer = MakeRun(
      1,
      [&](size_t, int) {
        NoteScope::Here()->rows = 3;
        pool->Submit(inner);
        NoteScope::Here()->rows += 1;
      },
      Source::kNetwork);
  ASSERT_EQ(pool->Submit(outer), Outcome::kAccepted);
  ASSERT_TRUE(outer->EndedOnce());
  const auto timeline = pool->logbook().timeline(10);
  ASSERT_EQ(timeline.entries.size(), 2u);
  EXPECT_EQ(timeline.entries[0].entry.rows, 4);
  EXPECT_TRUE(timeline.entries[0].entry.network);
  EXPECT_EQ(timeline.entries[1].entry.rows, 7);
  EXPECT_FALSE(timeline.entries[1].entry.network);
  EXPECT_EQ(NoteScope::Here(), nullptr);
}

TEST(Logbook, ReadersAndSlotsDoNotDisturbEachOther) {
  auto pool = SlotPool::Make({.num_slots = 3, .timeline_morsels = 16});
  const ItemNames names = pool->logbook().Name("job", "operator");
  std::atomic<bool> done{false};
  std::jthread reader([&] {
    while (!done.load()) {
      for (const auto& one : pool->logbook().timeline(1'000).entries) EXPECT_LE(one.entry.start_ns, one.entry.end_ns);
      pool->logbook().operator_stats();
      pool->stats();
    }
  });
  for (int round = 0; round < 20; ++round) {
    auto run = MakeRun(200, [&](size_t, int) { NoteScope::Here()->names = names; });
    ASSERT_EQ(pool->Submit(run), Outcome::kAccepted);
    EXPECT_TRUE(run->EndedOnce());
  }
  done.store(true);
  const auto stats = pool->logbook().operator_stats();
  ASSERT_EQ(stats.size(), 1u);
  EXPECT_EQ(Morsels(stats[0]), 4'000);
}

TEST(SlotUsage, BusyTimeIncludesWhatRuns) {
  SlotUsage usage;
  const Time now = SlotUsage::Clock::now();
  EXPECT_FALSE(usage.busy());
  usage.Start(now);
  EXPECT_TRUE(usage.busy());
  EXPECT_EQ(usage.busy_ns(now + nanoseconds(7)), 7);
  usage.Stop(now + nanoseconds(10));
  EXPECT_EQ(usage.busy_ns(now + nanoseconds(50)), 10);
  usage.Start(now + nanoseconds(100));
  EXPECT_EQ(usage.busy_ns(now + nanoseconds(105)), 15);
  usage.Stop(now + nanoseconds(110));
  EXPECT_EQ(usage.busy_ns(now + nanoseconds(999)), 20);
}

}  // namespace
}  // namespace sabot::slots

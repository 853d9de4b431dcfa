// The fair queue with times that are told to it: shares by weight, no banked credit, sources that share, against a
// model.
#include "sabot/native/slots/fair_queue.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "sabot/native/tests/dealt_run.h"

namespace sabot::slots {
namespace {

constexpr size_t kEndless = 1'000'000'000;

/// Some slots that work off a fair queue on a clock of their own: the slot that is free first is dealt the next lease.
class World {
 public:
  World(int slots, FairQueue::Options options = {}) : queue(options), free_at_(slots, 0), held_(slots) {}

  /// What one item of a job takes, given how often it was asked.
  using Cost = std::function<int64_t()>;

  void Job(const JobShare& share, Cost cost, Source source = Source::kLocal, size_t items = kEndless) {
    cost_[share.id] = std::move(cost);
    runs_.push_back(OpenRun(items, share, source));
    queue.Push(runs_.back());
  }

  /// Runs until every slot has passed `until_ns`; the slot time each job used, by its id and source.
  std::map<std::string, int64_t> RunUntil(int64_t until_ns) {
    std::map<std::string, int64_t> used;
    while (true) {
      size_t slot = 0;
      for (size_t s = 1; s < free_at_.size(); ++s) slot = free_at_[s] < free_at_[slot] ? s : slot;
      if (free_at_[slot] >= until_ns) return used;
      if (held_[slot].lease.run) queue.Settle(held_[slot].lease, held_[slot].lease.items.count, held_[slot].ns);
      held_[slot] = {};
      Lease lease;
      if (!queue.Take(free_at_.size(), &lease)) {
        free_at_[slot] = until_ns;
        continue;
      }
      const std::string& job = Claims::share(*lease.run).id;
      int64_t ns = 0;
      for (size_t i = 0; i < lease.items.count; ++i) ns += cost_.at(job)();
      used[job] += ns;
      used[lease.source == Source::kLocal ? "local" : "network"] += ns;
      free_at_[slot] += ns;
      held_[slot] = {lease, ns};
    }
  }

  FairQueue queue;

 private:
  struct Held {
    Lease lease;
    int64_t ns = 0;
  };
  std::vector<int64_t> free_at_;
  std::vector<Held> held_;
  std::map<std::string, Cost> cost_;
  std::vector<Ticket> runs_;
};

double ShareOf(std::map<std::string, int64_t>& used, const std::string& one, const std::string& other) {
  return static_cast<double>(used[one]) / static_cast<double>(used[one] + used[other]);
}

struct Sizes {
  int64_t light_ns;
  int64_t heavy_ns;
};
class FairQueueShares : public ::testing::TestWithParam<Sizes> {};

TEST_P(FairQueueShares, WeightsOneAndThreeGetAQuarterAndThreeQuartersWhateverTheirMorsels) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (const int slots : {1, 2, 7}) {
    World world(slots);
    const auto about = [&](int64_t ns) {
      return [&random, ns] { return ns / 2 + static_cast<int64_t>(random() % ns); };
    };
    world.Job({"one", 1.0}, about(GetParam().light_ns));
    world.Job({"three", 3.0}, about(GetParam().heavy_ns));
    auto used = world.RunUntil(600'000'000);
    EXPECT_NEAR(ShareOf(used, "one", "three"), 0.25, 0.04) << slots << " slots";
  }
}

INSTANTIATE_TEST_SUITE_P(Morsels, FairQueueShares,
                         ::testing::Values(Sizes{1'000, 1'000}, Sizes{5'000'000, 2'000}, Sizes{2'000, 5'000'000},
                                           Sizes{300'000, 5'000'000}, Sizes{400, 100'000}),
                         [](const auto& info) {
                           return std::to_string(info.param.light_ns) + "and" + std::to_string(info.param.heavy_ns);
                         });

TEST(FairQueue, WithoutFairnessLongMorselsTakeTheSlots) {
  World world(2, {.fair = false});
  world.Job({"one", 1.0}, [] { return 5'000'000; });
  world.Job({"three", 3.0}, [] { return 2'000; });
  auto used = world.RunUntil(3'000'000'000);
  EXPECT_GT(ShareOf(used, "one", "three"), 0.9);
}

TEST(FairQueue, JobThatComesBackFromIdleBanksNoCredit) {
  World world(1);
  world.Job(
      {"short", 1.0}, [] { return 1'000; }, Source::kLocal, 3);
  world.Job({"long", 1.0}, [] { return 100'000; });
  world.RunUntil(1'000'000'000);
  world.Job({"short", 1.0}, [] { return 1'000; });
  auto used = world.RunUntil(1'200'000'000);
  EXPECT_NEAR(ShareOf(used, "short", "long"), 0.5, 0.03);
}

TEST(FairQueue, JobThatComesBackFromIdleStillOwesWhatItTook) {
  World world(1);
  world.Job({"always", 1.0}, [] { return 1'000; });
  int64_t sometimes = 0;
  // One long morsel at a time, sent as soon as the last one has ended.
  for (int64_t now = 0; now < 1'000'000'000;) {
    world.Job(
        {"sometimes", 1.0}, [] { return 10'000'000; }, Source::kLocal, 1);
    now += 20'000'000;
    sometimes += world.RunUntil(now)["sometimes"];
  }
  EXPECT_NEAR(static_cast<double>(sometimes) / 1e9, 0.5, 0.05);
}

TEST(FairQueue, NewJobIsServedNext) {
  World world(1);
  world.Job({"long", 1.0}, [] { return 5'000'000; });
  world.RunUntil(1'000'000'000);
  auto run = OpenRun(1, {"short", 1.0});
  world.queue.Push(run);
  Lease lease;
  ASSERT_TRUE(world.queue.Take(1, &lease));
  EXPECT_EQ(lease.run, run);
}

TEST(FairQueue, SourcesOfOneJobShareItsTimeEvenly) {
  for (const auto& [local_ns, network_ns] :
       std::vector<std::pair<int64_t, int64_t>>{{1'000, 400'000}, {400'000, 1'000}}) {
    World world(2);
    const auto run = [&](Source source, int64_t ns) {
      auto made = OpenRun(kEndless, {"job", 1.0}, source);
      Claims::state(*made).item_ns = ns;
      world.queue.Push(made);
    };
    run(Source::kLocal, local_ns);
    run(Source::kNetwork, network_ns);
    int64_t used[2] = {};
    for (int step = 0; step < 20'000; ++step) {
      Lease lease;
      ASSERT_TRUE(world.queue.Take(2, &lease));
      const bool network = lease.source == Source::kNetwork;
      const int64_t ns = (network ? network_ns : local_ns) * static_cast<int64_t>(lease.items.count);
      used[network] += ns;
      world.queue.Settle(lease, lease.items.count, ns);
    }
    EXPECT_NEAR(static_cast<double>(used[0]) / static_cast<double>(used[0] + used[1]), 0.5, 0.02);
  }
}

TEST(FairQueue, RunsOfOneJobTakeTurns) {
  FairQueue queue({});
  auto a = OpenRun(3, {});
  auto b = OpenRun(3, {});
  queue.Push(a);
  queue.Push(b);
  for (int i = 0; i < 3; ++i) {
    for (const auto& run : {a, b}) {
      Lease lease;
      ASSERT_TRUE(queue.Take(1, &lease));
      EXPECT_EQ(lease.run, run);
      queue.Settle(lease, 1, 1'000'000);
    }
  }
  EXPECT_TRUE(queue.empty());
}

TEST(FairQueue, NarrowRunIsDealtToOneSlotUntilItIsWidened) {
  FairQueue queue({});
  auto run = OpenRun(10, {}, Source::kLocal, true);
  queue.Push(run);
  Lease first;
  Lease second;
  ASSERT_TRUE(queue.Take(4, &first));
  EXPECT_FALSE(queue.Take(4, &second));
  queue.Settle(first, 1, 1'000);
  ASSERT_TRUE(queue.Take(4, &first));
  EXPECT_EQ(first.items.count, 9u);  // short ones: all in one go
  queue.Settle(first, 9, 9'000);

  run = OpenRun(10, {}, Source::kLocal, true);
  queue.Push(run);
  ASSERT_TRUE(queue.Take(4, &first));
  queue.Widen(run);
  EXPECT_TRUE(queue.Take(4, &second));
}

TEST(FairQueue, NewcomerDoesNotWaitForTimeThatWasChargedInAdvanceAndNotUsed) {
  FairQueue queue({});
  queue.Push(OpenRun(100'000, {"old", 1.0}));
  Lease lease;
  ASSERT_TRUE(queue.Take(16, &lease));
  queue.Settle(lease, 1, 10'000'000'000);  // the first of its items takes 10 s, each of the others 1 ms
  std::vector<Lease> leases(16);
  for (Lease& one : leases) ASSERT_TRUE(queue.Take(16, &one));
  for (Lease& one : leases) queue.Settle(one, one.items.count, 1'000'000);
  queue.Push(OpenRun(1, {"new", 1.0}));
  EXPECT_LE(queue.virtual_ns_of("new"), queue.virtual_ns_of("old"));
}

TEST(FairQueue, AdvanceIsPaidBackByTheWeightThatItWasChargedBy) {
  FairQueue queue({});
  queue.Push(OpenRun(1'000, {"job", 1'000.0}));
  Lease lease;
  ASSERT_TRUE(queue.Take(2, &lease));
  queue.Settle(lease, 1, 1'000'000'000);
  ASSERT_TRUE(queue.Take(2, &lease));    // charged 1 s / 1,000 in advance
  queue.Push(OpenRun(1, {"job", 1.0}));  // the job's weight is another now
  queue.Settle(lease, 1, 1'000);
  EXPECT_NEAR(queue.virtual_ns_of("job"), 1'000'000 + 1'000, 1);
}

TEST(FairQueue, IdleJobsAreForgotten) {
  FairQueue queue({});
  for (int job = 0; job < 10'000; ++job) {
    Lease lease;
    queue.Push(OpenRun(1, {"job " + std::to_string(job), 1.0}));
    ASSERT_TRUE(queue.Take(1, &lease));
    queue.Settle(lease, 1, 1'000);
    ASSERT_LE(queue.jobs(), 130u);
  }
}

// Random calls in one thread, next to a plain account of which items are where.
TEST(FairQueue, DealsEveryItemOnceUnderRandomCalls) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  FairQueue queue({});
  std::map<slots::Run*, std::vector<int>> dealt;
  std::vector<Ticket> runs;
  std::vector<Lease> leases;
  const auto settle = [&](size_t at) {
    const Lease lease = leases[at];
    leases.erase(leases.begin() + static_cast<ptrdiff_t>(at));
    queue.Settle(lease, lease.items.count, static_cast<int64_t>(random() % 100'000));
  };
  size_t waiting = 0;
  for (int step = 0; step < 5'000; ++step) {
    const auto what = random() % 100;
    if (what < 15) {
      const auto source = random() % 2 ? Source::kLocal : Source::kNetwork;
      const JobShare share{std::to_string(random() % 5), 0.5 + static_cast<double>(random() % 4)};
      runs.push_back(OpenRun(1 + random() % 30, share, source, random() % 3 == 0));
      dealt[runs.back().get()].resize(runs.back()->item_count());
      queue.Push(runs.back());
      waiting += runs.back()->item_count();
    } else if (what < 60) {
      Lease lease;
      const bool some = !queue.empty();
      ASSERT_EQ(queue.Take(1 + random() % 4, &lease), some);
      if (!some) continue;
      for (size_t i = 0; i < lease.items.count; ++i) ++dealt[lease.run.get()][lease.items.first + i];
      waiting -= lease.items.count;
      leases.push_back(lease);
    } else if (what < 92) {
      if (!leases.empty()) settle(random() % leases.size());
    } else if (what < 96 && !runs.empty()) {
      queue.Widen(runs[random() % runs.size()]);
    } else if (!runs.empty()) {
      slots::Run& run = *runs[random() % runs.size()];
      Ticket dropped;
      const ItemRange rest = queue.TakeRest(run, &dropped);
      for (size_t i = 0; i < rest.count; ++i) ++dealt[&run][rest.first + i];
      waiting -= rest.count;
    }
    ASSERT_EQ(queue.items_queued(), waiting);
  }
  while (!leases.empty() || !queue.empty()) {
    Lease lease;
    if (queue.Take(1, &lease)) {
      for (size_t i = 0; i < lease.items.count; ++i) ++dealt[lease.run.get()][lease.items.first + i];
      leases.push_back(lease);
    }
    settle(0);
  }
  for (const auto& [run, counts] : dealt) {
    for (int count : counts) ASSERT_EQ(count, 1);
  }
  EXPECT_EQ(queue.items_queued(), 0u);
}

}  // namespace
}  // namespace sabot::slots

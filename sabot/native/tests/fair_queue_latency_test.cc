// How long a short job waits under a long one that always has work, on a clock that is told: what the fair queue
// promises, free of what a machine adds.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "sabot/native/slots/fair_queue.h"
#include "sabot/native/tests/dealt_run.h"

namespace sabot::slots {
namespace {

struct Case {
  int slots;
  int64_t long_ns;     // what a morsel of the long job takes, on average
  int64_t short_ns;    // and of the short one
  size_t short_items;  // that the short job sends at once, then waits for
  double short_weight;
  Source short_source = Source::kLocal;
  bool same_job = false;  // both are one job's: what is local under what came by network
};

std::string Say(const Case& one) {
  return std::to_string(one.slots) + " slots, long " + std::to_string(one.long_ns) + " ns, short " +
         std::to_string(one.short_items) + " x " + std::to_string(one.short_ns) + " ns of weight " +
         std::to_string(one.short_weight);
}

/// Slots that work off the queue in the order of time, while one job sends its next items a while after it has got the
/// last ones back.
class Latencies {
 public:
  Latencies(const Case& one, bool fair, uint32_t seed)
      : case_(one), random_(seed), queue_({.fair = fair}), slots_(static_cast<size_t>(one.slots)) {
    queue_.Push(OpenRun(1'000'000'000, {one.same_job ? "short" : "long", one.same_job ? one.short_weight : 1.0},
                        one.short_source == Source::kLocal ? Source::kNetwork : Source::kLocal));
  }

  /// How long each of `requests` took from its Push to the end of its last item.
  std::vector<int64_t> Run(size_t requests) {
    while (took_.size() < requests) {
      auto slot = std::min_element(slots_.begin(), slots_.end(),
                                   [](const Held& a, const Held& b) { return a.free_at < b.free_at; });
      if (left_ == 0 && next_at_ <= slot->free_at) Send();
      Serve(*slot);
    }
    return took_;
  }

 private:
  struct Held {
    Lease lease;
    int64_t ns = 0;
    int64_t free_at = 0;
  };

  int64_t About(int64_t ns) { return ns / 2 + static_cast<int64_t>(random_() % static_cast<uint64_t>(ns + 1)); }

  void Send() {
    sent_at_ = next_at_;
    left_ = case_.short_items;
    short_ = OpenRun(left_, {"short", case_.short_weight}, case_.short_source);
    queue_.Push(short_);
  }

  void Serve(Held& slot) {
    if (slot.lease.run) queue_.Settle(slot.lease, slot.lease.items.count, slot.ns);
    if (slot.lease.run && slot.lease.run == short_ && (left_ -= slot.lease.items.count) == 0) {
      took_.push_back(ended_at_ - sent_at_);
      next_at_ = ended_at_ + static_cast<int64_t>(random_() % static_cast<uint64_t>(2 * case_.long_ns));
      short_ = nullptr;
    }
    slot.lease = {};
    ASSERT_TRUE(queue_.Take(slots_.size(), &slot.lease));
    slot.ns = 0;
    const bool is_short = slot.lease.run == short_;
    for (size_t i = 0; i < slot.lease.items.count; ++i) slot.ns += About(is_short ? case_.short_ns : case_.long_ns);
    slot.free_at += slot.ns;
    if (is_short) ended_at_ = std::max(ended_at_, slot.free_at);
  }

  const Case case_;
  std::mt19937 random_;
  FairQueue queue_;
  std::vector<Held> slots_;
  Ticket short_;
  size_t left_ = 0;      // items of the short job's that have not ended
  int64_t next_at_ = 0;  // when the short job sends again
  int64_t sent_at_ = 0;
  int64_t ended_at_ = 0;
  std::vector<int64_t> took_;
};

double P99(std::vector<int64_t> values) {
  const auto at = values.begin() + static_cast<ptrdiff_t>(values.size() * 99 / 100);
  std::nth_element(values.begin(), at, values.end());
  return static_cast<double>(*at);
}

/// Twice what the short job's share of the slots would give it alone, and one morsel of the long job, or, where that is
/// shorter than a lease, a lease: one whose morsels take longer than those before ends after twice its time.
double Bound(const Case& one) {
  const double share = one.same_job ? 0.5 : one.short_weight / (one.short_weight + 1.0);
  // A slot alone takes whole items.
  const double alone = std::max(static_cast<double>(one.short_ns),
                                static_cast<double>(one.short_ns * static_cast<int64_t>(one.short_items)) / one.slots);
  const int64_t lease_ns = FairQueue::Options{}.lease_ns;
  const double waits =
      1.5 * static_cast<double>(one.long_ns) + (one.long_ns < lease_ns ? 2 * static_cast<double>(lease_ns) : 0);
  return 2 * alone / share + waits;
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const int slots : {1, 3}) {
    for (const int64_t long_ns : {10'000, 300'000, 5'000'000}) {
      for (const int64_t short_ns : {2'000, 100'000, 1'000'000}) {
        for (const size_t items : {1, 10, 100}) {
          for (const double weight : {0.3, 1.0, 4.0}) cases.push_back({slots, long_ns, short_ns, items, weight});
        }
      }
    }
  }
  return cases;
}

TEST(FairLatency, ShortJobUnderALongOneIsWithinTwiceItsShareAndOneMorsel) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  for (const Case& one : Cases()) {
    EXPECT_LE(P99(Latencies(one, /*fair=*/true, seed).Run(100)), Bound(one)) << Say(one);
  }
}

TEST(FairLatency, WithoutFairnessShortMorselsWaitBehindEachLongOne) {
  const Case one{1, 5'000'000, 100'000, 10, 1.0};
  EXPECT_GT(P99(Latencies(one, /*fair=*/false, 1).Run(100)), 3 * Bound(one));
}

TEST(FairLatency, NeitherSourceOfAJobIsStarvedByTheOther) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  for (const Source source : {Source::kLocal, Source::kNetwork}) {
    for (Case one : Cases()) {
      one.short_source = source;
      one.same_job = true;
      EXPECT_LE(P99(Latencies(one, /*fair=*/true, seed).Run(100)), Bound(one)) << Say(one);
    }
  }
}

TEST(FairLatency, WithoutFairnessLocalWorkStarvesWhatCameByNetwork) {
  for (const bool fair : {true, false}) {
    FairQueue queue({.fair = fair});
    queue.Push(OpenRun(1'000'000, {"job", 1.0}, Source::kLocal));
    queue.Push(OpenRun(10, {"job", 1.0}, Source::kNetwork));
    int by_network = 0;
    for (int step = 0; step < 100; ++step) {
      Lease lease;
      ASSERT_TRUE(queue.Take(1, &lease));
      by_network += lease.source == Source::kNetwork;
      queue.Settle(lease, lease.items.count, 100'000 * static_cast<int64_t>(lease.items.count));
    }
    EXPECT_EQ(by_network, fair ? 10 : 0);
  }
}

}  // namespace
}  // namespace sabot::slots

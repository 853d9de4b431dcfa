// Small histories of the ring queue, each explained by some order of its calls, one after the other; found by search.
#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <deque>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "sabot/native/slots/mpmc_queue.h"

namespace sabot::slots {
namespace {

struct Call {
  bool push = false;
  bool ok = false;
  int value = 0;
  int began = 0;  // on one clock that ticks with every begin and end
  int ended = 0;
};

using History = std::vector<Call>;

bool Overlaps(const Call& a, const Call& b) { return a.began < b.ended && b.began < a.ended; }

/// Whether the calls not yet `done` have an order that a queue of `capacity` could have answered so. A call may come
/// next if none that is left ended before it began. "Empty" or "full" is right, too, while a call of the other kind is
/// under way: it may hold the cell (see MpmcQueue).
bool HasOrder(const History& history, size_t capacity, std::vector<bool>& done, std::deque<int>& queue) {
  bool all = true;
  for (size_t i = 0; i < history.size(); ++i) {
    if (done[i]) continue;
    all = false;
    const Call& call = history[i];
    bool first = true;
    bool excused = false;
    for (size_t j = 0; j < history.size(); ++j) {
      first = first && (done[j] || history[j].ended > call.began);
      excused = excused || (history[j].push != call.push && history[j].ok && Overlaps(history[j], call));
    }
    if (!first) continue;
    const bool possible = call.push ? queue.size() < capacity : !queue.empty();
    if (call.ok ? !possible || (!call.push && queue.front() != call.value) : possible && !excused) continue;
    done[i] = true;
    const std::deque<int> before = queue;
    if (call.ok && call.push) queue.push_back(call.value);
    if (call.ok && !call.push) queue.pop_front();
    if (HasOrder(history, capacity, done, queue)) return true;
    queue = before;
    done[i] = false;
  }
  return all;
}

bool HasOrder(const History& history, size_t capacity) {
  std::vector<bool> done(history.size());
  std::deque<int> queue;
  return HasOrder(history, capacity, done, queue);
}

TEST(QueueHistory, SearchRefusesWrongAnswers) {
  const Call push_1{true, true, 1, 0, 1};
  const Call push_2{true, true, 2, 2, 3};
  EXPECT_TRUE(HasOrder({push_1, push_2, {false, true, 1, 4, 5}, {false, true, 2, 6, 7}}, 2));
  EXPECT_FALSE(HasOrder({push_1, push_2, {false, true, 2, 4, 5}, {false, true, 1, 6, 7}}, 2)) << "out of order";
  EXPECT_FALSE(HasOrder({push_1, {false, true, 1, 2, 3}, {false, true, 1, 4, 5}}, 2)) << "doubled";
  EXPECT_FALSE(HasOrder({push_1, {false, false, 0, 2, 3}}, 2)) << "lost";
  EXPECT_FALSE(HasOrder({push_1, push_2, {true, true, 3, 4, 5}}, 2)) << "more than fits";
  EXPECT_FALSE(HasOrder({push_1, {true, false, 2, 2, 3}}, 2)) << "full too early";
  EXPECT_TRUE(HasOrder({{true, true, 1, 0, 3}, {false, false, 0, 1, 2}}, 2)) << "empty while a push is under way";
}

TEST(QueueHistory, EveryHistoryOfThreeThreadsHasAnOrder) {
  constexpr int kThreads = 3;
  constexpr int kCalls = 3;
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  for (const size_t capacity : {2, 4}) {
    for (int round = 0; round < 1'500; ++round) {
      MpmcQueue<int> queue(capacity);
      std::atomic<int> clock{0};
      std::barrier start(kThreads);
      std::vector<History> histories(kThreads);
      {
        std::vector<std::jthread> threads;
        for (int t = 0; t < kThreads; ++t) {
          threads.emplace_back([&, t] {
            std::mt19937 random(seed + static_cast<unsigned>(round * kThreads + t));
            start.arrive_and_wait();
            for (int c = 0; c < kCalls; ++c) {
              Call call{.push = random() % 2 == 0, .value = t * kCalls + c};
              call.began = clock.fetch_add(1);
              call.ok = call.push ? queue.TryPush(call.value) : queue.TryPop(&call.value);
              call.ended = clock.fetch_add(1);
              histories[t].push_back(call);
            }
          });
        }
      }
      History all;
      for (int t = 0; t < kThreads; ++t) {
        for (Call& call : histories[t]) all.push_back(call);
      }
      ASSERT_TRUE(HasOrder(all, capacity)) << "round " << round;
    }
  }
}

}  // namespace
}  // namespace sabot::slots

// The ring queue: against a model in one thread, then with more threads than cells.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "sabot/native/slots/mpmc_queue.h"

namespace sabot::slots {
namespace {

TEST(MpmcQueue, CapacityMustBeAPowerOfTwoAboveOne) {
  using Queue = MpmcQueue<int>;
  for (size_t good : {2, 4, 1024}) EXPECT_TRUE(Queue::CapacityIsValid(good)) << good;
  for (size_t bad : {0, 1, 3, 1000}) EXPECT_FALSE(Queue::CapacityIsValid(bad)) << bad;
}

TEST(MpmcQueue, AgreesWithADequeUnderRandomOperations) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (size_t capacity : {2, 4, 8, 64}) {
    MpmcQueue<int> queue(capacity);
    std::deque<int> model;
    for (int step = 0; step < 20'000; ++step) {
      // Long stretches of one kind, so that full and empty are both reached.
      const bool push = (random() % 100) < ((step / 500) % 2 == 0 ? 70u : 30u);
      if (push) {
        int value = step;
        ASSERT_EQ(queue.TryPush(value), model.size() < capacity);
        if (model.size() < capacity) model.push_back(step);
      } else {
        int value = -1;
        ASSERT_EQ(queue.TryPop(&value), !model.empty());
        if (!model.empty()) {
          ASSERT_EQ(value, model.front());
          model.pop_front();
        }
      }
      ASSERT_EQ(queue.size_approx(), model.size());
    }
  }
}

TEST(MpmcQueue, PushIntoFullLeavesTheValueWithTheCaller) {
  MpmcQueue<std::shared_ptr<int>> queue(2);
  auto a = std::make_shared<int>(1);
  auto b = std::make_shared<int>(2);
  auto c = std::make_shared<int>(3);
  EXPECT_TRUE(queue.TryPush(a));
  EXPECT_TRUE(queue.TryPush(b));
  EXPECT_FALSE(queue.TryPush(c));
  EXPECT_EQ(a, nullptr);
  ASSERT_NE(c, nullptr);
  EXPECT_EQ(*c, 3);
}

TEST(MpmcQueue, KeepsNothingAliveAfterPop) {
  MpmcQueue<std::shared_ptr<int>> queue(2);
  auto value = std::make_shared<int>(7);
  const std::weak_ptr<int> watch = value;
  ASSERT_TRUE(queue.TryPush(value));
  std::shared_ptr<int> out;
  ASSERT_TRUE(queue.TryPop(&out));
  out.reset();
  EXPECT_TRUE(watch.expired());
}

struct Shape {
  size_t capacity;
  int producers;
  int consumers;
};

class MpmcQueueThreads : public ::testing::TestWithParam<Shape> {};

// Producer p pushes p * kEach .. (p + 1) * kEach - 1. Every value must come out once, and each consumer must see the
// values of one producer in their order.
TEST_P(MpmcQueueThreads, EveryValueComesOutExactlyOnceInItsProducersOrder) {
  constexpr int kEach = 4'000;
  const auto [capacity, producers, consumers] = GetParam();
  MpmcQueue<int> queue(capacity);
  std::atomic<int> left{producers * kEach};
  std::vector<std::vector<int>> taken(consumers);
  {
    std::vector<std::jthread> threads;
    for (int p = 0; p < producers; ++p) {
      threads.emplace_back([&, p] {
        for (int i = 0; i < kEach; ++i) {
          int value = p * kEach + i;
          while (!queue.TryPush(value)) std::this_thread::yield();
        }
      });
    }
    for (int c = 0; c < consumers; ++c) {
      threads.emplace_back([&, c] {
        while (left.load(std::memory_order_relaxed) > 0) {
          int value = -1;
          if (queue.TryPop(&value)) {
            taken[c].push_back(value);
            left.fetch_sub(1, std::memory_order_relaxed);
          } else {
            std::this_thread::yield();
          }
        }
      });
    }
  }
  std::vector<int> all;
  for (const auto& values : taken) {
    std::vector<int> last(producers, -1);
    for (int value : values) {
      ASSERT_LT(last[value / kEach], value);
      last[value / kEach] = value;
    }
    all.insert(all.end(), values.begin(), values.end());
  }
  std::sort(all.begin(), all.end());
  ASSERT_EQ(all.size(), static_cast<size_t>(producers * kEach));
  for (size_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], static_cast<int>(i));
}

INSTANTIATE_TEST_SUITE_P(Shapes, MpmcQueueThreads,
                         ::testing::Values(Shape{2, 1, 1}, Shape{2, 3, 3}, Shape{2, 1, 4}, Shape{2, 4, 1},
                                           Shape{4, 5, 5}, Shape{4, 8, 2}, Shape{64, 3, 3}),
                         [](const auto& info) {
                           return "cells" + std::to_string(info.param.capacity) + "push" +
                                  std::to_string(info.param.producers) + "pop" + std::to_string(info.param.consumers);
                         });

}  // namespace
}  // namespace sabot::slots

// A lane between its owner and thieves: every item goes to one of them, and small histories have a sequential order.
#include "sabot/native/slots/lane.h"

#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <functional>
#include <mutex>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace sabot::slots {
namespace {

TEST(Lane, OwnerTakesFromTheFrontAndThievesTheLaterHalf) {
  Lane lane;
  lane.Fill({10, 5});
  size_t index = 0;
  ASSERT_TRUE(lane.Pop(&index));
  EXPECT_EQ(index, 10u);
  const ItemRange half = lane.TakeHalf();
  EXPECT_EQ(half.first, 13u);
  EXPECT_EQ(half.count, 2u);
  EXPECT_EQ(lane.size_approx(), 2u);
  const ItemRange rest = lane.TakeAll();
  EXPECT_EQ(rest.first, 11u);
  EXPECT_EQ(rest.count, 2u);
  EXPECT_FALSE(lane.Pop(&index));
  EXPECT_FALSE(lane.Pop(&index));
  EXPECT_EQ(lane.TakeHalf().count, 0u);
  EXPECT_EQ(lane.size_approx(), 0u);
}

class LaneThreads : public ::testing::TestWithParam<int> {};

TEST_P(LaneThreads, EveryItemIsTakenOnceWithMoreThievesThanItems) {
  constexpr int kRounds = 1'500;
  const size_t items = static_cast<size_t>(GetParam());
  constexpr int kThieves = 5;
  Lane lane;
  std::mutex lock;  // stands for the queue lock
  std::vector<std::atomic<int>> taken(items);
  std::atomic<int> bad{0};
  std::barrier both(kThieves + 1);
  std::vector<std::jthread> thieves;
  for (int t = 0; t < kThieves; ++t) {
    thieves.emplace_back([&] {
      for (int round = 0; round < kRounds; ++round) {
        both.arrive_and_wait();
        ItemRange got;
        {
          std::lock_guard hold(lock);
          got = lane.TakeHalf();
        }
        for (size_t i = 0; i < got.count; ++i) taken[got.first + i].fetch_add(1);
        both.arrive_and_wait();
      }
    });
  }
  for (int round = 0; round < kRounds; ++round) {
    {
      std::lock_guard hold(lock);
      lane.Fill({0, items});
    }
    both.arrive_and_wait();
    for (size_t index = 0; lane.Pop(&index);) taken[index].fetch_add(1);
    both.arrive_and_wait();
    for (auto& count : taken) {
      if (count.exchange(0) != 1) bad.fetch_add(1);
    }
  }
  thieves.clear();
  EXPECT_EQ(bad.load(), 0);
}

INSTANTIATE_TEST_SUITE_P(Items, LaneThreads, ::testing::Values(2, 3, 4, 64));

}  // namespace
}  // namespace sabot::slots

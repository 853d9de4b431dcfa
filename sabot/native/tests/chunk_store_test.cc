#include "sabot/native/shuffle/chunk_store.h"

#include <arrow/api.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "sabot/native/status.h"

namespace sabot::shuffle {
namespace {

using namespace std::chrono_literals;

ChunkStore::Spec SpecOf(const std::string& id) {
  ChunkStore::Spec spec;
  spec.book.shuffle_id = id;
  spec.book.agent = "here";
  spec.book.sender_count = 1;
  spec.book.owners_fixed = false;
  return spec;
}

// What frees a shuffle may need the GIL, and those who have the GIL call the store: under its lock that is a deadlock.
TEST(ChunkStore, NoShuffleIsFreedUnderTheLock) {
  for (int round = 0; round < 20; ++round) {
    ChunkStore store;
    std::vector<std::jthread> askers;
    bool free_of_lock = false;
    auto held = std::shared_ptr<void>(nullptr, [&](void*) {
      auto answered = std::make_shared<std::promise<void>>();
      askers.emplace_back([&store, answered] {
        (void)store.stats();
        answered->set_value();
      });
      free_of_lock = answered->get_future().wait_for(2s) == std::future_status::ready;
    });
    ChunkStore::Spec spec = SpecOf("s");
    spec.arrival = [held](const std::vector<Piece>&) {};
    held.reset();
    ASSERT_TRUE(store.Open(std::move(spec)).ok());
    std::vector<std::jthread> waiting;
    for (int i = 0; i < 3; ++i) waiting.emplace_back([&] { (void)store.WaitSenders("s", DeadlineIn(10)); });
    std::this_thread::yield();
    store.EndPrefix("s");
    waiting.clear();
    ASSERT_TRUE(free_of_lock) << "round " << round;
  }
}

TEST(ChunkStore, WaitersHearOfTheEndAndOfTheClose) {
  ChunkStore store;
  ASSERT_TRUE(store.Open(SpecOf("s")).ok());
  std::jthread ender([&] { store.EndPrefix("s"); });
  EXPECT_EQ(CodeOf(store.WaitSenders("s", DeadlineIn(60)).status()), Code::kPeerRefused);
  std::jthread closer([&] { store.Close(); });
  EXPECT_EQ(CodeOf(store.WaitOpen("unknown", 0, DeadlineIn(60))), Code::kPeerRefused);
}

TEST(ChunkStore, RowsOfAnEpochToComeWaitForItsTable) {
  ChunkStore store;
  ASSERT_TRUE(store.Open(SpecOf("s")).ok());
  EXPECT_TRUE(store.WaitOpen("s", 0, DeadlineIn(60)).ok());
  std::atomic<bool> told = false;
  std::jthread waiter([&] {
    EXPECT_TRUE(store.WaitOpen("s", 2, DeadlineIn(60)).ok());
    EXPECT_TRUE(told.load(std::memory_order_acquire));  // acquire: partner of the release below
  });
  ASSERT_TRUE(store.Reown("s", {.epoch = 1, .owner_of = {}, .given_up = {}}).ok());
  std::this_thread::yield();
  told.store(true, std::memory_order_release);
  ASSERT_TRUE(store.Reown("s", {.epoch = 2, .owner_of = {}, .given_up = {}}).ok());
  waiter.join();
  std::jthread ender([&] { store.EndPrefix("s"); });
  EXPECT_EQ(CodeOf(store.WaitOpen("s", 3, DeadlineIn(60))), Code::kPeerRefused);
}

TEST(ChunkStore, SecondsWithoutMeasureAreBounded) {
  const auto now = Clock::now();
  EXPECT_GT(DeadlineIn(std::numeric_limits<double>::infinity()), now + 24h);
  EXPECT_GT(DeadlineIn(1e300), now + 24h);
  EXPECT_LT(DeadlineIn(std::numeric_limits<double>::quiet_NaN()), now + 1h);
  EXPECT_LT(DeadlineIn(-1e300), now + 1h);
}

TEST(EndedNames, CoverWhatLiesBelowAndNothingBeside) {
  EndedNames ended;
  ended.Remember("job/1");
  EXPECT_TRUE(ended.Contains("job/1"));
  EXPECT_TRUE(ended.Contains("job/1/2"));
  EXPECT_FALSE(ended.Contains("job/10"));
  EXPECT_FALSE(ended.Contains("job"));
  EXPECT_FALSE(ended.Contains(""));
}

TEST(Status, LongMessagesKeepBothEndsAndWholeCharacters) {
  std::string message = "first ";
  for (int i = 0; i < 1000; ++i) message += "ü";
  message += " last";
  for (size_t bytes = 60; bytes < 70; ++bytes) {
    const std::string cut = ShortMessage(message, bytes);
    EXPECT_LE(cut.size(), bytes);
    EXPECT_TRUE(cut.starts_with("first ") && cut.ends_with(" last")) << cut;
    size_t letters = 0;
    for (size_t at = cut.find("ü"); at != std::string::npos; at = cut.find("ü", at + 2)) ++letters;
    EXPECT_EQ(cut.size(), 6 + 5 + 5 + 2 * letters) << cut;
  }
  EXPECT_EQ(ShortMessage("short", 60), "short");
}

}  // namespace
}  // namespace sabot::shuffle

// Credits out of a real ledger: what can never be granted is refused, and what nobody asks for any more presses nobody.
#include "sabot/native/shuffle/credits.h"

#include <gtest/gtest.h>

#include "sabot/native/status.h"

namespace sabot::shuffle {
namespace {

using memory::Promise;

struct SmallReceiver {  // with room for 75 bytes below its high-water mark
  std::shared_ptr<memory::Ledger> ledger = std::make_shared<memory::Ledger>(memory::Ledger::Options{.bytes_max = 100});
  Credits credits{ledger, {.chunk_bytes = 10, .window_chunks = 1}};
};

Credits::Clock::time_point In(int ms) { return Credits::Clock::now() + std::chrono::milliseconds(ms); }

TEST(Credits, ChunkThatDoesNotFitBesideThePeersOwnChunksIsRefused) {
  SmallReceiver receiver;
  const auto stream = receiver.credits.Open("a");
  EXPECT_EQ(CodeOf(stream->WaitGranted(66, In(20'000))), Code::kLimit);
  EXPECT_TRUE(stream->WaitGranted(65, In(20'000)).ok());
  EXPECT_EQ(stream->granted(), 65);
}

TEST(Credits, WhatIsGrantedAheadPressesNobody) {
  SmallReceiver receiver;
  ASSERT_TRUE(receiver.ledger->TryReserve(Promise::kTasks, 60));
  const auto stream = receiver.credits.Open("a");
  EXPECT_EQ(stream->granted(), 0);
  EXPECT_EQ(receiver.ledger->bytes_to_free(), 0);
}

TEST(Credits, RequestThatHasBeenAnsweredUnmetFreesNothingAndHoldsUpNobody) {
  SmallReceiver receiver;
  const auto large = receiver.credits.Open("a");
  const auto small = receiver.credits.Open("b");
  ASSERT_TRUE(receiver.ledger->TryReserve(Promise::kTasks, 15));
  ASSERT_TRUE(large->WaitGranted(40, In(1)).ok());
  EXPECT_EQ(large->granted(), 10) << "only what was granted ahead";
  EXPECT_EQ(receiver.ledger->bytes_to_free(), 0);
  ASSERT_TRUE(small->WaitGranted(25, In(20'000)).ok());
  EXPECT_EQ(small->granted(), 25);
}

TEST(Credits, PeersOwnChunkWaitsWhileTheDiskIsAtWorkAndNoLonger) {
  SmallReceiver receiver;
  const auto stream = receiver.credits.Open("a");
  ASSERT_TRUE(receiver.ledger->TryReserve(Promise::kTasks, 55));  // what is left was granted ahead
  receiver.ledger->SetFreeing(true);
  ASSERT_TRUE(stream->WaitGranted(20, In(1)).ok());
  EXPECT_EQ(stream->granted(), 10) << "a fast peer would fill the memory past a slow disk";
  receiver.ledger->SetFreeing(false);
  receiver.ledger->TellEnded();
  ASSERT_TRUE(stream->WaitGranted(20, In(20'000)).ok());
  EXPECT_EQ(stream->granted(), 20);
}

TEST(Credits, RequestThatWakesTheDiskInVainGetsThePeersOwnChunk) {
  SmallReceiver receiver;
  const auto stream = receiver.credits.Open("a");
  ASSERT_TRUE(receiver.ledger->TryReserve(Promise::kTasks, 55));
  const int64_t waker =
      receiver.ledger->AddListener(memory::Event::kHighWater, [&] { receiver.ledger->SetFreeing(true); });
  ASSERT_TRUE(stream->WaitGranted(20, In(20'000)).ok());
  EXPECT_EQ(stream->granted(), 20);
  EXPECT_TRUE(receiver.ledger->freeing());
  receiver.ledger->RemoveListener(waker);
}

}  // namespace
}  // namespace sabot::shuffle

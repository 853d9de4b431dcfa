// The desk of credits: what it grants is reserved, in the order in which streams came to wait, each peer's own chunk
// for that peer alone; and everything comes back.
#include "sabot/native/shuffle/credit_desk.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace sabot::shuffle {
namespace {

constexpr int64_t kChunk = 10;

/// A ledger with so much room, and what drives the desk.
struct Receiver {
  CreditDesk desk{{.chunk_bytes = kChunk, .window_chunks = 2}};
  int64_t room = 0;      // what TryReserve would give
  int64_t reserved = 0;  // what the desk has

  bool TryReserve(int64_t bytes) {
    if (bytes > room) return false;
    room -= bytes;
    reserved += bytes;
    return true;
  }
  void GiveBack(int64_t bytes) {
    room += bytes;
    reserved -= bytes;
  }
  void Open(CreditDesk::StreamId stream, const std::string& peer) {
    const int64_t own = desk.Opened(stream, peer);
    room -= own;  // whatever there is
    reserved += own;
    GrantAhead(stream);
  }
  void GrantAhead(CreditDesk::StreamId stream) {
    const auto need = desk.Ahead(stream);
    if (need && TryReserve(need->bytes)) GiveBack(desk.Reserved(*need));
  }
  void Serve() {
    while (const auto need = desk.NextWaiting()) {
      if (TryReserve(need->bytes)) {
        GiveBack(desk.Reserved(*need));
      } else {
        desk.LendOwnChunks();
        return;
      }
    }
  }
  void Settle(CreditDesk::StreamId stream, int64_t bytes) {
    GiveBack(desk.Settled(stream, bytes));
    Serve();
    GrantAhead(stream);
  }
};

TEST(CreditDesk, GrantsAheadWhileThereIsRoom) {
  Receiver receiver{.room = 100};
  receiver.Open(1, "a");
  EXPECT_EQ(receiver.desk.granted(1), 2 * kChunk);
  EXPECT_EQ(receiver.reserved, 3 * kChunk) << "what is granted, and the peer's own chunk";
  ASSERT_TRUE(receiver.desk.Arrived(1, kChunk));
  receiver.Settle(1, kChunk);
  EXPECT_EQ(receiver.desk.granted(1), 3 * kChunk);
}

TEST(CreditDesk, WhatIsBeyondTheGrantIsRefusedAndLeavesItAsItWas) {
  Receiver receiver{.room = 2 * kChunk + kChunk};
  receiver.Open(1, "a");
  EXPECT_FALSE(receiver.desk.Arrived(1, 2 * kChunk + 1));
  EXPECT_FALSE(receiver.desk.Arrived(1, -1));
  EXPECT_TRUE(receiver.desk.Arrived(1, 2 * kChunk));
  EXPECT_FALSE(receiver.desk.Arrived(1, 1));
}

TEST(CreditDesk, WithoutRoomEachPeerHasOneChunkOfItsOwnAndNoMore) {
  Receiver receiver{.room = 0};
  for (const auto& [stream, peer] : {std::pair(1, "a"), std::pair(2, "a"), std::pair(3, "b")}) {
    receiver.Open(static_cast<CreditDesk::StreamId>(stream), peer);
    EXPECT_EQ(receiver.desk.granted(static_cast<CreditDesk::StreamId>(stream)), 0);
    receiver.desk.Wanted(static_cast<CreditDesk::StreamId>(stream), kChunk);
  }
  receiver.Serve();
  EXPECT_EQ(receiver.desk.granted(1), kChunk);
  EXPECT_EQ(receiver.desk.granted(2), 0) << "the peer's own chunk is out";
  EXPECT_EQ(receiver.desk.granted(3), kChunk);
  ASSERT_TRUE(receiver.desk.Arrived(1, kChunk));
  receiver.Settle(1, kChunk);
  EXPECT_EQ(receiver.desk.granted(2), kChunk) << "it is back, and lent to the peer's next stream";
}

TEST(CreditDesk, WhoWaitedLongerIsServedFirstAndNobodyGetsAhead) {
  Receiver receiver{.room = 0};
  receiver.Open(1, "a");
  receiver.Open(2, "b");
  receiver.desk.Wanted(2, 3 * kChunk);
  receiver.desk.Wanted(1, 2 * kChunk);
  receiver.room = 2 * kChunk;
  receiver.Serve();
  EXPECT_EQ(receiver.desk.granted(2), 0);
  EXPECT_EQ(receiver.desk.granted(1), 0) << "it came later, though there would be room for it";
  EXPECT_FALSE(receiver.desk.Ahead(1).has_value());
  receiver.room = 3 * kChunk;
  receiver.Serve();
  EXPECT_EQ(receiver.desk.granted(2), 3 * kChunk);
}

TEST(CreditDesk, WhoHasBeenAnsweredKeepsNobodyWaitingUntilItAsksAgain) {
  Receiver receiver{.room = 0};
  receiver.Open(1, "a");
  receiver.Open(2, "b");
  receiver.desk.Wanted(1, 3 * kChunk);
  receiver.desk.Wanted(2, 2 * kChunk);
  receiver.desk.Answered(1);
  receiver.room = 2 * kChunk;
  receiver.Serve();
  EXPECT_EQ(receiver.desk.granted(2), 2 * kChunk);
  EXPECT_FALSE(receiver.desk.NextWaiting().has_value());
  receiver.desk.Wanted(2, 4 * kChunk);
  receiver.desk.Wanted(1, 3 * kChunk);
  EXPECT_EQ(receiver.desk.NextWaiting()->stream, 1u) << "it has kept its place";
}

TEST(CreditDesk, WhatDoesNotFitBesideEachPeersOwnChunkCanNeverBeGranted) {
  Receiver receiver{.room = 0};
  receiver.Open(1, "a");
  receiver.Open(2, "b");
  EXPECT_TRUE(receiver.desk.CanEverGrant(1, 3 * kChunk, 5 * kChunk));
  EXPECT_FALSE(receiver.desk.CanEverGrant(1, 3 * kChunk + 1, 5 * kChunk));
  EXPECT_TRUE(receiver.desk.CanEverGrant(1, kChunk, 0)) << "its own";
}

TEST(CreditDesk, WhatWasReservedForAStreamThatIsGoneIsGivenBack) {
  Receiver receiver{.room = 5 * kChunk};
  receiver.Open(1, "a");
  receiver.desk.Wanted(1, 4 * kChunk);
  const auto need = receiver.desk.NextWaiting();
  ASSERT_TRUE(receiver.TryReserve(need->bytes));
  receiver.GiveBack(receiver.desk.Closed(1));
  receiver.GiveBack(receiver.desk.Reserved(*need));
  EXPECT_EQ(receiver.reserved, 0);
}

struct RandomStreams {
  struct Stream {
    CreditDesk::StreamId id;
    int64_t arrived = 0;
    int64_t settled = 0;
  };

  void Step() {
    switch (random() % 6) {
      case 0:
        if (streams.size() > 7) break;
        receiver.Open(++last, std::string(1, static_cast<char>('a' + random() % 3)));
        streams.push_back({last, 0, 0});
        ++opened;
        break;
      case 1:
        if (Stream* stream = Any()) receiver.desk.Wanted(stream->id, Draw(receiver.desk.granted(stream->id) + 30));
        receiver.Serve();
        break;
      case 2:
        if (Stream* stream = Any()) Arrive(stream);
        break;
      case 3:
        if (Stream* stream = Any(); stream != nullptr && stream->arrived > stream->settled) {
          const int64_t bytes = 1 + Draw(stream->arrived - stream->settled - 1);
          stream->settled += bytes;
          receiver.Settle(stream->id, bytes);
        }
        break;
      case 4:  // somebody else takes memory or frees it
        taken = Draw(120) - taken;
        receiver.room -= taken;
        receiver.Serve();
        break;
      case 5:
        if (Stream* stream = Any(); stream != nullptr && random() % 4 == 0) Close(stream);
        break;
    }
  }
  void Arrive(Stream* stream) {
    const int64_t left = receiver.desk.granted(stream->id) - stream->arrived;
    const int64_t bytes = Draw(left + 3);
    ASSERT_EQ(receiver.desk.Arrived(stream->id, bytes), bytes <= left);
    if (bytes <= left) stream->arrived += bytes;
  }
  void Close(Stream* stream) {
    receiver.GiveBack(receiver.desk.Closed(stream->id));
    streams.erase(streams.begin() + (stream - streams.data()));
    receiver.Serve();
  }
  void Check() {
    ASSERT_EQ(receiver.desk.reserved(), receiver.reserved) << "reserved and granted come apart";
    for (const Stream& stream : streams) ASSERT_GE(receiver.desk.granted(stream.id), stream.arrived);
  }
  Stream* Any() { return streams.empty() ? nullptr : &streams[random() % streams.size()]; }
  int64_t Draw(int64_t most) {
    return most <= 0 ? 0 : static_cast<int64_t>(random() % static_cast<uint64_t>(most + 1));
  }

  std::mt19937_64 random;
  Receiver receiver{.room = 100};
  std::vector<Stream> streams;
  CreditDesk::StreamId last = 0;
  int opened = 0;
  int64_t taken = 0;
};

TEST(CreditDesk, ThroughRandomHistoriesGrantsAreReservedNobodyStarvesAndAllComesBack) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  for (int history = 0; history < 300; ++history) {
    RandomStreams model;
    model.random.seed(seed + static_cast<unsigned>(history));
    for (int step = 0; step < 300; ++step) {
      model.Step();
      model.Check();
      if (testing::Test::HasFatalFailure()) return;
    }
    // Everybody else lets go, and what has arrived is stored: then whoever waits is served, within as many turns.
    model.receiver.room += 10'000;
    for (int turn = 0; model.receiver.desk.NextWaiting(); ++turn) {
      ASSERT_LT(turn, 100) << "a stream starves";
      for (auto& stream : model.streams) {
        model.receiver.Settle(stream.id, stream.arrived - stream.settled);
        stream.settled = stream.arrived;
      }
      model.receiver.Serve();
    }
    while (!model.streams.empty()) model.Close(&model.streams.front());
    ASSERT_EQ(model.receiver.reserved, 0);
    ASSERT_EQ(model.receiver.desk.reserved(), 0);
  }
}

}  // namespace
}  // namespace sabot::shuffle

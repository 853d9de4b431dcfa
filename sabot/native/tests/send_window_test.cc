// The outbox's state machine: whatever breaks and whenever, every message is acknowledged once, in order on its stream,
// a manifest after all its chunks, and no more are under way than the window allows.
#include "sabot/native/shuffle/send_window.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>

namespace sabot::shuffle {
namespace {

Outgoing Message(uint32_t sequence) {
  Outgoing message;
  message.awaited.sequence = sequence;
  return message;
}

Ack AckOf(uint32_t sequence) { return Message(sequence).awaited; }

Outgoing Manifest(uint32_t attempt, uint32_t chunks) {
  Outgoing message = Message(chunks);
  message.awaited.kind = MessageKind::kManifest;
  message.awaited.attempt = attempt;
  return message;
}

bool MayWrite(const SendWindow& window, size_t stream) { return window.Next(stream) != nullptr; }

TEST(SendWindow, WritesNoMoreThanTheWindowBeforeAnAnswer) {
  SendWindow window("b", 1, 2);
  EXPECT_EQ(window.Write(0), nullptr);
  for (uint32_t i = 0; i < 3; ++i) window.Add(Message(i));
  EXPECT_EQ(window.Write(0)->awaited.sequence, 0);
  EXPECT_EQ(window.Write(0)->awaited.sequence, 1);
  EXPECT_EQ(window.Write(0), nullptr);
  EXPECT_EQ(window.Acknowledge(0, AckOf(0)).ValueOrDie()->awaited.sequence, 0);
  EXPECT_EQ(window.Write(0)->awaited.sequence, 2);
}

TEST(SendWindow, AnswerToAnotherMessageIsRefused) {
  SendWindow window("b:1", 2, 2);
  EXPECT_FALSE(window.Acknowledge(0, AckOf(0)).ok());
  window.Add(Message(0));
  EXPECT_FALSE(window.Acknowledge(0, AckOf(0)).ok()) << "it was not written yet";
  window.Write(0);
  EXPECT_FALSE(window.Acknowledge(1, AckOf(0)).ok()) << "it went over another stream";
  const auto refused = window.Acknowledge(0, AckOf(1));
  EXPECT_NE(refused.status().message().find("b:1 acknowledged another message"), std::string::npos);
  EXPECT_TRUE(window.Acknowledge(0, AckOf(0)).ok());
  EXPECT_TRUE(window.empty());
}

TEST(SendWindow, WhatIsNotAcknowledgedIsWrittenAgainAfterABreak) {
  SendWindow window("b", 1, 2);
  for (uint32_t i = 0; i < 3; ++i) window.Add(Message(i));
  window.Write(0);
  window.Write(0);
  ASSERT_TRUE(window.Acknowledge(0, AckOf(0)).ok());
  window.Rewind(0);
  EXPECT_EQ(window.unacknowledged(0), 0);
  EXPECT_EQ(window.Write(0)->awaited.sequence, 1);
  EXPECT_EQ(window.Write(0)->awaited.sequence, 2);
}

TEST(SendWindow, FurtherStreamsGetOnlyWhatTheFirstOnesHaveNoRoomFor) {
  SendWindow window("b", 3, 2);
  for (uint32_t i = 0; i < 3; ++i) window.Add(Message(i));
  EXPECT_FALSE(MayWrite(window, 1)) << "the first stream has room";
  window.Write(0);
  window.Write(0);
  EXPECT_TRUE(MayWrite(window, 1));
  EXPECT_FALSE(MayWrite(window, 2)) << "the second stream has room";
  EXPECT_EQ(window.Write(1)->awaited.sequence, 2);
  ASSERT_TRUE(window.Acknowledge(0, AckOf(0)).ok());
  window.Add(Message(3));
  EXPECT_FALSE(MayWrite(window, 1)) << "so that it falls idle";
  EXPECT_EQ(window.Write(0)->awaited.sequence, 3);
}

TEST(SendWindow, ManifestWaitsForItsOwnChunksAndForNoOthers) {
  SendWindow window("b", 2, 2);
  Outgoing other = Message(0);
  other.awaited.attempt = 1;
  window.Add(Message(0));
  window.Add(Message(1));
  window.Add(other);
  window.Add(Manifest(0, 2));
  window.Write(0);
  window.Write(0);
  EXPECT_EQ(window.Write(1)->awaited.attempt, 1);
  EXPECT_FALSE(MayWrite(window, 1)) << "the manifest could overtake its chunks";
  ASSERT_TRUE(window.Acknowledge(0, AckOf(0)).ok());
  EXPECT_FALSE(MayWrite(window, 0)) << "a chunk is under way";
  window.Rewind(0);
  EXPECT_EQ(window.Write(0)->awaited.sequence, 1);
  ASSERT_TRUE(window.Acknowledge(0, AckOf(1)).ok());
  EXPECT_EQ(window.Write(0)->awaited.kind, MessageKind::kManifest) << "the other attempt's chunk is still under way";
}

TEST(SendWindow, WritesOnlyWhatItsCreditCovers) {
  SendWindow window("b", 2, 2);
  for (uint32_t i = 0; i < 3; ++i) {
    Outgoing message = Message(i);
    message.bytes = 10;
    window.Add(message);
  }
  EXPECT_EQ(window.Write(0), nullptr) << "it has none yet";
  EXPECT_EQ(window.CreditFor(*window.Next(0), 0), 10);
  window.Granted(0, 15);
  EXPECT_EQ(window.Write(0)->awaited.sequence, 0);
  EXPECT_EQ(window.Write(0), nullptr);
  EXPECT_EQ(window.CreditFor(*window.Next(0), 0), 20);
  window.Granted(0, 20);
  EXPECT_EQ(window.Write(0)->awaited.sequence, 1);
  window.Rewind(0);
  window.Opened(0);
  EXPECT_EQ(window.Write(0), nullptr) << "the credit was of the DoPut that broke";
  window.Granted(0, 5);
  window.Granted(0, 3);
  EXPECT_EQ(window.CreditFor(*window.Next(0), 0), 10);
  window.Add(Manifest(1, 0));
  window.Granted(0, 30);
  for (uint32_t i = 0; i < 2; ++i) EXPECT_EQ(window.Write(0)->awaited.sequence, i);
  for (uint32_t i = 0; i < 2; ++i) ASSERT_TRUE(window.Acknowledge(0, AckOf(i)).ok());
  EXPECT_EQ(window.Write(0)->awaited.sequence, 2);
  EXPECT_EQ(window.Write(0)->awaited.kind, MessageKind::kManifest) << "it takes no credit";
}

TEST(SendWindow, ClearGivesBackEverythingOnce) {
  SendWindow window("b", 1, 2);
  for (uint32_t i = 0; i < 3; ++i) window.Add(Message(i));
  window.Add(Manifest(0, 3));
  window.Write(0);
  EXPECT_EQ(window.Clear().size(), 4);
  EXPECT_TRUE(window.empty());
  EXPECT_FALSE(MayWrite(window, 0));
  EXPECT_TRUE(window.Clear().empty());
}

// A peer that answers in order, over streams that break at random: what was under way then may have arrived or not.
struct RandomPeer {
  struct Stream {
    std::deque<Ack> under_way, answers;
  };
  explicit RandomPeer(std::mt19937* random, size_t streams, size_t limit, uint32_t total)
      : random(*random), limit(limit), total(total), window("b", streams, limit), streams(streams), arrived(total) {}

  void Step(bool may_break) {
    const size_t at = random() % streams.size();
    Stream& stream = streams[at];
    switch (random() % (may_break ? 5 : 4)) {
      case 0:
        if (added < total) window.Add(Message(added++));
        if (added == total && !manifest_added) window.Add(Manifest(0, total));
        manifest_added = added == total;
        break;
      case 1:
        if (const auto message = window.Write(at)) stream.under_way.push_back(message->awaited);
        ASSERT_LE(window.unacknowledged(at), limit);
        break;
      case 2:
        if (stream.under_way.empty()) break;
        Arrive(stream.under_way.front());
        stream.answers.push_back(stream.under_way.front());
        stream.under_way.pop_front();
        break;
      case 3:
        if (stream.answers.empty()) break;
        ASSERT_TRUE(window.Acknowledge(at, stream.answers.front()).ok());
        ++answered;
        stream.answers.pop_front();
        break;
      case 4:
        stream = {};
        window.Rewind(at);
        break;
    }
  }
  void Arrive(const Ack& message) {
    if (message.kind == MessageKind::kChunk) {
      ++arrived[message.sequence];
    } else {
      for (const int times : arrived) ASSERT_GE(times, 1) << "the manifest came before a chunk";
    }
  }

  std::mt19937& random;
  const size_t limit;
  const uint32_t total;
  SendWindow window;
  std::vector<Stream> streams;
  std::vector<int> arrived;
  uint32_t added = 0;
  uint32_t answered = 0;
  bool manifest_added = false;
};

TEST(SendWindow, ThroughRandomBreaksEveryMessageArrivesAndIsAnsweredOnceAndTheManifestLast) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int history = 0; history < 500; ++history) {
    RandomPeer peer(&random, 1 + random() % 3, 1 + random() % 4, random() % 20);
    for (int step = 0; peer.answered < peer.total + 1; ++step) {
      ASSERT_LT(step, 20'000);
      peer.Step(/*may_break=*/step < 2'000);  // at last nothing breaks any more
      if (HasFatalFailure()) return;
    }
    EXPECT_TRUE(peer.window.empty());
  }
}

}  // namespace
}  // namespace sabot::shuffle

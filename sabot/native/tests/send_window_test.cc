// The outbox's state machine: whatever breaks and whenever, every message is acknowledged once, in order, and no more
// are under way than the window allows.
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

TEST(SendWindow, WritesNoMoreThanTheWindowBeforeAnAnswer) {
  SendWindow window("b", 2);
  EXPECT_EQ(window.Write(), nullptr);
  for (uint32_t i = 0; i < 3; ++i) window.Add(Message(i));
  EXPECT_EQ(window.Write()->awaited.sequence, 0);
  EXPECT_EQ(window.Write()->awaited.sequence, 1);
  EXPECT_EQ(window.Write(), nullptr);
  EXPECT_EQ(window.Acknowledge(AckOf(0)).ValueOrDie().awaited.sequence, 0);
  EXPECT_EQ(window.Write()->awaited.sequence, 2);
}

TEST(SendWindow, AnswerToAnotherMessageIsRefused) {
  SendWindow window("b:1", 2);
  EXPECT_FALSE(window.Acknowledge(AckOf(0)).ok());
  window.Add(Message(0));
  EXPECT_FALSE(window.Acknowledge(AckOf(0)).ok()) << "it was not written yet";
  window.Write();
  const auto refused = window.Acknowledge(AckOf(1));
  EXPECT_NE(refused.status().message().find("b:1 acknowledged another message"), std::string::npos);
  EXPECT_TRUE(window.Acknowledge(AckOf(0)).ok());
  EXPECT_TRUE(window.empty());
}

TEST(SendWindow, WhatIsNotAcknowledgedIsWrittenAgainAfterABreak) {
  SendWindow window("b", 2);
  for (uint32_t i = 0; i < 3; ++i) window.Add(Message(i));
  window.Write();
  window.Write();
  ASSERT_TRUE(window.Acknowledge(AckOf(0)).ok());
  window.Rewind();
  EXPECT_EQ(window.unacknowledged(), 0);
  EXPECT_EQ(window.Write()->awaited.sequence, 1);
  EXPECT_EQ(window.Write()->awaited.sequence, 2);
}

TEST(SendWindow, ClearGivesBackEverythingOnce) {
  SendWindow window("b", 2);
  for (uint32_t i = 0; i < 3; ++i) window.Add(Message(i));
  window.Write();
  EXPECT_EQ(window.Clear().size(), 3);
  EXPECT_TRUE(window.empty());
  EXPECT_FALSE(window.may_write());
  EXPECT_TRUE(window.Clear().empty());
}

// A peer that answers in order, over a stream that breaks at random: what was under way then may have arrived or not.
TEST(SendWindow, ThroughRandomBreaksEveryMessageArrivesAndIsAnsweredOnce) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int history = 0; history < 500; ++history) {
    const size_t limit = 1 + random() % 4;
    const uint32_t total = random() % 20;
    SendWindow window("b", limit);
    std::deque<uint32_t> under_way;
    std::deque<uint32_t> answers;
    std::vector<int> arrived(total);
    std::vector<uint32_t> answered;
    uint32_t added = 0;
    for (int step = 0; answered.size() < total; ++step) {
      ASSERT_LT(step, 10'000);
      switch (random() % (step < 2'000 ? 5 : 4)) {  // at last nothing breaks any more
        case 0:
          if (added < total) window.Add(Message(added++));
          break;
        case 1:
          if (const Outgoing* message = window.Write()) under_way.push_back(message->awaited.sequence);
          ASSERT_LE(window.unacknowledged(), limit);
          break;
        case 2:
          if (under_way.empty()) break;
          ++arrived[under_way.front()];
          answers.push_back(under_way.front());
          under_way.pop_front();
          break;
        case 3:
          if (answers.empty()) break;
          answered.push_back(window.Acknowledge(AckOf(answers.front())).ValueOrDie().awaited.sequence);
          answers.pop_front();
          break;
        case 4:
          under_way.clear();
          answers.clear();
          window.Rewind();
          break;
      }
    }
    for (uint32_t i = 0; i < total; ++i) {
      EXPECT_EQ(answered[i], i);
      EXPECT_GE(arrived[i], 1);
    }
    EXPECT_TRUE(window.empty());
  }
}

}  // namespace
}  // namespace sabot::shuffle

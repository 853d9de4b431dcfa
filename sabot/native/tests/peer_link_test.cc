// The link to a peer: whatever it was given it confirms or reports as undelivered, whenever it is stopped.
#include "sabot/native/shuffle/peer_link.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "sabot/native/status.h"

namespace sabot::shuffle {
namespace {

struct Counted : DeliveryListener {
  void Acknowledged(const std::string&, const Ack&) override { ADD_FAILURE() << "nobody is there"; }
  void Undelivered(const std::string&, const arrow::Status&) override { ++undelivered; }
  std::atomic<int> undelivered{0};
};

Outgoing MessageFor(const std::shared_ptr<Counted>& listener) {
  Outgoing message;
  message.schema = arrow::schema({});
  message.listener = listener;
  message.rows =
      std::make_shared<const WaitingRows>(arrow::RecordBatch::Make(message.schema, 0, arrow::ArrayVector{}), 10);
  return message;
}

TEST(PeerLink, MessageThatCameWhileTheLinkWasStoppedIsUndelivered) {
  const auto ledger = std::make_shared<memory::Ledger>(memory::Ledger::Options{});
  const auto nobody = [](size_t) -> arrow::Result<std::shared_ptr<arrow::flight::FlightClient>> {
    return arrow::Status::IOError("nobody is there");
  };
  for (int i = 0; i < 500; ++i) {
    const auto listener = std::make_shared<Counted>();
    {
      PeerLink link(
          nobody,
          {.outbox = {.peer = "nobody:1", .resume_s = 0, .ledger = ledger}, .sender = "test", .codec = nullptr});
      std::atomic<bool> go{false};
      std::jthread stopper([&] {
        while (!go.load(std::memory_order_acquire)) {  // pairs with the release below
        }
        link.Stop();
      });
      go.store(true, std::memory_order_release);
      link.Enqueue(MessageFor(listener));
    }
    ASSERT_EQ(listener->undelivered, 1) << "round " << i;
    ASSERT_EQ(ledger->snapshot().outbox, 0);
  }
}

TEST(PeerLink, WhatNoStreamHasTakenIsUndeliveredWhenTheLinkGoes) {
  const auto ledger = std::make_shared<memory::Ledger>(memory::Ledger::Options{});
  const auto listener = std::make_shared<Counted>();
  {
    PeerLink link({},
                  {.outbox = {.peer = "nobody:1", .streams = 0, .ledger = ledger}, .sender = "test", .codec = nullptr});
    link.Enqueue(MessageFor(listener));
    EXPECT_EQ(listener->undelivered, 0);
  }
  EXPECT_EQ(listener->undelivered, 1);
  EXPECT_EQ(ledger->snapshot().outbox, 0);
}

}  // namespace
}  // namespace sabot::shuffle

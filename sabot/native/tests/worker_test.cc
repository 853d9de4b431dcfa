// A slot's side of a worker, with a thread where the process would be: how a call may end, and what is refused.
#include "sabot/native/workers/worker.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <functional>
#include <thread>

#include "sabot/native/workers/worker_pool.h"

namespace sabot::workers {
namespace {

/// The worker's and the nursery's ends.
struct Peer {
  Descriptor data;
  Descriptor life;
  Descriptor output;

  void Reply(ReplyKind kind, uint64_t bytes = 0, int fd = -1) const {
    ReplyMessage reply;
    reply.kind = kind;
    reply.bytes = bytes;
    ASSERT_TRUE(SendMessage(data.get(), &reply, sizeof(reply), &fd, fd < 0 ? 0 : 1));
  }
  void Ended(int wait_status) const {
    LifeMessage life_message;
    life_message.kind = LifeKind::kEnded;
    life_message.value = wait_status;
    ASSERT_TRUE(SendMessage(life.get(), &life_message, sizeof(life_message), nullptr, 0));
  }
};

WorkerSockets Connect(Peer* peer) {
  std::array<int, 2> data, life, output;
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, data.data()), 0);
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, life.data()), 0);
  EXPECT_EQ(pipe2(output.data(), O_CLOEXEC | O_NONBLOCK), 0);
  *peer = {Descriptor(data[1]), Descriptor(life[1]), Descriptor(output[1])};
  return {Descriptor(data[0]), Descriptor(life[0]), Descriptor(output[0])};
}

std::shared_ptr<const Function> AFunction() { return Function::Make("f", "pickled", 7); }

/// The result of one call whose other end does `behave`, beginning after the worker said that it is ready.
CallResult CallWith(const std::function<void(Peer*)>& behave, CallLimits limits = {}) {
  Peer peer;
  auto worker = Worker::Make();
  worker->Start(Connect(&peer));
  EXPECT_NE(worker->Input(100), nullptr);
  std::jthread other([&] {
    peer.Reply(ReplyKind::kReady);
    behave(&peer);
  });
  return worker->Call(*AFunction(), 100, limits);
}

TEST(Worker, AnswerInSealedMemoryArrives) {
  const CallResult result = CallWith([](Peer* peer) {
    const Descriptor memory = SealedCopy("hello", 5);
    peer->Reply(ReplyKind::kRows, 5, memory.get());
  });
  ASSERT_EQ(result.end, CallEnd::kRows);
  EXPECT_EQ(std::memcmp(result.memory->data(), "hello", 5), 0);
}

TEST(Worker, AnswerThatCouldStillBeWrittenIsRefused) {
  const CallResult result = CallWith([](Peer* peer) {
    const Descriptor memory(memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    ASSERT_EQ(write(memory.get(), "hello", 5), 5);
    peer->Reply(ReplyKind::kRows, 5, memory.get());
  });
  EXPECT_EQ(result.end, CallEnd::kBroken);
}

TEST(Worker, AnswerShorterThanItSaysIsRefused) {
  const CallResult result = CallWith([](Peer* peer) {
    const Descriptor memory = SealedCopy("hello", 5);
    peer->Reply(ReplyKind::kRows, 5000, memory.get());
  });
  EXPECT_EQ(result.end, CallEnd::kBroken);
}

TEST(Worker, AnswerBeyondTheLentMemoryIsRefused) {
  const CallResult result = CallWith([](Peer* peer) { peer->Reply(ReplyKind::kRowsInAnswer, uint64_t{1} << 40); });
  EXPECT_EQ(result.end, CallEnd::kBroken);
}

TEST(Worker, AnswerWithoutMemoryIsRefused) {
  const CallResult result = CallWith([](Peer* peer) { peer->Reply(ReplyKind::kFailure, 5); });
  EXPECT_EQ(result.end, CallEnd::kBroken);
}

TEST(Worker, WaitStatusOfADeadWorkerIsTold) {
  const CallResult result = CallWith([](Peer* peer) {
    peer->data.Close();
    peer->Ended(9);
  });
  EXPECT_EQ(result.end, CallEnd::kDied);
  EXPECT_EQ(result.wait_status, 9);
}

TEST(Worker, DeathOfTheNurseryEndsTheCall) {
  const CallResult result = CallWith([](Peer* peer) { peer->life.Close(); });
  EXPECT_EQ(result.end, CallEnd::kDied);
  EXPECT_EQ(result.wait_status, -1);
}

TEST(Worker, CallEndsAtItsTimeLimit) {
  CallLimits limits;
  limits.timeout = std::chrono::milliseconds(5);
  EXPECT_EQ(CallWith([](Peer*) {}, limits).end, CallEnd::kTimedOut);
}

TEST(Worker, PrintingDoesNotPutOffTheTimeLimit) {
  CallLimits limits;
  limits.timeout = std::chrono::milliseconds(20);
  const CallResult result = CallWith(
      [](Peer* peer) {
        for (int line = 0; line < 300; ++line) {
          ASSERT_EQ(write(peer->output.get(), ".", 1), 1);
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        peer->Reply(ReplyKind::kNoRows);
      },
      limits);
  EXPECT_EQ(result.end, CallEnd::kTimedOut);
}

int OpenDescriptors() {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) count += entry.is_symlink() ? 1 : 0;
  return count;
}

TEST(Messages, DescriptorsThatAreNotAskedForAreNotKept) {
  std::array<int, 2> ends;
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
  const Descriptor ours(ends[0]);
  const Descriptor theirs(ends[1]);
  const std::array<int, 3> many = {ours.get(), ours.get(), ours.get()};
  const int before = OpenDescriptors();
  for (size_t count = 2; count <= many.size(); ++count) {
    ReplyMessage reply;
    ASSERT_TRUE(SendMessage(theirs.get(), &reply, sizeof(reply), many.data(), count));
    Descriptor received;
    EXPECT_EQ(ReceiveMessage(ours.get(), &reply, sizeof(reply), &received), Received::kMalformed);
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST(Worker, WhatItPrintsIsBoundedAndCounted) {
  CallLimits limits;
  limits.output_bytes_max = 10;
  const CallResult result = CallWith(
      [](Peer* peer) {
        const std::string text(1000, 'x');
        ASSERT_EQ(write(peer->output.get(), text.data(), text.size()), 1000);
        peer->Reply(ReplyKind::kNoRows);
      },
      limits);
  EXPECT_EQ(result.end, CallEnd::kNoRows);
  EXPECT_EQ(result.printed, std::string(10, 'x'));
  EXPECT_EQ(result.printed_bytes, 1000u);
}

TEST(SharedMemory, NobodyElseMayWriteOrResizeAMorsel) {
  const auto memory = SharedMemory::Make(4096, SharedMemory::Writer::kOurs);
  memory->data()[0] = 1;
  EXPECT_EQ(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory->fd(), 0), MAP_FAILED);
  EXPECT_EQ(pwrite(memory->fd(), "x", 1, 0), -1);
  EXPECT_EQ(ftruncate(memory->fd(), 0), -1);
  memory->data()[0] = 2;
}

/// Peers of a pool's workers, as they are started.
struct Nursery {
  std::mutex mutex;
  std::vector<Peer> peers;
};

const WorkerHooks kHooks = {
    [](void* context, WorkerSockets* sockets, std::string*) {
      auto* nursery = static_cast<Nursery*>(context);
      Peer peer;
      *sockets = Connect(&peer);
      peer.Reply(ReplyKind::kReady);
      std::lock_guard lock(nursery->mutex);
      nursery->peers.push_back(std::move(peer));
      return true;
    },
    [](void*, const Function&, size_t, const CallResult&) {},
    [](void*) {},
};

TEST(WorkerPool, InterruptAndCloseEndCallsFromOtherThreads) {
  for (int round = 0; round < 200; ++round) {
    Nursery nursery;
    WorkerPool pool(kHooks, &nursery);
    std::atomic<bool> interrupted{false};
    std::vector<CallEnd> ends(3, CallEnd::kBroken);
    {
      std::vector<std::jthread> slots;
      for (int slot = 0; slot < 3; ++slot) {
        slots.emplace_back([&, slot] {
          const int run = slot % 2;
          const Caller caller{slot, 0, run == 0 ? &ends : nullptr, run == 0 ? &interrupted : nullptr};
          ends[static_cast<size_t>(slot)] =
              pool.Call(
                      caller, *AFunction(), 10, [](uint8_t*) { return true; }, CallLimits())
                  .end;
        });
      }
      std::jthread interrupter([&] {
        interrupted.store(true, std::memory_order_release);
        pool.Interrupt(&ends);
      });
      if (round % 2 == 0) slots[0] = {}, slots[2] = {};  // joined: only the interrupted ones end
      pool.Close();
    }
    for (const CallEnd end : ends) EXPECT_EQ(end, CallEnd::kCancelled);
  }
}

TEST(WorkerPool, InterruptThatComesOutsideOfACallIsNotHeldAgainstTheNextRun) {
  Nursery nursery;
  WorkerPool pool(kHooks, &nursery);
  std::atomic<bool> interrupted{false};
  const int run = 0;
  const int another = 0;
  const auto interrupt = [&](uint8_t*) {
    interrupted.store(true, std::memory_order_release);
    pool.Interrupt(&run);
    return false;
  };
  pool.Call({0, 0, &run, &interrupted}, *AFunction(), 10, interrupt, CallLimits());
  std::jthread answers([&] {
    while (true) {
      std::lock_guard lock(nursery.mutex);
      if (nursery.peers.size() < 2) continue;
      return nursery.peers[1].Reply(ReplyKind::kNoRows);
    }
  });
  const std::atomic<bool> not_interrupted{false};
  const auto write = [](uint8_t*) { return true; };
  EXPECT_EQ(pool.Call({0, 0, &another, &not_interrupted}, *AFunction(), 10, write, CallLimits()).end, CallEnd::kNoRows);
}

}  // namespace
}  // namespace sabot::workers

// What an agent, its nursery and its workers tell each other: one struct a message, over SOCK_SEQPACKET socket pairs,
// with descriptors by SCM_RIGHTS. The other side is sabot/slots/workers/nursery_main.py and worker_main.py. Arrow-free.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "sabot/native/workers/descriptor.h"

namespace sabot::workers {

/// Slot to worker: call a function with a morsel. Descriptors, as flagged and in this order: the memory of the input,
/// that of the answer, the function.
struct CallMessage {
  static constexpr uint32_t kNewInput = 1;     // the input is in memory that the worker does not have yet
  static constexpr uint32_t kNewFunction = 2;  // the worker does not have the function yet
  static constexpr uint32_t kNewAnswer = 4;    // what fits is to be written to memory that it does not have yet

  uint32_t flags = 0;
  uint32_t reserved = 0;
  uint64_t function_id = 0;
  uint64_t function_bytes = 0;
  uint64_t input_capacity = 0;
  uint64_t input_bytes = 0;
  uint64_t answer_capacity = 0;
  uint64_t result_bytes_max = 0;
};
static_assert(sizeof(CallMessage) == 56);

enum class ReplyKind : uint32_t { kReady = 0, kRows = 1, kNoRows = 2, kFailure = 3, kRowsInAnswer = 4 };

/// Worker to slot. With kRows and kFailure comes a sealed memfd of `bytes`; kRowsInAnswer: they are in the answer's
/// memory.
struct ReplyMessage {
  static constexpr uint32_t kInputKept = 1;  // something in the worker still refers to the input's memory

  ReplyKind kind = ReplyKind::kReady;
  uint32_t flags = 0;
  uint64_t bytes = 0;
};
static_assert(sizeof(ReplyMessage) == 16);

enum class LifeKind : uint32_t { kStarted = 0, kEnded = 1, kNotStarted = 2 };

/// Nursery to slot, one socket a worker. kStarted comes with a pidfd, `value` is the pid; of kEnded it is the wait
/// status, of kNotStarted an errno. When the slot's end closes, the nursery kills the worker and its process group.
struct LifeMessage {
  LifeKind kind = LifeKind::kStarted;
  int32_t value = 0;
};
static_assert(sizeof(LifeMessage) == 8);

enum class Received { kMessage, kNothingYet, kClosed, kMalformed };

/// Whether all of it went out; errno says why not. Never blocks.
bool SendMessage(int socket, const void* message, size_t size, const int* fds, size_t fd_count) noexcept;

/// Takes one message of exactly `size` bytes and at most one descriptor. Never blocks.
Received ReceiveMessage(int socket, void* message, size_t size, Descriptor* fd) noexcept;

}  // namespace sabot::workers

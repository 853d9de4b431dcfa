// One worker process as its slot sees it: a call is sent, and its end is waited for, whatever that may be. Arrow-free.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_set>

#include "sabot/native/workers/descriptor.h"
#include "sabot/native/workers/messages.h"
#include "sabot/native/workers/morsel_memory.h"

namespace sabot::workers {

/// A function in the form in which it travels; `id` is unique in this process.
class Function {
 public:
  /// Null, with errno set, when the system gives no memory.
  static std::shared_ptr<const Function> Make(std::string name, const void* pickled, size_t size);

  const std::string name;
  const uint64_t id;
  const size_t bytes;
  const Descriptor memory;

 private:
  Function(std::string name, size_t bytes, Descriptor memory);
};

/// Our ends of a worker that was asked for: `data` for calls, `life` for what its nursery says of it, `output` for what
/// it prints.
struct WorkerSockets {
  Descriptor data;
  Descriptor life;
  Descriptor output;
};

/// How a call ended. kDied: the process ended by itself; kTimedOut and kCancelled: it is to be killed; kBroken: what it
/// sent is not to be trusted; kNoWorker: it could not be started.
enum class CallEnd { kRows, kNoRows, kFailure, kDied, kTimedOut, kCancelled, kBroken, kNoWorker };

struct CallResult {
  CallEnd end = CallEnd::kBroken;
  std::shared_ptr<const SealedMemory> memory;  // with kFailure, and with kRows where there is no `answer`
  std::shared_ptr<const SharedMemory> answer;  // with kRows: `answer_bytes`, to be copied before the worker's next call
  size_t answer_bytes = 0;
  int wait_status = -1;        // with kDied; -1: unknown
  std::string why;             // with kBroken and kNoWorker
  std::string printed;         // up to output_bytes_max
  uint64_t printed_bytes = 0;  // all that it printed
};

struct CallLimits {
  std::chrono::milliseconds timeout{0};  // of the function; 0: none
  std::chrono::milliseconds start_timeout{60'000};
  size_t output_bytes_max = 64 * 1024;
  uint64_t result_bytes_max = uint64_t{1} << 32;
};

/// Used by one slot at a time; only Interrupt may be called from others. Its destruction kills the process and all of
/// its group. After any end but kRows, kNoRows and kFailure it is of no further use.
class Worker {
 public:
  /// Null, with errno set, when the system gives no descriptor.
  static std::unique_ptr<Worker> Make();
  ~Worker();

  bool started() const noexcept { return static_cast<bool>(sockets_.data); }
  void Start(WorkerSockets sockets) { sockets_ = std::move(sockets); }

  /// Where the next call's input is to be written: `bytes` that the worker will see. Null, with errno set, when the
  /// system gives no memory.
  uint8_t* Input(size_t bytes);
  CallResult Call(const Function& function, size_t input_bytes, const CallLimits& limits);

  /// Ends the call that runs, and every later one, as kCancelled.
  void Interrupt() noexcept;
  /// 0 until its nursery has told it.
  int pid_approx() const noexcept { return pid_.load(std::memory_order_relaxed); }  // orders nothing, is only shown

 private:
  using Clock = std::chrono::steady_clock;

  explicit Worker(Descriptor wake) : wake_(std::move(wake)) {}
  void FitAnswer(size_t bytes);
  bool Send(const Function& function, size_t input_bytes, const CallLimits& limits);
  bool WaitForNews(Clock::time_point deadline, const CallLimits& limits, CallResult* result);
  void ReadLife(CallResult* result, bool* ended);
  bool ReadReply(const CallLimits& limits, CallResult* result);
  void ReadOutput(size_t bytes_max, CallResult* result);
  void WaitForEnd(const CallLimits& limits, CallResult* result);

  const Descriptor wake_;  // an eventfd: readable once interrupted, and for ever after
  WorkerSockets sockets_;
  Descriptor pidfd_;
  std::atomic<int> pid_{0};
  bool ready_ = false;
  std::unordered_set<uint64_t> functions_;  // those that it has
  std::shared_ptr<SharedMemory> input_;
  bool input_known_ = false;  // the worker has input_ mapped
  std::shared_ptr<SharedMemory> answer_;
  bool answer_known_ = false;  // the worker has answer_ mapped
};

}  // namespace sabot::workers

#include "sabot/native/workers/worker.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

namespace sabot::workers {
namespace {

constexpr size_t kSharedBytesMin = 64 * 1024;
constexpr size_t kSharedBytesKept = 16 * 1024 * 1024;  // what is larger is given back after its call
constexpr std::chrono::milliseconds kStatusWait{1000};

std::atomic<uint64_t> next_function_id{1};

int MillisecondsUntil(std::chrono::steady_clock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 3'600'000));
}

}  // namespace

Function::Function(std::string name, size_t bytes, Descriptor memory)
    : name(std::move(name)),
      id(next_function_id.fetch_add(1, std::memory_order_relaxed)),  // only to be unique
      bytes(bytes),
      memory(std::move(memory)) {}

std::shared_ptr<const Function> Function::Make(std::string name, const void* pickled, size_t size) {
  Descriptor memory = SealedCopy(pickled, size);
  if (!memory) return nullptr;
  return std::shared_ptr<const Function>(new Function(std::move(name), size, std::move(memory)));
}

std::unique_ptr<Worker> Worker::Make() {
  Descriptor wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return nullptr;
  return std::unique_ptr<Worker>(new Worker(std::move(wake)));
}

Worker::~Worker() {
  // At once for the worker itself; closing `life` makes its nursery kill what else is in its group.
  if (pidfd_) syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
}

void Worker::Interrupt() noexcept {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t wrote = write(wake_.get(), &one, sizeof(one));  // fails only when it is readable
}

uint8_t* Worker::Input(size_t bytes) {
  if (input_ != nullptr && input_->capacity() >= bytes) return input_->data();
  input_ = SharedMemory::Make(std::bit_ceil(std::max(bytes, kSharedBytesMin)), SharedMemory::Writer::kOurs);
  input_known_ = false;
  return input_ == nullptr ? nullptr : input_->data();
}

void Worker::FitAnswer(size_t bytes) {
  if (bytes > kSharedBytesKept || (answer_ != nullptr && answer_->capacity() >= bytes)) return;
  auto larger = SharedMemory::Make(std::bit_ceil(std::max(bytes, kSharedBytesMin)), SharedMemory::Writer::kWorkers);
  if (larger == nullptr) return;  // what does not fit comes in memory of its own
  answer_ = std::move(larger);
  answer_known_ = false;
}

CallResult Worker::Call(const Function& function, size_t input_bytes, const CallLimits& limits) {
  CallResult result;
  if (ready_) ReadOutput(0, &result);  // what it printed after its last reply belongs to no morsel
  result = CallResult();
  Clock::time_point deadline = Clock::now() + limits.start_timeout;
  if (ready_ && limits.timeout.count() > 0) deadline = Clock::now() + limits.timeout;
  if (ready_ && limits.timeout.count() == 0) deadline = Clock::time_point::max();
  if (answer_ == nullptr) FitAnswer(input_bytes);  // the best guess
  bool sent = Send(function, input_bytes, limits);
  if (!sent) {
    WaitForEnd(limits, &result);
    return result;
  }
  bool was_ready = ready_;
  while (!WaitForNews(deadline, limits, &result)) {
    if (!was_ready && ready_) {
      was_ready = true;
      deadline = limits.timeout.count() > 0 ? Clock::now() + limits.timeout : Clock::time_point::max();
    }
  }
  if (!ready_ && result.end == CallEnd::kTimedOut) {
    result.end = CallEnd::kNoWorker;
    result.why = "it did not start in " + std::to_string(limits.start_timeout.count()) + " ms";
  }
  if (input_ != nullptr && input_->capacity() > kSharedBytesKept) input_.reset();
  return result;
}

bool Worker::Send(const Function& function, size_t input_bytes, const CallLimits& limits) {
  CallMessage call;
  std::array<int, 3> fds;
  size_t fd_count = 0;
  if (!input_known_) {
    call.flags |= CallMessage::kNewInput;
    fds[fd_count++] = input_->fd();
  }
  if (answer_ != nullptr && !answer_known_) {
    call.flags |= CallMessage::kNewAnswer;
    fds[fd_count++] = answer_->fd();
  }
  if (!functions_.contains(function.id)) {
    call.flags |= CallMessage::kNewFunction;
    fds[fd_count++] = function.memory.get();
  }
  call.function_id = function.id;
  call.function_bytes = function.bytes;
  call.input_capacity = input_->capacity();
  call.input_bytes = input_bytes;
  call.answer_capacity = answer_ == nullptr ? 0 : answer_->capacity();
  call.result_bytes_max = limits.result_bytes_max;
  if (!SendMessage(sockets_.data.get(), &call, sizeof(call), fds.data(), fd_count)) return false;
  input_known_ = answer_known_ = true;
  functions_.insert(function.id);
  return true;
}

bool Worker::WaitForNews(Clock::time_point deadline, const CallLimits& limits, CallResult* result) {
  std::array<pollfd, 5> waited = {{
      {wake_.get(), POLLIN, 0},
      {sockets_.data.get(), POLLIN, 0},
      {sockets_.life.get(), POLLIN, 0},
      {sockets_.output.get(), POLLIN, 0},
      {pidfd_.get(), POLLIN, 0},  // ignored while it is -1
  }};
  const int timeout_ms = deadline == Clock::time_point::max() ? -1 : MillisecondsUntil(deadline);
  const int ready = poll(waited.data(), waited.size(), timeout_ms);
  if (ready < 0 && errno != EINTR) {
    result->end = CallEnd::kBroken;
    result->why = std::strerror(errno);
    return true;
  }
  if (waited[0].revents != 0) {
    result->end = CallEnd::kCancelled;
    return true;
  }
  if (ready > 0 && waited[3].revents != 0) ReadOutput(limits.output_bytes_max, result);
  if (ready > 0 && waited[1].revents != 0 && ReadReply(limits, result)) return true;
  bool ended = ready > 0 && waited[4].revents != 0;
  if (ready > 0 && waited[2].revents != 0) ReadLife(result, &ended);
  if (ended) {
    WaitForEnd(limits, result);
    return true;
  }
  if (Clock::now() < deadline) return false;
  result->end = CallEnd::kTimedOut;
  return true;
}

void Worker::ReadLife(CallResult* result, bool* ended) {
  LifeMessage life;
  Descriptor fd;
  switch (ReceiveMessage(sockets_.life.get(), &life, sizeof(life), &fd)) {
    case Received::kNothingYet:
      return;
    case Received::kClosed:
    case Received::kMalformed:
      *ended = true;
      sockets_.life.Close();
      return;
    case Received::kMessage:
      break;
  }
  switch (life.kind) {
    case LifeKind::kStarted:
      pid_.store(life.value, std::memory_order_relaxed);  // only shown
      pidfd_ = std::move(fd);
      return;
    case LifeKind::kEnded:
      result->wait_status = life.value;
      break;
    case LifeKind::kNotStarted:
      result->why = std::strerror(life.value);
      break;
  }
  *ended = true;
  sockets_.life.Close();
}

bool Worker::ReadReply(const CallLimits& limits, CallResult* result) {
  ReplyMessage reply;
  Descriptor fd;
  switch (ReceiveMessage(sockets_.data.get(), &reply, sizeof(reply), &fd)) {
    case Received::kNothingYet:
      return false;
    case Received::kClosed:
      WaitForEnd(limits, result);
      return true;
    case Received::kMalformed:
      result->why = "it sent what is no reply";
      return true;
    case Received::kMessage:
      break;
  }
  if (reply.kind == ReplyKind::kReady) {
    ready_ = true;
    return false;
  }
  ReadOutput(limits.output_bytes_max, result);
  if ((reply.flags & ReplyMessage::kInputKept) != 0)
    input_.reset();  // it may still be read there: never write it again
  if (reply.kind == ReplyKind::kNoRows) {
    result->end = CallEnd::kNoRows;
    return true;
  }
  if (reply.kind == ReplyKind::kRowsInAnswer) {
    if (answer_ == nullptr || reply.bytes > answer_->capacity()) {
      result->why = "its answer is not where it says";
      return true;
    }
    result->answer = answer_;
    result->answer_bytes = reply.bytes;
    result->end = CallEnd::kRows;
    return true;
  }
  if (reply.bytes > limits.result_bytes_max) {
    result->why = "its result measures " + std::to_string(reply.bytes) + " bytes";
    return true;
  }
  result->memory = SealedMemory::Map(std::move(fd), reply.bytes);
  if (result->memory == nullptr) {
    result->why = std::string("its result cannot be mapped: ") + std::strerror(errno);
    return true;
  }
  if (reply.kind == ReplyKind::kRows) FitAnswer(reply.bytes);  // for the next one
  result->end = reply.kind == ReplyKind::kRows ? CallEnd::kRows : CallEnd::kFailure;
  return true;
}

void Worker::ReadOutput(size_t bytes_max, CallResult* result) {
  std::array<char, 16 * 1024> piece;
  // Bounded, so that who prints without end neither holds up its own reply nor a cancel.
  for (int round = 0; round < 8; ++round) {
    const ssize_t got = read(sockets_.output.get(), piece.data(), piece.size());
    if (got == 0) sockets_.output.Close();  // it closed its standard streams; else poll would report this for ever
    if (got <= 0) return;
    result->printed_bytes += static_cast<uint64_t>(got);
    const size_t room = bytes_max - std::min(bytes_max, result->printed.size());
    result->printed.append(piece.data(), std::min(room, static_cast<size_t>(got)));
  }
}

void Worker::WaitForEnd(const CallLimits& limits, CallResult* result) {
  // The nursery tells the status; a worker that closed its socket and lives on is killed when it does not come.
  const auto deadline = Clock::now() + kStatusWait;
  bool ended = result->wait_status != -1 || !result->why.empty();
  while (!ended && sockets_.life && Clock::now() < deadline) {
    pollfd waited = {sockets_.life.get(), POLLIN, 0};
    if (poll(&waited, 1, MillisecondsUntil(deadline)) > 0) ReadLife(result, &ended);
  }
  if (sockets_.output) ReadOutput(limits.output_bytes_max, result);
  result->end = result->why.empty() ? CallEnd::kDied : CallEnd::kNoWorker;
}

}  // namespace sabot::workers

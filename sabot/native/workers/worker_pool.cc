#include "sabot/native/workers/worker_pool.h"

#include <cerrno>
#include <cstring>
#include <utility>

namespace sabot::workers {

CallResult WorkerPool::Call(const Caller& caller, const Function& function, size_t input_bytes,
                            const std::function<bool(uint8_t*)>& write, const CallLimits& limits) {
  CallResult result;
  const std::shared_ptr<Worker> worker = Enter(caller);
  if (worker == nullptr) {
    result.end = closed() ? CallEnd::kCancelled : CallEnd::kNoWorker;
    result.why = std::strerror(errno);
    return result;
  }
  // Pairs with the release in Interrupt's caller: who set the flag before we entered may not have found us.
  if (caller.interrupted != nullptr && caller.interrupted->load(std::memory_order_acquire)) {
    result.end = CallEnd::kCancelled;
    Leave(caller, true);
    return result;
  }
  WorkerSockets sockets;
  if (!worker->started() && !hooks_.start(context_.get(), &sockets, &result.why)) {
    result.end = CallEnd::kNoWorker;
    Leave(caller, false);
    return result;
  }
  if (!worker->started()) worker->Start(std::move(sockets));
  uint8_t* input = worker->Input(input_bytes);
  if (input == nullptr) result.why = std::string("no memory for its input: ") + std::strerror(errno);
  if (input == nullptr || !write(input)) {
    Leave(caller, true);
    return result;
  }
  result = worker->Call(function, input_bytes, limits);
  const bool usable = result.end == CallEnd::kRows || result.end == CallEnd::kNoRows || result.end == CallEnd::kFailure;
  Leave(caller, usable);
  if (result.printed_bytes > 0) hooks_.printed(context_.get(), function, caller.morsel, result);
  return result;
}

std::shared_ptr<Worker> WorkerPool::Enter(const Caller& caller) {
  std::lock_guard lock(mutex_);
  if (closed_) return nullptr;
  Seat& seat = seats_[caller.slot_id];
  if (seat.worker == nullptr) seat.worker = Worker::Make();
  seat.run = caller.run;
  return seat.worker;
}

void WorkerPool::Leave(const Caller& caller, bool keep) {
  std::shared_ptr<Worker> dropped;
  std::lock_guard lock(mutex_);
  const auto found = seats_.find(caller.slot_id);
  if (found == seats_.end()) return;
  found->second.run = nullptr;
  // Interrupt may have come after the call's end, or before its beginning: the worker would hold it against the next.
  // acquire: partner of the release that comes before Interrupt, which has the lock after us or had it before.
  const bool interrupted = caller.interrupted != nullptr && caller.interrupted->load(std::memory_order_acquire);
  if (!keep || interrupted) {
    dropped = std::move(found->second.worker);
    seats_.erase(found);
  }
}

void WorkerPool::Interrupt(const void* run) noexcept {
  std::lock_guard lock(mutex_);
  for (const auto& [slot_id, seat] : seats_) {
    if (seat.run == run && seat.worker != nullptr) seat.worker->Interrupt();
  }
}

void WorkerPool::Close() noexcept {
  std::unordered_map<int, Seat> seats;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    seats.swap(seats_);
  }
  // The idle ones end here, with `seats`; those that work wake their slots, which end them.
  for (const auto& [slot_id, seat] : seats) {
    if (seat.worker != nullptr) seat.worker->Interrupt();
  }
}

bool WorkerPool::closed() const noexcept {
  std::lock_guard lock(mutex_);
  return closed_;
}

std::vector<int> WorkerPool::pids_approx() const {
  std::lock_guard lock(mutex_);
  std::vector<int> pids;
  for (const auto& [slot_id, seat] : seats_) {
    if (seat.worker != nullptr && seat.worker->pid_approx() != 0) pids.push_back(seat.worker->pid_approx());
  }
  return pids;
}

}  // namespace sabot::workers

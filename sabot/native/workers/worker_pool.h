// The workers of one job: at most one for each slot, made when the slot first calls a function, gone with the job.
// Arrow-free.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "sabot/native/workers/worker.h"

namespace sabot::workers {

/// How workers are asked for, without knowing by whom. The functions never throw.
struct WorkerHooks {
  /// Gives our ends of a worker that will soon be there; on failure (false) `*why` says what to tell the user.
  bool (*start)(void* context, WorkerSockets* sockets, std::string* why);
  /// What a worker printed during a call.
  void (*printed)(void* context, const Function& function, size_t morsel, const CallResult& result);
  void (*release)(void* context);
};

/// Which morsel of which run calls, and by what it learns that its run was interrupted meanwhile.
struct Caller {
  int slot_id;
  size_t morsel;
  const void* run;
  const std::atomic<bool>* interrupted;
};

/// Every method may be called from any thread; Call only from the slot that it names.
class WorkerPool {
 public:
  /// Takes over a reference to `context`.
  WorkerPool(WorkerHooks hooks, void* context) : hooks_(hooks), context_(context, hooks.release) {}
  ~WorkerPool() { Close(); }

  /// Calls `function` in the slot's worker. `write(memory)` fills the input of `input_bytes`; when it is false the
  /// result is kBroken and nothing was called.
  CallResult Call(const Caller& caller, const Function& function, size_t input_bytes,
                  const std::function<bool(uint8_t*)>& write, const CallLimits& limits);
  /// Kills the workers that work for `run`, in mid-call; set the run's own flag before.
  void Interrupt(const void* run) noexcept;
  /// Kills every worker, in mid-call too. Calls that run end as kCancelled, and so do later ones.
  void Close() noexcept;
  bool closed() const noexcept;
  std::vector<int> pids_approx() const;

 private:
  struct Seat {
    std::shared_ptr<Worker> worker;  // the pool and, during a call, the slot
    const void* run = nullptr;       // whose call runs
  };
  std::shared_ptr<Worker> Enter(const Caller& caller);
  void Leave(const Caller& caller, bool keep);

  const WorkerHooks hooks_;
  const std::shared_ptr<void> context_;
  mutable std::mutex mutex_;
  bool closed_ = false;                  // guarded by mutex_
  std::unordered_map<int, Seat> seats_;  // guarded by mutex_; by slot
};

}  // namespace sabot::workers

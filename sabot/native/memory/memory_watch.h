// The thread that tells the ledger what nobody reports, and gives back memory that has been idle.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "sabot/native/memory/ledger_pool.h"

namespace sabot::memory {

/// Native, so that a function that holds the GIL does not stop it. Every `period` it measures what worker processes
/// hold and what Arrow's own pool has handed out to code that ignores ours.
class MemoryWatch {
 public:
  struct Options {
    std::chrono::milliseconds period{250};
    std::chrono::milliseconds idle_for{5'000};
  };

  explicit MemoryWatch(std::shared_ptr<LedgerPool> pool) : MemoryWatch(std::move(pool), Options()) {}
  MemoryWatch(std::shared_ptr<LedgerPool> pool, Options options);
  ~MemoryWatch();

  /// The process whose children are the workers; 0: there are none.
  void SetNursery(int pid) { nursery_.store(pid, std::memory_order_relaxed); }  // orders nothing
  /// One round, now.
  void Measure();

 private:
  void Run();

  const std::shared_ptr<LedgerPool> pool_;
  const Options options_;
  std::atomic<int> nursery_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;  // guarded by mutex_
  std::jthread thread_;    // last: it uses all above
};

}  // namespace sabot::memory

#include "sabot/native/memory/memory_watch.h"

#include <pthread.h>

#include "sabot/native/memory/worker_memory.h"
#include "sabot/native/workers/morsel_memory.h"

namespace sabot::memory {

MemoryWatch::MemoryWatch(std::shared_ptr<LedgerPool> pool, Options options)
    : pool_(std::move(pool)), options_(options) {
  thread_ = std::jthread([this] { Run(); });  // first, since it may throw
  pool_->SetWatched(true);
}

MemoryWatch::~MemoryWatch() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
  pool_->SetWatched(false);
}

void MemoryWatch::Measure() {
  Ledger& ledger = *pool_->ledger();
  ledger.SetOutside(arrow::default_memory_pool()->bytes_allocated());
  const int nursery = nursery_.load(std::memory_order_relaxed);
  ledger.SetWorkers(workers::SharedBytes() + (nursery == 0 ? 0 : ChildrenPrivateBytes(nursery)));
  pool_->GiveBackIdle(options_.idle_for);
}

void MemoryWatch::Run() {
  pthread_setname_np(pthread_self(), "sabot-memory");
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, options_.period, [&] { return stopping_; })) {
    lock.unlock();
    Measure();
    lock.lock();
  }
}

}  // namespace sabot::memory

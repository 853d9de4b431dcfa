// The pool's queue of tickets: the lock-free ring, and a list for what does not fit, so that a push always succeeds.
#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>

#include "sabot/native/slots/mpmc_queue.h"
#include "sabot/native/slots/run.h"

namespace sabot::slots {

/// A Run with items left has one ticket. Who holds it claims one item, passes the ticket on to the end of the queue
/// and runs the item: so Runs take turns, item by item, and the queue never holds more tickets than there are Runs.
using Ticket = std::shared_ptr<Run>;

class TicketQueue {
 public:
  explicit TicketQueue(size_t ring_capacity) : ring_(ring_capacity) {}

  void Push(Ticket ticket) {
    // acquire: partner of the release below; a list that is not empty keeps its place before newer tickets.
    if (listed_.load(std::memory_order_acquire) == 0 && ring_.TryPush(ticket)) return;
    std::lock_guard lock(mutex_);
    list_.push_back(std::move(ticket));
    RefillRing();
  }

  /// Null when there is no ticket to be had; see MpmcQueue about a push that has begun and not ended.
  Ticket TryPop() {
    Ticket ticket;
    if (ring_.TryPop(&ticket)) return ticket;
    if (listed_.load(std::memory_order_acquire) == 0) return nullptr;  // acquire: as in Push
    std::lock_guard lock(mutex_);
    if (!list_.empty()) {
      ticket = std::move(list_.front());
      list_.pop_front();
    }
    RefillRing();
    return ticket;
  }

  size_t size_approx() const noexcept {
    return ring_.size_approx() + listed_.load(std::memory_order_relaxed);  // relaxed: an estimate
  }

 private:
  void RefillRing() {  // under mutex_
    while (!list_.empty() && ring_.TryPush(list_.front())) list_.pop_front();
    listed_.store(list_.size(), std::memory_order_release);  // release: partner of the acquires in Push and TryPop
  }

  MpmcQueue<Ticket> ring_;
  std::atomic<size_t> listed_{0};
  std::mutex mutex_;
  std::deque<Ticket> list_;  // guarded by mutex_
};

}  // namespace sabot::slots

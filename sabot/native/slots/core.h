// What the slots of a pool share: their threads, where they park, and the pool's end.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "sabot/native/slots/dealer.h"
#include "sabot/native/slots/parking.h"
#include "sabot/native/slots/slot.h"
#include "sabot/native/slots/slot_pool.h"

namespace sabot::slots {

/// Owned by the pool and by every slot's thread, so that a slot may outlive the pool that it destroys itself.
class Core : public std::enable_shared_from_this<Core> {
 public:
  using Slots = std::vector<std::shared_ptr<Slot>>;

  explicit Core(const SlotPool::Options& options);

  Outcome Submit(Ticket run, const JobShare& share);
  void Cancel(Run& run);
  void Widen(const Ticket& run);
  Outcome AddSlots(int count);
  Outcome RemoveSlots(int count);
  Outcome Shutdown(bool drain, std::chrono::steady_clock::time_point deadline);

  /// The core whose slot this thread is, or null.
  static Core* Here() noexcept;
  void SkipRest(Run& run) { dealer_.SkipRest(run); }

  Slots slots() const;
  int64_t items_waiting() { return static_cast<int64_t>(dealer_.items_waiting()); }
  Logbook& logbook() noexcept { return logbook_; }
  int parked_approx() const noexcept { return parking_.parked_approx(); }

 private:
  struct Ran {
    size_t items = 0;
    int64_t ns = 0;
    Slot::Clock::time_point end{};  // not set: the slot has slept since
  };

  bool StartSlot();  // under mutex_
  void Serve(Slot& slot);
  void Served();
  bool NextLease(Slot& slot, Ran* ran);
  bool TryDeal(Slot& slot, const Ran& ran);
  Ran RunLane(Slot& slot, Slot::Clock::time_point last_end);
  void RunHere(Run& run, Slot& slot);
  void WakeOne();
  void Join(const Slots& slots);

  Logbook logbook_;
  Dealer dealer_;
  Parking parking_;
  const bool fair_;
  const bool wake_;
  std::atomic<bool> waking_{false};    // a slot is on its way from its sleep to its look for work
  std::atomic<int> submitting_{0};     // calls of Submit that may be adding
  std::atomic<bool> closed_{false};    // Submit refuses, except what slots submit
  std::atomic<bool> skipping_{false};  // that too
  std::atomic<bool> ending_{false};    // slots end when there is nothing for them; set when nobody adds any more

  // Lock order: joining_mutex_ before mutex_. No Run is called and no thread joined under mutex_; waiting for served_
  // lets go of it.
  std::mutex joining_mutex_;  // held while slots are joined
  mutable std::mutex mutex_;
  Slots slots_;      // guarded by mutex_
  int serving_ = 0;  // guarded by mutex_; slots that have not come to their end, removed ones included
  std::condition_variable served_;
  std::vector<bool> id_taken_;  // guarded by mutex_; an id is free again when its slot has joined
};

}  // namespace sabot::slots

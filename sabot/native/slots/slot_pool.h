// The slots: native threads that run the items of Runs, fairly between jobs, and park when there are none.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "sabot/native/slots/logbook.h"
#include "sabot/native/slots/run.h"

namespace sabot::slots {

/// One slot's counters, from zero since the slot was added. Work done inside another item counts as a morsel of its
/// own, its time only once. `stolen_morsels` are those that another slot had been dealt and this one ran.
struct SlotStats {
  int slot_id;
  bool busy;
  int64_t morsels_processed;
  int64_t local_morsels;
  int64_t network_morsels;
  int64_t stolen_morsels;
  int64_t total_processing_time_us;  // of the morsels that have ended
  int64_t idle_us;                   // with nothing to run
  int64_t busy_us;                   // the morsel that runs included; idle_us and busy_us are the slot's whole time
  int64_t gil_wait_us;               // until a morsel's call into Python began
};

/// kInvalid: an argument out of range, a Run submitted before, or a call that a slot may not make because it would
/// wait for itself. kForked: this process is a fork's child, which has none of the slots.
/// kNoThreads: the system gave no thread. kBusy: slots still run items at the deadline.
enum class Outcome { kAccepted, kShutDown, kLastSlot, kInvalid, kForked, kNoThreads, kBusy };

/// Every method may be called from any thread, except where a comment says otherwise. The pool may be destroyed by one
/// of its own slots: that slot then finishes its item and ends by itself.
class SlotPool {
 public:
  static constexpr int kSlotsMax = 1024;

  struct Options {
    int num_slots = 0;             // 0: one per core
    size_t queue_capacity = 4096;  // Runs submitted and not yet seen by a slot, a power of two; for more, Submit locks
    size_t timeline_morsels = 0;   // the last morsels of each slot that its timeline keeps; 0: it keeps none
    // Switched off only by tests, which see what each is for.
    bool fair = true;   // jobs and sources share by the time they use; false: jobs take turns, local work comes first
    bool steal = true;  // idle slots take what others were dealt
    bool wake = true;   // work wakes a parked slot
  };

  /// Null when `options` are out of range (num_slots below 0 or above kSlotsMax, capacity no power of two above 1).
  static std::unique_ptr<SlotPool> Make(Options options);
  virtual ~SlotPool() = default;  // Shutdown(drain=false); in a fork's child nothing

  /// Queues every item of `run` on account of a job; never blocks. From inside a slot of this pool the items run there,
  /// before it returns, and their time is that of the item that submits; unless the run is `queued_in_slots`: then they
  /// are queued as from elsewhere, and while the pool drains too.
  virtual Outcome Submit(std::shared_ptr<Run> run, const JobShare& share) = 0;
  Outcome Submit(std::shared_ptr<Run> run) { return Submit(std::move(run), JobShare{}); }
  /// Items of `run` that have not started are skipped, in the calling thread, before it returns; those running go on
  /// to their end. A Run that is not submitted yet, or has finished, is left alone.
  virtual void Cancel(const std::shared_ptr<Run>& run) = 0;

  /// Ends the narrow start of a Run whose items needed a lock in common, or turned out long. Repeats do nothing.
  virtual void Widen(const std::shared_ptr<Run>& run) = 0;

  virtual Outcome AddSlots(int count) = 0;
  /// Each removed slot finishes its item and joins before this returns; removing the last is refused. Not from a slot.
  virtual Outcome RemoveSlots(int count) = 0;
  /// Takes no more; items not started are skipped when `drain` is false; joins every slot. Repeats wait for the first,
  /// and one with `drain` false hastens it. Not from a slot. kBusy at the deadline: no more is taken, but slots still
  /// run; they end after what they run or, with `drain`, what is queued.
  virtual Outcome Shutdown(bool drain, std::chrono::steady_clock::time_point deadline) = 0;
  Outcome Shutdown(bool drain) { return Shutdown(drain, std::chrono::steady_clock::time_point::max()); }

  virtual int num_slots() const = 0;
  virtual int available_slots_approx() const = 0;
  virtual int64_t queue_depth_approx() const = 0;  // items queued and not started
  virtual int parked_slots_approx() const = 0;     // slots asleep
  virtual std::vector<SlotStats> stats() const = 0;
  virtual Logbook& logbook() = 0;  // not in a fork's child
  /// True on a thread that is a slot of this pool.
  virtual bool on_slot_thread() const = 0;
  /// True in a fork's child, which has none of the slots.
  virtual bool forked() const noexcept = 0;
};

}  // namespace sabot::slots

// The slots: native threads that take items of Runs from one bounded lock-free queue and park when there are none.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "sabot/native/slots/run.h"

namespace sabot::slots {

struct SlotStats {
  int slot_id;
  bool busy;
  int64_t morsels_processed;
  int64_t local_morsels;
  int64_t network_morsels;
  int64_t stolen_morsels;
  int64_t total_processing_time_us;
};

enum class Outcome { kAccepted, kShutDown, kLastSlot, kInvalid };

class SlotPool {
 public:
  struct Options {
    int num_slots = 0;            // 0: one per core
    size_t queue_capacity = 4096;  // tickets, a power of two
  };

  /// Null when `options` are out of range (num_slots below 0 or above 1024, capacity no power of two).
  static std::unique_ptr<SlotPool> Make(Options options);
  virtual ~SlotPool() = default;  // Shutdown(), then joins

  /// Queues every item of `run`; never blocks. From inside a slot of this pool the items run there, before it returns.
  virtual Outcome Submit(std::shared_ptr<Run> run) = 0;
  /// Items of `run` that have not started are skipped; those running go on to their end.
  virtual void Cancel(const std::shared_ptr<Run>& run) = 0;

  virtual Outcome AddSlots(int count) = 0;
  /// Each removed slot finishes its item and joins before this returns; removing the last is refused.
  virtual Outcome RemoveSlots(int count) = 0;
  /// Takes no more; items not started are skipped when `drain` is false; joins every slot. Repeats do nothing.
  virtual void Shutdown(bool drain) = 0;

  virtual int num_slots() const = 0;
  virtual int available_slots_approx() const = 0;
  virtual int64_t queue_depth_approx() const = 0;  // items queued and not started
  virtual std::vector<SlotStats> stats() const = 0;
  /// True on a thread that is a slot of this pool.
  virtual bool on_slot_thread() const = 0;
};

}  // namespace sabot::slots

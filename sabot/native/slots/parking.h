// Where idle slots sleep: an event count over one futex word. A waker never takes a lock, a sleeper uses no CPU.
#pragma once

#include <atomic>
#include <cstdint>

namespace sabot::slots {

/// How no wake-up is lost. A sleeper: Prepare(), look for work once more, then Park() or Abandon(). A waker: publish
/// the work, then AnyoneParked(), then Wake(). Both sides read-modify-write `parked_`, so one of the two comes first:
/// if the waker's, the sleeper's Prepare() reads from it and its second look sees the work; if the sleeper's, the
/// waker sees somebody parked and moves `epoch_` on, and the futex refuses to sleep on an epoch that has gone by.
class Parking {
 public:
  /// Announces a sleeper; returns the epoch to park on.
  uint32_t Prepare() noexcept {
    // acq_rel: partner of the read-modify-write in AnyoneParked.
    parked_.fetch_add(1, std::memory_order_acq_rel);
    // acquire: partner of the release in Wake. A Wake that comes after our announcement moves the epoch past this.
    return epoch_.load(std::memory_order_acquire);
  }

  /// The second look found work after all.
  void Abandon() noexcept {
    parked_.fetch_sub(1, std::memory_order_relaxed);  // relaxed: too high a count costs one needless wake, no more
  }

  /// Sleeps until a Wake() that came after the Prepare() which gave `epoch`.
  void Park(uint32_t epoch) noexcept;

  /// To be called after the work is published. A read-modify-write, not a load: see the proof above.
  bool AnyoneParked() noexcept {
    // acq_rel: partner of the one in Prepare, and of this one in other wakers, whose pushes it makes visible.
    return parked_.fetch_add(0, std::memory_order_acq_rel) > 0;
  }

  /// Wakes `count` sleepers, and whoever is between Prepare() and sleep.
  void Wake(uint32_t count) noexcept;

  int32_t parked_approx() const noexcept { return parked_.load(std::memory_order_relaxed); }  // relaxed: an estimate

 private:
  alignas(64) std::atomic<int32_t> parked_{0};
  alignas(64) std::atomic<uint32_t> epoch_{0};
  static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(std::atomic<uint32_t>) == 4,
                "the epoch is a futex word");
};

}  // namespace sabot::slots

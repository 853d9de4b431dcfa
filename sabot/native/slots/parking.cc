#include "sabot/native/slots/parking.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

namespace sabot::slots {

void Parking::Park(uint32_t epoch) noexcept {
  // acquire: partner of the release in Wake.
  while (epoch_.load(std::memory_order_acquire) == epoch) {
    // Fails at once when the epoch has moved on, and returns early on a signal: the loop looks again.
    syscall(SYS_futex, &epoch_, FUTEX_WAIT_PRIVATE, epoch, nullptr, nullptr, 0);
  }
  parked_.fetch_sub(1, std::memory_order_relaxed);  // relaxed: as in Abandon
}

void Parking::Wake(uint32_t count) noexcept {
  epoch_.fetch_add(1, std::memory_order_release);  // release: partner of the acquires in Prepare and Park
  syscall(SYS_futex, &epoch_, FUTEX_WAKE_PRIVATE, std::min<uint32_t>(count, INT_MAX), nullptr, nullptr, 0);
}

}  // namespace sabot::slots

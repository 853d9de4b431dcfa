// A bounded lock-free queue for many producers and many consumers: a ring of cells, each with a turn of its own that
// says whose it is. Nobody waits in it: a push into a full ring and a pop from an empty one return false.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace sabot::slots {

/// `T` is default constructible and moves without throwing. Values of one producer come out in the order in which it
/// pushed them, but a pop may say "empty" while a push that began earlier has not yet published its cell, although
/// later cells are full: who parks after a failed pop must be woken by the end of that push (see Parking).
template <typename T>
class MpmcQueue {
  static_assert(std::is_nothrow_default_constructible_v<T> && std::is_nothrow_move_assignable_v<T>);

 public:
  static constexpr bool CapacityIsValid(size_t capacity) noexcept {
    return capacity >= 2 && std::has_single_bit(capacity);
  }

  /// `capacity` must satisfy CapacityIsValid: with one cell, "full" and "empty" would be the same turn.
  explicit MpmcQueue(size_t capacity) : mask_(capacity - 1), cells_(std::make_unique<Cell[]>(capacity)) {
    for (size_t i = 0; i < capacity; ++i) {
      cells_[i].turn.store(i, std::memory_order_relaxed);  // relaxed: nobody else has the queue yet
    }
  }

  MpmcQueue(const MpmcQueue&) = delete;
  MpmcQueue& operator=(const MpmcQueue&) = delete;

  /// Moves from `value` and returns true, or leaves it alone and returns false when the ring is full.
  bool TryPush(T& value) noexcept {
    // relaxed: a ticket is only a guess until the exchange below wins it; the cell's turn orders the data.
    size_t ticket = tail_.load(std::memory_order_relaxed);
    while (true) {
      Cell& cell = cells_[ticket & mask_];
      // acquire: partner of the release in TryPop, so that the value moved out a round ago is out.
      const size_t turn = cell.turn.load(std::memory_order_acquire);
      const auto ahead = static_cast<intptr_t>(turn - ticket);
      if (ahead == 0) {
        // relaxed: it only deals out tickets; data is ordered by the cell's turn.
        if (tail_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_relaxed, std::memory_order_relaxed)) {
          cell.value = std::move(value);
          // release: partner of the acquire in TryPop.
          cell.turn.store(ticket + 1, std::memory_order_release);
          return true;
        }
      } else if (ahead < 0) {
        return false;
      } else {
        ticket = tail_.load(std::memory_order_relaxed);  // relaxed: as above
      }
    }
  }

  /// Moves the oldest value into `*value`, or returns false when there is none to be had.
  bool TryPop(T* value) noexcept {
    size_t ticket = head_.load(std::memory_order_relaxed);  // relaxed: as in TryPush
    while (true) {
      Cell& cell = cells_[ticket & mask_];
      // acquire: partner of the release in TryPush, so that the value is whole.
      const size_t turn = cell.turn.load(std::memory_order_acquire);
      const auto ahead = static_cast<intptr_t>(turn - (ticket + 1));
      if (ahead == 0) {
        // relaxed: as in TryPush
        if (head_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_relaxed, std::memory_order_relaxed)) {
          *value = std::move(cell.value);
          cell.value = T{};  // what a value owns must not outlive its pop
          // release: partner of the acquire in TryPush, one round later.
          cell.turn.store(ticket + mask_ + 1, std::memory_order_release);
          return true;
        }
      } else if (ahead < 0) {
        return false;
      } else {
        ticket = head_.load(std::memory_order_relaxed);  // relaxed: as in TryPush
      }
    }
  }

  size_t capacity() const noexcept { return mask_ + 1; }

  /// Counts cells that a push has claimed and not yet published; never below what the caller has itself seen pushed
  /// and nobody popped.
  size_t size_approx() const noexcept {
    const size_t head = head_.load(std::memory_order_relaxed);  // relaxed: an estimate
    const size_t tail =
        tail_.load(std::memory_order_relaxed);  // relaxed: an estimate, read second so that it is not behind
    const auto size = static_cast<intptr_t>(tail - head);
    return size > 0 ? static_cast<size_t>(size) : 0;
  }

 private:
  static constexpr size_t kCacheLine = 64;

  struct alignas(kCacheLine) Cell {
    std::atomic<size_t> turn{0};
    T value{};
  };
  static_assert(sizeof(Cell) % kCacheLine == 0, "two cells must not share a cache line");

  const size_t mask_;
  const std::unique_ptr<Cell[]> cells_;
  alignas(kCacheLine) std::atomic<size_t> tail_{0};
  alignas(kCacheLine) std::atomic<size_t> head_{0};
};

}  // namespace sabot::slots

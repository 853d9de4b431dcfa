// The agent's account of every byte it holds or has promised, against one limit. It counts and tells; it allocates,
// spills and waits for nothing. Free of Arrow, and safe from any thread.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>

namespace sabot::memory {

/// Whose allocated bytes stay while no task runs.
enum class Account : uint8_t { kStore, kOutbox, kResults };
constexpr size_t kAccounts = 3;

/// What bytes are promised for before they are allocated.
enum class Promise : uint8_t { kCredits, kTasks };
constexpr size_t kPromises = 2;

enum class Event : uint8_t {
  kHighWater,  // committed() rose above the high-water mark, or a reservation was refused, or there is more to free
               // while room is wanted: free something
  kFreed,      // it fell below the low-water mark, or far enough for the smallest reservation that was refused, or
               // who frees memory has come to an end that somebody waits for, whatever came of it
};

struct Snapshot {
  int64_t bytes_max = 0;  // 0: no limit
  int64_t allocated = 0;  // by the pool, and by what goes past it
  int64_t store = 0;
  int64_t outbox = 0;
  int64_t results = 0;
  int64_t credits = 0;
  int64_t tasks = 0;  // reserved by tasks
  int64_t workers = 0;
  int64_t committed = 0;
  int64_t peak = 0;  // of allocated
};

/// Two things are compared with the limit. Allocated bytes and workers never pass it: TryAllocate refuses. What is
/// committed beyond that (credits and tasks' reservations) is kept below the high-water mark by TryReserve, so that
/// what is promised finds room when it comes. A task's reservation and its allocations are not counted twice: what
/// tasks have in all is compared with what they reserved in all.
///     committed = held + max(reserved by tasks, allocated - held) + credits + workers
class Ledger {
 public:
  struct Options {
    int64_t bytes_max = 0;     // 0: no limit
    double high_water = 0.75;  // parts of bytes_max
    double low_water = 0.6;
  };

  explicit Ledger(Options options);
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  /// `bytes` more are to be allocated; false, and nothing counted, where the limit would be passed.
  bool TryAllocate(int64_t bytes) noexcept;
  void Free(int64_t bytes) noexcept;

  /// `bytes` of what is allocated belong to `account` now, until they are dropped.
  void Hold(Account account, int64_t bytes) noexcept;
  void Drop(Account account, int64_t bytes) noexcept;

  /// `bytes` are promised; false, and nothing promised, where committed() would pass the high-water mark. Whoever is
  /// refused hears of kFreed when there may be room; when it wants the room no more, it withdraws.
  bool TryReserve(Promise promise, int64_t bytes) noexcept;
  /// As TryReserve, but a refusal asks nobody to make room: for what is only good to have.
  bool ReserveIfRoom(Promise promise, int64_t bytes) noexcept;
  /// No refused reservation for `promise` is wanted any more. Whoever still wants one hears of kFreed, and tries again.
  void Withdraw(Promise promise) noexcept;
  /// As TryReserve, whatever is committed: for the one that must always be able to go on.
  void Reserve(Promise promise, int64_t bytes) noexcept;
  void Unreserve(Promise promise, int64_t bytes) noexcept;

  /// Somebody is at work to free memory; when he is not any more, TellEnded() is to follow. Who may go on whatever is
  /// committed waits for that first: a disk may be slower than he is.
  void SetFreeing(bool freeing) noexcept { freeing_.store(freeing, std::memory_order_seq_cst); }
  /// Tells kFreed where anybody has seen freeing(). To others an end by which nothing was freed says nothing: a refused
  /// reservation that was tried again for it would wake who frees again, for ever.
  void TellEnded() noexcept {
    if (awaited_.exchange(false, std::memory_order_seq_cst)) Notify(Event::kFreed);
  }
  /// There is more now that could be freed: told as kHighWater where room is wanted.
  void TellFreeable() noexcept;
  /// Whoever sees this may wait for its end, which is told as kFreed.
  bool freeing() noexcept {
    if (!freeing_.load(std::memory_order_seq_cst)) return false;
    awaited_.store(true, std::memory_order_seq_cst);
    return freeing_.load(std::memory_order_seq_cst);  // again: its end may not have found anybody waiting
  }

  /// As measured: private memory of the worker processes with their memfds; memory of this process that the pool does
  /// not know.
  void SetWorkers(int64_t bytes) noexcept;
  void SetOutside(int64_t bytes) noexcept;

  int64_t bytes_max() const noexcept { return bytes_max_; }
  int64_t high_water() const noexcept { return high_; }
  int64_t allocated() const noexcept;
  int64_t held() const noexcept;
  int64_t workers() const noexcept;
  int64_t committed() const noexcept;
  bool above_high_water() const noexcept { return committed() > high_; }
  bool below_low_water() const noexcept { return committed() <= low_; }
  /// How much the spill writer should free now: down to the low-water mark once the high one was passed, and down to
  /// what a refused reservation needs. 0 where nothing presses.
  int64_t bytes_to_free() const noexcept;
  Snapshot snapshot() const noexcept;

  /// Calls `listener` at each `event`, from the thread that caused it, outside every lock. It must not block, nor add
  /// or remove listeners.
  int64_t AddListener(Event event, std::function<void()> listener);
  /// When this returns the listener runs no more and will not be called again.
  void RemoveListener(int64_t id);

 private:
  struct Listener {
    int64_t id;
    Event event;
    std::function<void()> call;
    int running = 0;  // guarded by listeners_mutex_
  };
  using Counter = std::atomic<int64_t>;

  void WantAtMost(Promise promise, int64_t level) noexcept;
  void Rose() noexcept;
  void Fell() noexcept;
  void Notify(Event event) noexcept;

  const int64_t bytes_max_;
  const int64_t high_;
  const int64_t low_;

  // All counters, pressed_ and wanted_ are sequentially consistent: who changes a counter looks at the flags after it,
  // who sets a flag looks at the counters after it, and one of the two must see the other.
  alignas(64) Counter pool_{0};  // apart from the rest: every allocation writes it
  Counter peak_{0};
  alignas(64) Counter outside_{0};
  std::array<Counter, kAccounts> held_{};
  std::array<Counter, kPromises> promised_{};
  Counter workers_{0};
  std::atomic<bool> pressed_{false};  // from above the high-water mark to below the low one
  std::atomic<bool> freeing_{false};
  std::atomic<bool> awaited_{false};  // somebody has seen freeing_
  // For each promise the highest level of committed() at which a refused reservation would have been granted; -1: none.
  std::array<Counter, kPromises> wanted_{-1, -1};

  std::mutex reserving_;  // one reservation is weighed at a time, or two could both find the last room
  std::mutex listeners_mutex_;
  std::condition_variable listener_ended_;
  std::list<std::shared_ptr<Listener>> listeners_;  // guarded by listeners_mutex_; shared with the calls under way
  int64_t next_listener_ = 1;                       // guarded by listeners_mutex_
};

}  // namespace sabot::memory

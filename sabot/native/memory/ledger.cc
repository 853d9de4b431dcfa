#include "sabot/native/memory/ledger.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

namespace sabot::memory {
namespace {

constexpr auto kSeqCst = std::memory_order_seq_cst;  // see the header, at the counters
constexpr int64_t kNoMark = std::numeric_limits<int64_t>::max();

int64_t Mark(int64_t bytes_max, double part) {
  return bytes_max == 0 ? kNoMark : static_cast<int64_t>(static_cast<double>(bytes_max) * part);
}

size_t Index(Account account) { return static_cast<size_t>(account); }
size_t Index(Promise promise) { return static_cast<size_t>(promise); }

}  // namespace

Ledger::Ledger(Options options)
    : bytes_max_(options.bytes_max),
      high_(Mark(options.bytes_max, options.high_water)),
      low_(Mark(options.bytes_max, options.low_water)) {}

bool Ledger::TryAllocate(int64_t bytes) noexcept {
  int64_t before = pool_.load(kSeqCst);
  if (bytes_max_ == 0) {
    before = pool_.fetch_add(bytes, kSeqCst);
  } else {
    const int64_t room = bytes_max_ - bytes - outside_.load(kSeqCst) - workers_.load(kSeqCst);
    do {
      if (before > room) return false;
    } while (!pool_.compare_exchange_weak(before, before + bytes, kSeqCst));
  }
  int64_t peak = peak_.load(kSeqCst);
  while (before + bytes > peak && !peak_.compare_exchange_weak(peak, before + bytes, kSeqCst)) {
  }
  Rose();
  return true;
}

void Ledger::Free(int64_t bytes) noexcept {
  pool_.fetch_sub(bytes, kSeqCst);
  Fell();
}

void Ledger::Hold(Account account, int64_t bytes) noexcept {
  held_[Index(account)].fetch_add(bytes, kSeqCst);
  Rose();
}

void Ledger::Drop(Account account, int64_t bytes) noexcept {
  held_[Index(account)].fetch_sub(bytes, kSeqCst);
  Fell();
}

bool Ledger::TryReserve(Promise promise, int64_t bytes) noexcept {
  bool reserved = ReserveIfRoom(promise, bytes);
  if (!reserved) {
    WantAtMost(promise, std::max<int64_t>(0, high_ - bytes));
    // What was freed before the wish was known told nobody.
    reserved = ReserveIfRoom(promise, bytes);
  }
  if (reserved) {
    Withdraw(promise);
  } else {
    Notify(Event::kHighWater);
  }
  return reserved;
}

bool Ledger::ReserveIfRoom(Promise promise, int64_t bytes) noexcept {
  const std::lock_guard lock(reserving_);
  if (bytes_max_ != 0 && committed() > high_ - bytes) return false;
  promised_[Index(promise)].fetch_add(bytes, kSeqCst);
  return true;
}

void Ledger::Withdraw(Promise promise) noexcept {
  Counter& wanted = wanted_[Index(promise)];
  if (wanted.load(kSeqCst) >= 0 && wanted.exchange(-1, kSeqCst) >= 0) Notify(Event::kFreed);
}

void Ledger::Reserve(Promise promise, int64_t bytes) noexcept {
  promised_[Index(promise)].fetch_add(bytes, kSeqCst);
  Rose();
}

void Ledger::Unreserve(Promise promise, int64_t bytes) noexcept {
  promised_[Index(promise)].fetch_sub(bytes, kSeqCst);
  Fell();
}

void Ledger::SetWorkers(int64_t bytes) noexcept {
  if (workers_.exchange(bytes, kSeqCst) < bytes) {
    Rose();
  } else {
    Fell();
  }
}

void Ledger::SetOutside(int64_t bytes) noexcept {
  if (outside_.exchange(bytes, kSeqCst) < bytes) {
    Rose();
  } else {
    Fell();
  }
}

int64_t Ledger::allocated() const noexcept { return pool_.load(kSeqCst) + outside_.load(kSeqCst); }

int64_t Ledger::workers() const noexcept { return workers_.load(kSeqCst); }

int64_t Ledger::held() const noexcept {
  int64_t sum = 0;
  for (const auto& account : held_) sum += account.load(kSeqCst);
  return sum;
}

int64_t Ledger::committed() const noexcept {
  const int64_t held = this->held();
  const int64_t working = std::max(promised_[Index(Promise::kTasks)].load(kSeqCst), allocated() - held);
  return held + std::max<int64_t>(0, working) + promised_[Index(Promise::kCredits)].load(kSeqCst) +
         workers_.load(kSeqCst);
}

int64_t Ledger::bytes_to_free() const noexcept {
  int64_t level = pressed_.load(kSeqCst) ? low_ : kNoMark;
  int64_t wanted = -1;  // what needs least first: the larger wish may never be met
  for (const Counter& one : wanted_) wanted = std::max(wanted, one.load(kSeqCst));
  if (wanted >= 0) level = std::min(level, wanted);
  return level == kNoMark ? 0 : std::max<int64_t>(0, committed() - level);
}

void Ledger::TellFreeable() noexcept {
  if (bytes_to_free() > 0) Notify(Event::kHighWater);
}

Snapshot Ledger::snapshot() const noexcept {
  return {.bytes_max = bytes_max_,
          .allocated = allocated(),
          .store = held_[Index(Account::kStore)].load(kSeqCst),
          .outbox = held_[Index(Account::kOutbox)].load(kSeqCst),
          .results = held_[Index(Account::kResults)].load(kSeqCst),
          .credits = promised_[Index(Promise::kCredits)].load(kSeqCst),
          .tasks = promised_[Index(Promise::kTasks)].load(kSeqCst),
          .workers = workers_.load(kSeqCst),
          .committed = committed(),
          .peak = peak_.load(kSeqCst)};
}

int64_t Ledger::AddListener(Event event, std::function<void()> listener) {
  const std::lock_guard lock(listeners_mutex_);
  const int64_t id = next_listener_++;
  listeners_.push_back(std::make_shared<Listener>(Listener{id, event, std::move(listener)}));
  return id;
}

void Ledger::RemoveListener(int64_t id) {
  std::unique_lock lock(listeners_mutex_);
  const auto found = std::find_if(listeners_.begin(), listeners_.end(), [&](const auto& one) { return one->id == id; });
  if (found == listeners_.end()) return;
  const std::shared_ptr<Listener> removed = *found;
  listeners_.erase(found);
  listener_ended_.wait(lock, [&] { return removed->running == 0; });
}

void Ledger::WantAtMost(Promise promise, int64_t level) noexcept {
  Counter& known = wanted_[Index(promise)];
  int64_t wanted = known.load(kSeqCst);
  while (wanted < level && !known.compare_exchange_weak(wanted, level, kSeqCst)) {
  }
}

void Ledger::Rose() noexcept {
  if (pressed_.load(kSeqCst) || committed() <= high_ || pressed_.exchange(true, kSeqCst)) return;
  Notify(Event::kHighWater);
  Fell();  // it may have fallen before the flag could be seen
}

void Ledger::Fell() noexcept {
  bool tell = false;
  if (pressed_.load(kSeqCst) && committed() <= low_ && pressed_.exchange(false, kSeqCst)) {
    tell = true;
    // It may have risen again before the flag was taken back. Here rather than by Rose, so that neither calls the other
    // without end.
    if (committed() > high_ && !pressed_.exchange(true, kSeqCst)) Notify(Event::kHighWater);
  }
  for (Counter& one : wanted_) {
    int64_t wanted = one.load(kSeqCst);
    // Again where it was raised meanwhile: who raised it may have looked before what has just been freed.
    while (wanted >= 0 && committed() <= wanted) {
      if (!one.compare_exchange_weak(wanted, -1, kSeqCst)) continue;
      tell = true;
      break;
    }
  }
  if (tell) Notify(Event::kFreed);
}

void Ledger::Notify(Event event) noexcept {
  std::vector<std::shared_ptr<Listener>> called;
  {
    const std::lock_guard lock(listeners_mutex_);
    for (const auto& listener : listeners_) {
      if (listener->event != event) continue;
      ++listener->running;
      called.push_back(listener);
    }
  }
  for (const auto& listener : called) listener->call();
  if (called.empty()) return;
  const std::lock_guard lock(listeners_mutex_);
  for (const auto& listener : called) --listener->running;
  listener_ended_.notify_all();
}

}  // namespace sabot::memory

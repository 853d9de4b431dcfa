#include "sabot/native/slots/core.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

namespace sabot::slots {
namespace {

/// An item that takes longer than this pays for a second slot although both need a lock in common.
constexpr std::chrono::microseconds kLongItem{50};

/// A lease that has taken this long, since its items are not what those before them were, goes back to be dealt again:
/// other jobs may be next.
constexpr std::chrono::nanoseconds kLeaseMax{2 * FairQueue::Options{}.lease_ns};

/// Signals go to the program's own threads: Python's handlers run there and their waits must be interrupted. Not those
/// of a thread's own faults: blocked, they end the process without a word, where faulthandler would say which it was.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}) sigdelset(&all, fault);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

struct Place {
  Core* core = nullptr;
  Slot* slot = nullptr;
};
thread_local Place here;

}  // namespace

void Run::SkipRest() noexcept {
  if (here.core != nullptr) here.core->SkipRest(*this);
}

Core* Core::Here() noexcept { return here.core; }

Core::Core(const SlotPool::Options& options)
    : logbook_(options.timeline_morsels),
      dealer_(options.queue_capacity, {.fair = options.fair}, options.steal),
      fair_(options.fair),
      wake_(options.wake) {}

Core::Slots Core::slots() const {
  std::lock_guard lock(mutex_);
  return slots_;
}

void Core::WakeOne() {
  if (!parking_.AnyoneParked() || !wake_) return;
  // One at a time, who wakes the next if there is more: acq_rel, partner of the exchanges in TryDeal and Serve. If that
  // one comes first, this one is false, and somebody is woken; if this one does, the slot's look that follows sees the
  // work.
  if (!waking_.exchange(true, std::memory_order_acq_rel)) parking_.Wake(1);
}

Outcome Core::Submit(Ticket run, const JobShare& share) {
  if (!run || !share.valid()) return Outcome::kInvalid;
  const bool from_slot = here.core == this;
  if (from_slot && !run->queued_in_slots()) {  // even when closed: what runs already may go on, so that it can end
    if (!Claims::Open(*run, share)) return Outcome::kInvalid;
    RunHere(*run, *here.slot);
    return Outcome::kAccepted;
  }
  Outcome outcome = Outcome::kShutDown;
  // acq_rel: partner of the read-modify-write in Shutdown. One of the two comes first: if ours, Shutdown waits for us;
  // if Shutdown's, we see that it has closed.
  submitting_.fetch_add(1, std::memory_order_acq_rel);
  // relaxed: ordered by the read-modify-writes. What a slot adds it finds itself, if nobody else does, before it ends.
  const std::atomic<bool>& refusing = from_slot ? skipping_ : closed_;
  if (!refusing.load(std::memory_order_relaxed)) {
    outcome = Claims::Open(*run, share) ? Outcome::kAccepted : Outcome::kInvalid;
    if (outcome == Outcome::kAccepted && run->item_count() > 0) {
      dealer_.Add(std::move(run));
      WakeOne();
    }
  }
  submitting_.fetch_sub(1, std::memory_order_acq_rel);  // acq_rel: partner of the same
  if (outcome == Outcome::kAccepted && run) run->Finished();
  return outcome;
}

void Core::RunHere(Run& run, Slot& slot) {
  if (run.item_count() == 0) return run.Finished();
  for (size_t index = 0; dealer_.Claim(run, &index);) {
    slot.RunItem(run, index, Slot::Clock::now());
    Claims::Complete(run, 1);
  }
}

void Core::Cancel(Run& run) {
  if (Claims::opened(run)) dealer_.SkipRest(run);
}

void Core::Widen(const Ticket& run) {
  if (Claims::opened(*run) && dealer_.Widen(run)) WakeOne();
}

Core::Ran Core::RunLane(Slot& slot, Slot::Clock::time_point last_end) {
  Run& run = *slot.lease.run;
  // One look at the clock serves as the end of an item and the start of the next, also where dealing lies between.
  const auto start = last_end == Slot::Clock::time_point{} ? Slot::Clock::now() : last_end;
  auto now = start;
  const size_t dealt = slot.lease.items.count;
  size_t items = 0;
  slot.usage().Start(start);
  for (size_t index = 0; items < dealt && slot.lane.Pop(&index); ++items) {
    const auto before = now;
    now = slot.RunItem(run, index, before);
    if (slot.narrow && now - before > kLongItem) {
      slot.narrow = false;
      if (dealer_.Widen(slot.lease.run)) WakeOne();
    }
    const bool longer_than_thought = fair_ && now - start > kLeaseMax && items + 1 < dealt;
    if (slot.leaving() || longer_than_thought) {
      dealer_.HandOver(slot);
      WakeOne();
    }
  }
  slot.usage().Stop(now);
  Claims::Complete(run, items);
  return {items, (now - start).count(), now};
}

bool Core::TryDeal(Slot& slot, const Ran& ran) {
  // relaxed: who was woken has the epoch's acquire between this and the store of true; another may miss it.
  // acq_rel: partner of the exchange in WakeOne.
  if (waking_.load(std::memory_order_relaxed)) waking_.exchange(false, std::memory_order_acq_rel);
  bool more = false;
  const bool found = dealer_.Deal(slot, ran.items, ran.ns, &more);
  if (found && more) WakeOne();
  return found;
}

bool Core::NextLease(Slot& slot, Ran* ran) {
  // acquire, here and below: partner of the release in Shutdown, whose wake comes after it. A slot that leaves while
  // the pool ends may be the last one: it stays until there is nothing.
  while (!slot.leaving() || ending_.load(std::memory_order_acquire)) {
    if (TryDeal(slot, *ran)) return true;
    *ran = {};  // settled
    const uint32_t epoch = parking_.Prepare();
    // Before the look, which then sees all that was submitted before the end.
    const bool ending = ending_.load(std::memory_order_acquire);
    const bool found = TryDeal(slot, *ran);
    if (!found && !ending && !slot.leaving()) {
      parking_.Park(epoch);
      continue;
    }
    parking_.Abandon();
    if (found) return true;
    break;
  }
  dealer_.Exit(slot, ran->items, ran->ns);
  return false;
}

void Core::Serve(Slot& slot) {
  here = {this, &slot};
  bool alone = true;
  while (alone) {
    dealer_.Enter(slot);
    for (Ran ran; NextLease(slot, &ran);) ran = RunLane(slot, ran.end);
    // What this slot gave back as it left, others find: those that look after it, or, where all may have looked before
    // it and ended, nobody but itself. The queue's lock tells which: who looked before it had seen the end, and then
    // so does this. acquire: as in NextLease.
    alone = dealer_.has_work() && ending_.load(std::memory_order_acquire);
  }
  here = {};
  // A slot that leaves may have taken a wake-up that was meant for work; acq_rel: as in TryDeal.
  waking_.exchange(false, std::memory_order_acq_rel);
  if (dealer_.has_work()) WakeOne();
  Served();
}

void Core::Served() {
  {
    std::lock_guard lock(mutex_);
    --serving_;
  }
  served_.notify_all();
}

bool Core::StartSlot() {
  const auto free_id = std::find(id_taken_.begin(), id_taken_.end(), false);
  const int id = static_cast<int>(free_id - id_taken_.begin());
  auto slot = std::make_shared<Slot>(id, logbook_.OfSlot(id));
  SignalsBlocked blocked;
  try {
    slot->thread() = std::thread([core = shared_from_this(), slot] { core->Serve(*slot); });
  } catch (const std::system_error&) {
    return false;
  }
  pthread_setname_np(slot->thread().native_handle(), ("sabot-slot-" + std::to_string(id)).c_str());
  if (free_id == id_taken_.end()) id_taken_.push_back(false);
  id_taken_[id] = true;
  ++serving_;
  slots_.push_back(std::move(slot));
  return true;
}

Outcome Core::AddSlots(int count) {
  Slots started;
  {
    std::lock_guard lock(mutex_);
    const int before = static_cast<int>(slots_.size());
    if (count < 1 || count > SlotPool::kSlotsMax - before) return Outcome::kInvalid;
    if (ending_.load(std::memory_order_relaxed)) return Outcome::kShutDown;  // relaxed: Shutdown takes mutex_ after it
    for (int i = 0; i < count; ++i) {
      if (StartSlot()) continue;
      started.assign(slots_.begin() + before, slots_.end());  // all or none
      slots_.resize(before);
      break;
    }
  }
  Join(started);
  return started.empty() ? Outcome::kAccepted : Outcome::kNoThreads;
}

Outcome Core::RemoveSlots(int count) {
  if (count < 1 || here.core == this) return Outcome::kInvalid;
  std::lock_guard only_one(joining_mutex_);
  Slots removed;
  {
    std::lock_guard lock(mutex_);
    if (ending_.load(std::memory_order_relaxed)) return Outcome::kShutDown;  // relaxed: as in AddSlots
    if (static_cast<size_t>(count) >= slots_.size()) return Outcome::kLastSlot;
    removed.assign(slots_.end() - count, slots_.end());
    slots_.resize(slots_.size() - count);
  }
  Join(removed);
  return Outcome::kAccepted;
}

void Core::Join(const Slots& slots) {
  if (slots.empty()) return;
  for (const auto& slot : slots) slot->Leave();
  if (parking_.AnyoneParked()) parking_.Wake(SlotPool::kSlotsMax);
  for (const auto& slot : slots) slot->thread().join();
  std::lock_guard lock(mutex_);
  for (const auto& slot : slots) id_taken_[slot->id()] = false;
}

Outcome Core::Shutdown(bool drain, std::chrono::steady_clock::time_point deadline) {
  if (!drain) skipping_.store(true, std::memory_order_relaxed);  // relaxed, as the next: ordered by the
  closed_.store(true, std::memory_order_relaxed);                // read-modify-writes of submitting_
  // acq_rel: partners of those in Submit. What is being added can be found by the slots before they may end on finding
  // nothing; adding takes no lock that anyone holds for long.
  while (submitting_.fetch_add(0, std::memory_order_acq_rel) > 0) std::this_thread::yield();
  if (!drain) dealer_.SkipAll();
  ending_.store(true, std::memory_order_release);  // release: partner of the acquire in NextLease
  if (parking_.AnyoneParked()) parking_.Wake(SlotPool::kSlotsMax);
  const int myself = here.core == this ? 1 : 0;
  {
    std::unique_lock lock(mutex_);  // from here on no slot is added
    if (!served_.wait_until(lock, deadline, [&] { return serving_ <= myself; })) return Outcome::kBusy;
  }
  std::lock_guard only_one(joining_mutex_);
  Slots all;
  {
    std::lock_guard lock(mutex_);
    all.swap(slots_);
  }
  for (const auto& slot : all) {
    if (slot->thread().get_id() == std::this_thread::get_id()) {
      slot->thread().detach();  // it destroys its own pool: it cannot join itself, and keeps the core until it ends
    } else {
      slot->thread().join();
    }
  }
  return Outcome::kAccepted;
}

}  // namespace sabot::slots

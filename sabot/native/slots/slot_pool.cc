#include "sabot/native/slots/slot_pool.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "sabot/native/slots/parking.h"
#include "sabot/native/slots/slot.h"
#include "sabot/native/slots/ticket_queue.h"

namespace sabot::slots {
namespace {

using Slots = std::vector<std::shared_ptr<Slot>>;

/// Signals go to the program's own threads: Python's handlers run there and their waits must be interrupted.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

/// What the slots share. Owned by the pool and by every slot's thread, so that a slot may outlive the pool that it
/// destroys itself.
class Core : public std::enable_shared_from_this<Core> {
 public:
  explicit Core(size_t queue_capacity) : queue_(queue_capacity) {}

  Outcome Submit(Ticket run);
  Outcome AddSlots(int count);
  Outcome RemoveSlots(int count);
  void Shutdown(bool drain);

  bool on_slot_thread() const noexcept { return here.core == this; }
  int num_slots() const {
    std::lock_guard lock(mutex_);
    return static_cast<int>(slots_.size());
  }
  Slots slots() const {
    std::lock_guard lock(mutex_);
    return slots_;
  }
  int64_t items_queued_approx() const noexcept {
    return std::max<int64_t>(0, items_queued_.load(std::memory_order_relaxed));  // relaxed: an estimate
  }
  int parked_approx() const noexcept { return parking_.parked_approx(); }

 private:
  struct Here {
    const Core* core = nullptr;
    Slot* slot = nullptr;
  };
  static thread_local Here here;

  bool StartSlot();  // under mutex_
  void Serve(Slot& slot);
  Ticket NextTicket(Slot& slot);
  void Work(Ticket ticket, Slot& slot);
  void Enqueue(Ticket ticket);
  void WakeForQueued();
  void Join(const Slots& slots);
  void RunHere(Run& run, Slot& slot);

  TicketQueue queue_;
  Parking parking_;
  std::atomic<int64_t> items_queued_{0};
  std::atomic<int> submitting_{0};     // calls of Submit that may be pushing
  std::atomic<bool> closed_{false};    // Submit refuses
  std::atomic<bool> ending_{false};    // slots end when the queue is empty; set when nobody pushes but they
  std::atomic<bool> skip_all_{false};  // slots skip instead of running

  // Lock order: joining_mutex_ before mutex_. No Run is called and no thread joined under mutex_.
  std::mutex joining_mutex_;  // held while slots are joined
  mutable std::mutex mutex_;
  Slots slots_;                 // guarded by mutex_
  std::vector<bool> id_taken_;  // guarded by mutex_; an id is free again when its slot has joined
};

thread_local Core::Here Core::here;

void Core::WakeForQueued() {
  if (!parking_.AnyoneParked()) return;
  // As many as there are tickets, not one: a later push may have ended before ours, and whoever it woke have seen only
  // the gap that we left, and gone back to sleep.
  if (const size_t tickets = queue_.size_approx()) parking_.Wake(static_cast<uint32_t>(tickets));
}

void Core::Enqueue(Ticket ticket) {
  queue_.Push(std::move(ticket));
  WakeForQueued();
}

Outcome Core::Submit(Ticket run) {
  if (!run) return Outcome::kInvalid;
  const bool from_slot =
      on_slot_thread();  // even when closed: what runs already may go on to submit, so that it can end
  if (from_slot && !run->queued_in_slots()) {
    if (!Claims::Open(*run, &items_queued_)) return Outcome::kInvalid;
    RunHere(*run, *here.slot);
    return Outcome::kAccepted;
  }
  Outcome outcome = Outcome::kShutDown;
  // acq_rel: partner of the read-modify-write in Shutdown. One of the two comes first: if ours, Shutdown waits for us;
  // if Shutdown's, we see that it has closed.
  submitting_.fetch_add(1, std::memory_order_acq_rel);
  // relaxed: ordered by the read-modify-writes. A slot that pushes takes from the queue again before it ends.
  if (from_slot || !closed_.load(std::memory_order_relaxed)) {
    outcome = Claims::Open(*run, &items_queued_) ? Outcome::kAccepted : Outcome::kInvalid;
    if (outcome == Outcome::kAccepted && run->item_count() > 0) Enqueue(run);
  }
  submitting_.fetch_sub(1, std::memory_order_acq_rel);  // acq_rel: partner of the same
  if (outcome == Outcome::kAccepted && run->item_count() == 0) run->Finished();
  return outcome;
}

void Core::RunHere(Run& run, Slot& slot) {
  if (run.item_count() == 0) return run.Finished();
  size_t index = 0;
  for (bool more = true; more && Claims::Next(run, &index, &more);) slot.RunItem(run, index);
}

void Core::Work(Ticket ticket, Slot& slot) {
  // acquire: partner of the release in Shutdown.
  if (skip_all_.load(std::memory_order_acquire)) return Claims::SkipRest(*ticket);
  size_t index = 0;
  bool more = false;
  if (!Claims::Next(*ticket, &index, &more)) return;
  if (more) Enqueue(ticket);
  slot.RunItem(*ticket, index);
}

Ticket Core::NextTicket(Slot& slot) {
  while (!slot.leaving()) {
    if (Ticket ticket = queue_.TryPop()) return ticket;
    const uint32_t epoch = parking_.Prepare();
    Ticket ticket = queue_.TryPop();
    // acquire: partner of the release in Shutdown, whose wake comes after it.
    const bool ending = ending_.load(std::memory_order_acquire);
    if (ticket || ending || slot.leaving()) {
      parking_.Abandon();
      if (ticket || ending) return ticket;
      break;
    }
    parking_.Park(epoch);
  }
  return nullptr;
}

void Core::Serve(Slot& slot) {
  here = {this, &slot};
  while (Ticket ticket = NextTicket(slot)) Work(std::move(ticket), slot);
  here = {};
}

bool Core::StartSlot() {
  const auto free_id = std::find(id_taken_.begin(), id_taken_.end(), false);
  const int id = static_cast<int>(free_id - id_taken_.begin());
  auto slot = std::make_shared<Slot>(id);
  SignalsBlocked blocked;
  try {
    slot->thread() = std::thread([core = shared_from_this(), slot] { core->Serve(*slot); });
  } catch (const std::system_error&) {
    return false;
  }
  pthread_setname_np(slot->thread().native_handle(), ("sabot-slot-" + std::to_string(id)).c_str());
  if (free_id == id_taken_.end()) id_taken_.push_back(false);
  id_taken_[id] = true;
  slots_.push_back(std::move(slot));
  return true;
}

Outcome Core::AddSlots(int count) {
  Slots started;
  {
    std::lock_guard lock(mutex_);
    const int before = static_cast<int>(slots_.size());
    if (count < 1 || count > SlotPool::kSlotsMax - before) return Outcome::kInvalid;
    if (closed_.load(std::memory_order_relaxed)) return Outcome::kShutDown;  // relaxed: Shutdown takes mutex_ after it
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
  if (count < 1 || on_slot_thread()) return Outcome::kInvalid;
  std::lock_guard only_one(joining_mutex_);
  Slots removed;
  {
    std::lock_guard lock(mutex_);
    if (closed_.load(std::memory_order_relaxed)) return Outcome::kShutDown;  // relaxed: ordered by joining_mutex_
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
  // A slot that left may have taken a wake-up that was meant for work.
  WakeForQueued();
  std::lock_guard lock(mutex_);
  for (const auto& slot : slots) id_taken_[slot->id()] = false;
}

void Core::Shutdown(bool drain) {
  if (!drain) skip_all_.store(true, std::memory_order_release);  // release: partner of the acquire in Work
  std::lock_guard only_one(joining_mutex_);
  closed_.store(true, std::memory_order_relaxed);  // relaxed: ordered by the read-modify-writes of submitting_
  // acq_rel: partners of those in Submit. What is being pushed is in the queue before the slots may end on finding it
  // empty; a push takes no lock that anyone holds for long.
  while (submitting_.fetch_add(0, std::memory_order_acq_rel) > 0) std::this_thread::yield();
  ending_.store(true, std::memory_order_release);  // release: partner of the acquire in NextTicket
  Slots all;
  {
    std::lock_guard lock(mutex_);
    all.swap(slots_);
  }
  if (parking_.AnyoneParked()) parking_.Wake(SlotPool::kSlotsMax);
  for (const auto& slot : all) {
    if (slot->thread().get_id() == std::this_thread::get_id()) {
      slot->thread().detach();  // it destroys its own pool: it cannot join itself, and keeps the core until it ends
    } else {
      slot->thread().join();
    }
  }
}

class CorePool final : public SlotPool {
 public:
  explicit CorePool(size_t queue_capacity) : core_(std::make_shared<Core>(queue_capacity)) {}
  // In a fork's child the threads that own the core too do not exist: it is left as it is.
  ~CorePool() override {
    if (!forked()) core_->Shutdown(/*drain=*/false);
  }

  Outcome Submit(std::shared_ptr<Run> run) override {
    return forked() ? Outcome::kForked : core_->Submit(std::move(run));
  }
  void Cancel(const std::shared_ptr<Run>& run) override {
    if (!forked() && run) Claims::SkipRest(*run);
  }
  Outcome AddSlots(int count) override { return forked() ? Outcome::kForked : core_->AddSlots(count); }
  Outcome RemoveSlots(int count) override { return forked() ? Outcome::kForked : core_->RemoveSlots(count); }
  Outcome Shutdown(bool drain) override {
    if (forked()) return Outcome::kForked;
    if (core_->on_slot_thread()) return Outcome::kInvalid;
    core_->Shutdown(drain);
    return Outcome::kAccepted;
  }

  int num_slots() const override { return forked() ? 0 : core_->num_slots(); }
  int available_slots_approx() const override {
    if (forked()) return 0;
    const Slots slots = core_->slots();
    return static_cast<int>(std::count_if(slots.begin(), slots.end(), [](const auto& s) { return !s->busy(); }));
  }
  int64_t queue_depth_approx() const override { return core_->items_queued_approx(); }
  int parked_slots_approx() const override { return core_->parked_approx(); }
  std::vector<SlotStats> stats() const override {
    std::vector<SlotStats> stats;
    if (forked()) return stats;
    for (const auto& slot : core_->slots()) stats.push_back(slot->stats());
    return stats;
  }
  bool on_slot_thread() const override { return core_->on_slot_thread(); }

 private:
  bool forked() const noexcept { return getpid() != pid_; }

  const pid_t pid_ = getpid();
  const std::shared_ptr<Core> core_;
};

}  // namespace

std::unique_ptr<SlotPool> SlotPool::Make(Options options) {
  if (options.num_slots < 0 || options.num_slots > kSlotsMax) return nullptr;
  if (!MpmcQueue<Ticket>::CapacityIsValid(options.queue_capacity)) return nullptr;
  int slots = options.num_slots;
  if (slots == 0) slots = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kSlotsMax);
  auto pool = std::make_unique<CorePool>(options.queue_capacity);
  if (pool->AddSlots(slots) != Outcome::kAccepted) return nullptr;
  return pool;
}

}  // namespace sabot::slots

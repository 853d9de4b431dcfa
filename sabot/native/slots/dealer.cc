#include "sabot/native/slots/dealer.h"

#include <algorithm>
#include <utility>

namespace sabot::slots {
namespace {

/// Of a narrow Run the rest stands in no line while one lane has it.
bool HasRest(Run& run) {
  const RunState& state = Claims::state(run);
  return state.next < state.count;
}

}  // namespace

void Dealer::Add(Ticket run) {
  if (ring_.TryPush(run)) return;
  std::vector<Ticket> dead;  // here and below: declared before the lock, so that what ends here ends without it
  std::lock_guard lock(mutex_);
  Drain(&dead);
  Enqueue(std::move(run), &dead);
}

void Dealer::Enqueue(Ticket run, std::vector<Ticket>* dead) {
  if (FairQueue::HasItems(*run)) {
    queue_.Push(std::move(run));
  } else {
    dead->push_back(std::move(run));  // cancelled on its way here
  }
}

void Dealer::Drain(std::vector<Ticket>* dead) {
  Ticket run;
  while (ring_.TryPop(&run)) Enqueue(std::move(run), dead);
}

void Dealer::Fill(Slot& slot, Lease lease, bool stole) {
  slot.lane.Fill(lease.items);
  slot.narrow = Claims::state(*lease.run).narrow;
  slot.stole = stole;
  slot.lease = std::move(lease);
}

bool Dealer::Deal(Slot& slot, size_t items, int64_t ns, bool* more) {
  std::vector<Ticket> dead;
  Lease ended;
  std::lock_guard lock(mutex_);
  ended = std::exchange(slot.lease, {});
  if (ended.run) queue_.Settle(ended, items, ns);
  Drain(&dead);
  Lease lease;
  bool found = true;
  const auto first = std::min_element(handed_over_.begin(), handed_over_.end(), [](const Lease& a, const Lease& b) {
    return FairQueue::VirtualNsOf(a) < FairQueue::VirtualNsOf(b);
  });
  if (first != handed_over_.end() && queue_.ComesFirst(*first)) {
    Fill(slot, std::move(*first), false);
    handed_over_.erase(first);
  } else if (queue_.Take(slots_.size(), &lease)) {
    Fill(slot, std::move(lease), false);
  } else {
    found = steal_ && Steal(slot);
  }
  *more = !queue_.empty() || !handed_over_.empty();
  return found;
}

bool Dealer::Steal(Slot& slot) {
  while (true) {
    Slot* richest = nullptr;
    size_t most = 0;
    for (Slot* other : slots_) {
      if (!other->lease.run || Claims::state(*other->lease.run).narrow) continue;
      const size_t size = other->lane.size_approx();
      if (size > most) {
        most = size;
        richest = other;
      }
    }
    if (richest == nullptr) return false;
    const ItemRange half = richest->lane.TakeHalf();
    if (half.count == 0) continue;  // its owner was faster: that lane stays empty, so this comes to an end
    Fill(slot, queue_.Share(richest->lease, half), true);
    return true;
  }
}

bool Dealer::Claim(Run& run, size_t* index) {
  std::lock_guard lock(mutex_);
  RunState& state = Claims::state(run);
  if (state.next >= state.count) return false;
  *index = state.next++;
  return true;
}

void Dealer::SkipRest(Run& run) {
  Ticket dropped;
  std::vector<ItemRange> skipped;
  {
    std::lock_guard lock(mutex_);
    skipped.push_back(queue_.TakeRest(run, &dropped));
    for (Slot* slot : slots_) {
      if (slot->lease.run.get() == &run) skipped.push_back(slot->lane.TakeAll());
    }
    for (Lease& lease : handed_over_) {
      if (lease.run.get() == &run) skipped.push_back(std::exchange(lease.items, {}));
    }
  }
  size_t count = 0;
  for (const ItemRange& range : skipped) {
    Claims::Skip(run, range);
    count += range.count;
  }
  Claims::Complete(run, count);
}

void Dealer::SkipAll() {
  while (true) {
    std::vector<Ticket> dead;
    Ticket run;
    {
      std::lock_guard lock(mutex_);
      Drain(&dead);
      run = queue_.AnyRun();
      for (Slot* slot : slots_) {
        if (!run && slot->lease.run && (slot->lane.size_approx() > 0 || HasRest(*slot->lease.run)))
          run = slot->lease.run;
      }
      for (const Lease& lease : handed_over_) {
        if (!run && (lease.items.count > 0 || HasRest(*lease.run))) run = lease.run;
      }
    }
    if (!run) return;
    SkipRest(*run);
  }
}

bool Dealer::Widen(const Ticket& run) {
  std::lock_guard lock(mutex_);
  if (!Claims::state(*run).narrow) return false;
  queue_.Widen(run);
  return true;
}

void Dealer::Enter(Slot& slot) {
  std::lock_guard lock(mutex_);
  slots_.push_back(&slot);
}

void Dealer::HandOver(Slot& slot) {
  std::lock_guard lock(mutex_);
  const ItemRange rest = slot.lane.TakeAll();
  if (rest.count > 0) handed_over_.push_back(queue_.Share(slot.lease, rest));
}

void Dealer::Exit(Slot& slot, size_t items, int64_t ns) {
  Lease ended;
  std::lock_guard lock(mutex_);
  std::erase(slots_, &slot);
  ended = std::exchange(slot.lease, {});
  if (ended.run) queue_.Settle(ended, items, ns);
}

size_t Dealer::items_waiting() {
  std::vector<Ticket> dead;
  std::lock_guard lock(mutex_);
  Drain(&dead);
  size_t waiting = queue_.items_queued();
  for (const Slot* slot : slots_) waiting += slot->lane.size_approx();
  for (const Lease& lease : handed_over_) waiting += lease.items.count;
  return waiting;
}

bool Dealer::has_work() {
  std::vector<Ticket> dead;
  std::lock_guard lock(mutex_);
  Drain(&dead);
  return !queue_.empty() || !handed_over_.empty();
}

}  // namespace sabot::slots

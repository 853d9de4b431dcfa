// Deals items out to the slots: the ring of Runs that were just submitted, the fair queue behind it, and the lanes that
// slots steal from. It decides who runs what; threads, parking and the pool's end are Core's.
#pragma once

#include <mutex>
#include <vector>

#include "sabot/native/slots/fair_queue.h"
#include "sabot/native/slots/mpmc_queue.h"
#include "sabot/native/slots/slot.h"

namespace sabot::slots {

/// Safe from any thread. Its lock is a leaf, held for some hundred nanoseconds once per lease; no Run is called and
/// none let go of under it, except for `source_of`.
class Dealer {
 public:
  Dealer(size_t ring_capacity, FairQueue::Options options, bool steal)
      : ring_(ring_capacity), queue_(options), steal_(steal) {}

  /// An opened Run that has items. Takes the lock only when the ring is full.
  void Add(Ticket run);
  /// Settles the slot's last lease, of which `items` ran in `ns`, and fills its lane again; false when there is nothing
  /// for it. `*more` says whether other slots would find something.
  bool Deal(Slot& slot, size_t items, int64_t ns, bool* more);
  /// Claims one item of a Run that was never added.
  bool Claim(Run& run, size_t* index);
  /// Skips, in the calling thread, the items that have not started.
  void SkipRest(Run& run);
  /// The same for every Run.
  void SkipAll();
  /// Any number of slots may work on the Run from now on; false where that was so.
  bool Widen(const Ticket& run);

  /// A slot whose lane others may steal from. Before its first Deal.
  void Enter(Slot& slot);
  /// The items left in its lane go back to be dealt again. Called by the slot itself, as is Exit.
  void HandOver(Slot& slot);
  void Exit(Slot& slot, size_t items, int64_t ns);

  size_t items_waiting();
  bool has_work();

 private:
  void Drain(std::vector<Ticket>* dead);  // these under mutex_
  void Enqueue(Ticket run, std::vector<Ticket>* dead);
  bool Steal(Slot& slot);
  static void Fill(Slot& slot, Lease lease, bool stole);

  MpmcQueue<Ticket> ring_;
  std::mutex mutex_;
  FairQueue queue_;                 // guarded by mutex_
  std::vector<Slot*> slots_;        // guarded by mutex_
  std::vector<Lease> handed_over_;  // guarded by mutex_
  const bool steal_;
};

}  // namespace sabot::slots

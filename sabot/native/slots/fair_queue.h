// Whose turn it is: the Runs that have items left, job by job in the order of the slot time that each has used.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "sabot/native/slots/run.h"

namespace sabot::slots {

/// What a slot is dealt: some next items of a Run, and what they were charged in advance.
struct Lease {
  Ticket run;
  ItemRange items;
  Source source = Source::kLocal;
  int64_t charged_ns = 0;
  double charged_virtual_ns = 0;  // the same, by the weight that the job had then
};

/// A job's account. `virtual_ns` is the slot time it has used divided by its weight.
struct Job {
  struct Lined {
    std::list<Ticket> runs;
    int64_t used_ns = 0;
  };

  JobShare share;
  double virtual_ns = 0;
  int64_t now_used_ns = 0;  // where the source that was served last stood
  size_t runs = 0;          // that have items left, or leased and not settled
  Lined by_source[2];       // indexed by Source
};

/// Start-time fair queueing: the job with the least virtual time is next, and within it the source that has used less
/// time. A job that comes back from idle starts at the time at which the others are: it banks no credit; but what it
/// owes it owes, until a time comes at which nobody has work. No locks and no clock: the pool guards it and tells it
/// times.
class FairQueue {
 public:
  struct Options {
    bool fair = true;  // false: jobs take turns, local work comes first; for the tests that see what fairness is for
    int64_t lease_ns = 50'000;  // how much work a slot is dealt at once, where its items' time is known
  };

  explicit FairQueue(Options options) : options_(options) {}
  FairQueue(const FairQueue&) = delete;
  FairQueue& operator=(const FairQueue&) = delete;

  /// Whether a Run has items left that are nobody's; not after it was cancelled.
  static bool HasItems(Run& run) { return Claims::state(run).next < Claims::state(run).count; }
  /// A Run that was opened and has items left.
  void Push(Ticket run);
  /// The next items for one of `slots` slots; false when nothing is queued.
  bool Take(size_t slots, Lease* lease);
  /// A lease on some of the items of another, stolen from it.
  Lease Share(const Lease& lease, ItemRange items);
  /// Where the job of an unsettled lease stands.
  static double VirtualNsOf(const Lease& lease);
  /// Whether no job with items in the queue comes before this lease's.
  bool ComesFirst(const Lease& lease);
  /// A lease has ended: `items` of it ran, in `ns`.
  void Settle(const Lease& lease, size_t items, int64_t ns);
  /// Takes back what is not leased; `*dropped` is to be let go of without the lock.
  ItemRange TakeRest(Run& run, Ticket* dropped);
  /// Any number of lanes may have the Run from now on.
  void Widen(const Ticket& run);

  bool empty() const noexcept { return ready_.empty(); }
  /// Any queued Run, or null.
  Ticket AnyRun() const;
  size_t items_queued() const noexcept { return items_queued_; }
  size_t jobs() const noexcept { return jobs_.size(); }
  double virtual_ns_of(std::string_view job) const;  // -1: not known (any more)

 private:
  Job& JobOf(const JobShare& share);
  Job* Next();
  void Line(Ticket run);
  void Unline(Run& run, Ticket* dropped);
  void Charge(Job& job, Source source, int64_t ns, double virtual_ns);
  double StartOfNewcomer() const;
  void LeaveIfDone(Run& run);
  void ForgetIdleJobs();
  size_t LeaseSize(const RunState& state, size_t slots) const;

  const Options options_;
  std::unordered_map<std::string, std::unique_ptr<Job>> jobs_;
  Job* latest_ = nullptr;     // the job of the Run pushed last: often the next one's, too
  size_t forget_at_ = 64;     // jobs; then those that owe nothing are forgotten
  std::vector<Job*> ready_;   // that have a Run queued
  std::list<Ticket> places_;  // null ones, for the next Runs in line
  size_t busy_jobs_ = 0;      // whose runs are not 0
  size_t items_queued_ = 0;
  double now_virtual_ns_ = 0;  // where the job that was served last stood
  double max_virtual_ns_ = 0;  // where the farthest job stands
};

}  // namespace sabot::slots

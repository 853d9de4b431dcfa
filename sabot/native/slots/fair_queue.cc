#include "sabot/native/slots/fair_queue.h"

#include <algorithm>
#include <utility>

namespace sabot::slots {
namespace {

constexpr size_t kPlacesMax = 4096;

}  // namespace

void FairQueue::Push(Ticket run) {
  RunState& state = Claims::state(*run);
  Job& job = JobOf(Claims::share(*run));
  if (job.runs++ == 0) {
    if (busy_jobs_++ == 0) now_virtual_ns_ = max_virtual_ns_;  // nobody was kept waiting: nobody owes anything
    job.virtual_ns = std::max(job.virtual_ns, StartOfNewcomer());
  }
  state.job = &job;
  items_queued_ += state.count - state.next;
  Line(std::move(run));
}

double FairQueue::StartOfNewcomer() const {
  // Where the job that was served last stood it was charged in advance, for more than its items took perhaps: nobody
  // is to wait for time that nobody uses.
  double start = now_virtual_ns_;
  for (const Job* job : ready_) start = std::min(start, job->virtual_ns);
  return start;
}

Job& FairQueue::JobOf(const JobShare& share) {
  if (latest_ != nullptr && latest_->share.id == share.id) {
    latest_->share.weight = share.weight;
    return *latest_;
  }
  auto found = jobs_.find(share.id);
  if (found == jobs_.end()) {
    if (jobs_.size() >= forget_at_) ForgetIdleJobs();
    found = jobs_.emplace(share.id, std::make_unique<Job>()).first;
  }
  latest_ = found->second.get();
  latest_->share = share;
  return *latest_;
}

void FairQueue::ForgetIdleJobs() {
  latest_ = nullptr;
  std::erase_if(jobs_, [&](const auto& entry) {
    const Job& job = *entry.second;
    return job.runs == 0 && (busy_jobs_ == 0 || job.virtual_ns <= now_virtual_ns_);
  });
  forget_at_ = std::max<size_t>(64, 2 * jobs_.size());
}

void FairQueue::Line(Ticket run) {
  RunState& state = Claims::state(*run);
  state.source = run->source_of(state.next);
  Job& job = *state.job;
  Job::Lined& mine = job.by_source[static_cast<size_t>(state.source)];
  Job::Lined& other = job.by_source[1 - static_cast<size_t>(state.source)];
  if (mine.runs.empty()) {
    if (other.runs.empty()) ready_.push_back(&job);
    // No credit for the time in which it had nothing to do; nor a wait for what the other is charged in advance.
    mine.used_ns =
        std::max(mine.used_ns, other.runs.empty() ? job.now_used_ns : std::min(job.now_used_ns, other.used_ns));
  }
  state.queued = true;
  if (places_.empty()) places_.emplace_back();
  state.place = places_.begin();
  mine.runs.splice(mine.runs.end(), places_, state.place);
  *state.place = std::move(run);
}

void FairQueue::Unline(Run& run, Ticket* dropped) {
  RunState& state = Claims::state(run);
  Job& job = *state.job;
  std::list<Ticket>& runs = job.by_source[static_cast<size_t>(state.source)].runs;
  *dropped = std::move(*state.place);
  if (places_.size() < kPlacesMax) {
    places_.splice(places_.begin(), runs, state.place);
  } else {
    runs.erase(state.place);
  }
  state.queued = false;
  if (job.by_source[0].runs.empty() && job.by_source[1].runs.empty()) std::erase(ready_, &job);
}

Job* FairQueue::Next() {
  if (ready_.empty()) return nullptr;
  if (!options_.fair) {
    std::rotate(ready_.begin(), ready_.begin() + 1, ready_.end());
    return ready_.back();
  }
  // A walk, not a heap: with 1,000 jobs ready it takes 1 us, a fiftieth of a lease, and with ten next to nothing.
  return *std::min_element(ready_.begin(), ready_.end(),
                           [](const Job* a, const Job* b) { return a->virtual_ns < b->virtual_ns; });
}

size_t FairQueue::LeaseSize(const RunState& state, size_t slots) const {
  const size_t left = state.count - state.next;
  // One item as long as nothing is known of their time; for the rest an even share of what is left goes to nobody at
  // once, so that the slots end together.
  if (state.item_ns == 0) return 1;
  const auto by_time = static_cast<size_t>(std::max<int64_t>(1, options_.lease_ns / state.item_ns));
  const size_t by_share = state.narrow ? left : std::max<size_t>(1, left / (2 * slots));
  return std::min(by_time, by_share);
}

bool FairQueue::Take(size_t slots, Lease* lease) {
  Job* job = Next();
  if (job == nullptr) return false;
  now_virtual_ns_ = std::max(now_virtual_ns_, job->virtual_ns);
  const Job::Lined& local = job->by_source[0];
  const Job::Lined& network = job->by_source[1];
  const bool from_network =
      local.runs.empty() || (options_.fair && !network.runs.empty() && network.used_ns < local.used_ns);
  Run& run = from_network ? *network.runs.front() : *local.runs.front();
  job->now_used_ns = std::max(job->now_used_ns, from_network ? network.used_ns : local.used_ns);
  RunState& state = Claims::state(run);
  lease->items = {state.next, LeaseSize(state, slots)};
  lease->charged_ns = state.item_ns * static_cast<int64_t>(lease->items.count);
  state.next += lease->items.count;
  items_queued_ -= lease->items.count;
  ++state.leases;
  lease->charged_virtual_ns = static_cast<double>(lease->charged_ns) / job->share.weight;
  Charge(*job, state.source, lease->charged_ns, lease->charged_virtual_ns);
  lease->source = state.source;
  std::list<Ticket>& line = job->by_source[static_cast<size_t>(state.source)].runs;
  const bool stays = state.next < state.count && !state.narrow;
  if (stays && run.source_of(state.next) == state.source) {
    line.splice(line.end(), line, state.place);  // the job's Runs take turns
    lease->run = *state.place;
    return true;
  }
  Unline(run, &lease->run);
  if (stays) Line(lease->run);
  return true;
}

void FairQueue::Charge(Job& job, Source source, int64_t ns, double virtual_ns) {
  job.virtual_ns += virtual_ns;
  job.by_source[static_cast<size_t>(source)].used_ns += ns;
  max_virtual_ns_ = std::max(max_virtual_ns_, job.virtual_ns);
}

Lease FairQueue::Share(const Lease& lease, ItemRange items) {
  ++Claims::state(*lease.run).leases;
  return {lease.run, items, lease.source, 0, 0};
}

bool FairQueue::ComesFirst(const Lease& lease) {
  if (!options_.fair || ready_.empty()) return true;
  return VirtualNsOf(lease) <= Next()->virtual_ns;
}

double FairQueue::VirtualNsOf(const Lease& lease) { return Claims::state(*lease.run).job->virtual_ns; }

void FairQueue::Settle(const Lease& lease, size_t items, int64_t ns) {
  RunState& state = Claims::state(*lease.run);
  // At least something: a job whose items take no time that the clock sees must not be first for ever.
  const int64_t used_ns = std::max<int64_t>(ns, static_cast<int64_t>(items));
  const double used_virtual_ns = static_cast<double>(used_ns) / state.job->share.weight;
  Charge(*state.job, lease.source, used_ns - lease.charged_ns, used_virtual_ns - lease.charged_virtual_ns);
  if (items > 0) {
    const int64_t item_ns = std::max<int64_t>(1, ns / static_cast<int64_t>(items));
    state.item_ns = state.item_ns == 0 ? item_ns : (state.item_ns + item_ns) / 2;
  }
  --state.leases;
  if (!state.queued && state.next < state.count && (!state.narrow || state.leases == 0)) {
    Line(lease.run);
  }
  LeaveIfDone(*lease.run);
}

void FairQueue::LeaveIfDone(Run& run) {
  RunState& state = Claims::state(run);
  if (state.job == nullptr || state.leases > 0 || state.next < state.count) return;
  Job& job = *std::exchange(state.job, nullptr);
  if (--job.runs == 0) --busy_jobs_;
}

ItemRange FairQueue::TakeRest(Run& run, Ticket* dropped) {
  RunState& state = Claims::state(run);
  const ItemRange rest{state.next, state.count - state.next};
  state.next = state.count;
  if (state.queued) Unline(run, dropped);
  if (state.job != nullptr) items_queued_ -= rest.count;
  LeaveIfDone(run);
  return rest;
}

void FairQueue::Widen(const Ticket& run) {
  RunState& state = Claims::state(*run);
  state.narrow = false;
  if (state.job != nullptr && !state.queued && state.next < state.count) Line(run);
}

Ticket FairQueue::AnyRun() const {
  if (ready_.empty()) return nullptr;
  const Job& job = *ready_.front();
  return job.by_source[0].runs.empty() ? job.by_source[1].runs.front() : job.by_source[0].runs.front();
}

double FairQueue::virtual_ns_of(std::string_view job) const {
  const auto found = jobs_.find(std::string(job));
  return found == jobs_.end() ? -1 : found->second->virtual_ns;
}

}  // namespace sabot::slots

#include "sabot/native/slots/logbook.h"

#include <algorithm>
#include <new>

namespace sabot::slots {

void OperatorLog::Add(uint32_t serial, int64_t queue_ns, int64_t run_ns) noexcept {
  const uint32_t here = serial_.load(std::memory_order_relaxed);  // relaxed: only this thread writes it
  if (here != serial) {
    if (static_cast<int32_t>(serial - here) < 0) return;
    serial_.store(0, std::memory_order_relaxed);  // relaxed: ordered by the releases of the counts
    queue_.Clear();
    run_.Clear();
    serial_.store(serial, std::memory_order_release);  // release: partner of the acquire in AddTo
  }
  queue_.Add(queue_ns);
  run_.Add(run_ns);
}

bool OperatorLog::AddTo(uint32_t serial, OperatorTotals* totals) const noexcept {
  // acquire: partner of the last release in Add. What is read of a later operator's counts brings that operator's 0, or
  // its serial, to the second look.
  if (serial_.load(std::memory_order_acquire) != serial) return false;
  OperatorTotals read = *totals;
  queue_.AddTo(&read.queue);
  run_.AddTo(&read.run);
  if (serial_.load(std::memory_order_relaxed) != serial) return false;  // relaxed: ordered by the counts' acquires
  *totals = read;
  return true;
}

SlotLog::~SlotLog() {
  for (auto& log : operators_) delete log.load(std::memory_order_relaxed);  // relaxed: nobody else has them any more
}

void SlotLog::Add(const ItemTimes& times, const ItemNote& note) noexcept {
  if (note.names.operator_serial != 0) {
    Count(note.names, (times.start - times.submitted).count(), (times.end - times.start).count());
  }
  timeline_.Add({.start_ns = times.start.time_since_epoch().count(),
                 .end_ns = times.end.time_since_epoch().count(),
                 .rows = note.rows,
                 .bytes = note.bytes,
                 .partition = note.partition,
                 .gil_wait_ns = note.gil_wait_ns,
                 .job = note.names.job,
                 .operator_serial = note.names.operator_serial,
                 .network = times.source == Source::kNetwork,
                 .stolen = times.stolen});
}

void SlotLog::Count(const ItemNames& names, int64_t queue_ns, int64_t run_ns) noexcept {
  std::atomic<OperatorLog*>& place = operators_[names.place];
  OperatorLog* log = place.load(std::memory_order_relaxed);  // relaxed: only this thread writes it
  if (log == nullptr) {
    log = new (std::nothrow) OperatorLog;
    if (log == nullptr) return;
    place.store(log, std::memory_order_release);  // release: partner of the acquire in AddTo
  }
  log->Add(names.operator_serial, queue_ns, run_ns);
}

bool SlotLog::AddTo(uint32_t serial, uint32_t place, OperatorTotals* totals) const noexcept {
  const OperatorLog* log = operators_[place].load(std::memory_order_acquire);  // acquire: partner of Count's release
  return log != nullptr && log->AddTo(serial, totals);
}

ItemNames Logbook::Name(std::string_view job, std::string_view operator_name) {
  const NameTable::Entry named = operators_.Intern(operator_name);
  return {.job = jobs_.Intern(job).serial, .operator_serial = named.serial, .place = named.place};
}

std::shared_ptr<SlotLog> Logbook::OfSlot(int slot_id) {
  const auto index = static_cast<size_t>(slot_id);
  std::lock_guard lock(mutex_);
  if (slots_.size() <= index) slots_.resize(index + 1);
  if (slots_[index] == nullptr) slots_[index] = std::make_shared<SlotLog>(timeline_morsels_);
  return slots_[index];
}

std::vector<std::shared_ptr<SlotLog>> Logbook::slots() const {
  std::lock_guard lock(mutex_);
  return slots_;
}

std::vector<OperatorStats> Logbook::operator_stats() const {
  const auto slots = this->slots();
  std::vector<OperatorStats> stats;
  for (const NameTable::Entry& named : operators_.entries()) {
    OperatorStats one{named.name, {}};
    bool ran = false;
    for (const auto& slot : slots) ran |= slot != nullptr && slot->AddTo(named.serial, named.place, &one.totals);
    if (ran) stats.push_back(std::move(one));
  }
  return stats;
}

Timeline Logbook::timeline(size_t morsels_max) const {
  const auto slots = this->slots();
  Timeline timeline;
  std::vector<TimelineEntry> read;
  for (size_t id = 0; id < slots.size(); ++id) {
    if (slots[id] == nullptr) continue;
    read.clear();
    slots[id]->timeline().Read(&read);
    for (const TimelineEntry& entry : read) timeline.entries.push_back({static_cast<int>(id), entry});
  }
  auto& entries = timeline.entries;
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.entry.start_ns < b.entry.start_ns; });
  if (entries.size() > morsels_max) entries.erase(entries.begin(), entries.end() - static_cast<int64_t>(morsels_max));
  // After the entries, so that whatever they name and is still kept is there.
  timeline.jobs = jobs_.entries();
  timeline.operators = operators_.entries();
  return timeline;
}

}  // namespace sabot::slots

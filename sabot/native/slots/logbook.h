// What the slots have done: a log per slot, written without a lock, and the pool's logbook, which merges them on read.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "sabot/native/slots/histogram.h"
#include "sabot/native/slots/item_note.h"
#include "sabot/native/slots/name_table.h"
#include "sabot/native/slots/run.h"
#include "sabot/native/slots/timeline_ring.h"

namespace sabot::slots {

/// The pool's part of an item's entry; the item's own is its ItemNote.
struct ItemTimes {
  using Time = std::chrono::steady_clock::time_point;
  Time submitted;
  Time start;
  Time end;
  Source source = Source::kLocal;
  bool stolen = false;
};

struct OperatorTotals {
  HistogramCounts queue;
  HistogramCounts run;
};

/// One operator's times in one slot, at a place that another operator may take over.
class OperatorLog {
 public:
  /// The slot's thread only. An operator that has lost its place to a later one is not counted any more.
  void Add(uint32_t serial, int64_t queue_ns, int64_t run_ns) noexcept;
  /// False, and nothing added, where the place is not, or no longer, that of `serial`.
  bool AddTo(uint32_t serial, OperatorTotals* totals) const noexcept;

 private:
  std::atomic<uint32_t> serial_{0};  // 0 while the counts are cleared
  Histogram queue_;
  Histogram run_;
};

/// What one slot has done. Outlives the slot: a later slot of the same id goes on with it.
class SlotLog {
 public:
  static constexpr size_t kOperatorsMax = 128;

  explicit SlotLog(size_t timeline_morsels) : timeline_(timeline_morsels) {}
  ~SlotLog();
  SlotLog(const SlotLog&) = delete;
  SlotLog& operator=(const SlotLog&) = delete;

  /// The slot's thread only; never waits.
  void Add(const ItemTimes& times, const ItemNote& note) noexcept;

  const TimelineRing& timeline() const noexcept { return timeline_; }
  bool AddTo(uint32_t serial, uint32_t place, OperatorTotals* totals) const noexcept;

 private:
  void Count(const ItemNames& names, int64_t queue_ns, int64_t run_ns) noexcept;

  TimelineRing timeline_;
  std::array<std::atomic<OperatorLog*>, kOperatorsMax> operators_{};  // made by the slot when it first needs them
};

struct OperatorStats {
  std::string name;
  OperatorTotals totals;
};

struct SlotTimelineEntry {
  int slot_id = 0;
  TimelineEntry entry;
};

struct Timeline {
  std::vector<SlotTimelineEntry> entries;  // by start
  std::vector<NameTable::Entry> jobs;
  std::vector<NameTable::Entry> operators;
};

/// Every method from any thread; none holds up a slot.
class Logbook {
 public:
  static constexpr size_t kJobsMax = 1024;

  explicit Logbook(size_t timeline_morsels) : timeline_morsels_(timeline_morsels) {}

  /// For the items of a Run, once before it is submitted. Empty: none.
  ItemNames Name(std::string_view job, std::string_view operator_name);

  /// The log of the slot with this id. At most one slot at a time has an id.
  std::shared_ptr<SlotLog> OfSlot(int slot_id);

  /// The operators named last, at most SlotLog::kOperatorsMax, that have run anything.
  std::vector<OperatorStats> operator_stats() const;
  /// The last `morsels_max` morsels of all slots; an item nested in another is a morsel too.
  Timeline timeline(size_t morsels_max) const;

 private:
  std::vector<std::shared_ptr<SlotLog>> slots() const;

  const size_t timeline_morsels_;
  NameTable jobs_{kJobsMax};
  NameTable operators_{SlotLog::kOperatorsMax};
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<SlotLog>> slots_;  // guarded by mutex_; by slot id; shared with the slot
};

}  // namespace sabot::slots

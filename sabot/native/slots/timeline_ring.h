// The last morsels of one slot: a ring that its thread writes and that anybody may read while it does.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

namespace sabot::slots {

struct TimelineEntry {
  int64_t start_ns = 0;  // of the steady clock
  int64_t end_ns = 0;
  int64_t rows = -1;  // -1, here and below: not a piece of a batch
  int64_t bytes = -1;
  int64_t partition = -1;
  int64_t gil_wait_ns = 0;
  uint32_t job = 0;  // serials of the Logbook; 0: none
  uint32_t operator_serial = 0;
  bool network = false;
  bool stolen = false;
};

/// Keeps the last `capacity` entries; the writer never waits, and a reader leaves out what is overwritten under its
/// eyes. Each cell is a sequence lock: the writer makes its turn odd, writes the words, makes it even. The words are
/// stored with release and loaded with acquire: a reader that sees a word of a later round therefore sees that round's
/// odd turn, or a later one, when it looks at the turn again.
class TimelineRing {
 public:
  explicit TimelineRing(size_t capacity) : capacity_(capacity) {}
  ~TimelineRing() { delete[] cells_.load(std::memory_order_relaxed); }  // relaxed: nobody else has the ring any more
  TimelineRing(const TimelineRing&) = delete;
  TimelineRing& operator=(const TimelineRing&) = delete;

  /// One thread at a time. Without memory for the ring the entry is lost.
  void Add(const TimelineEntry& entry) noexcept {
    if (capacity_ == 0) return;
    Cell* cells = cells_.load(std::memory_order_relaxed);  // relaxed: only the writer sets it
    if (cells == nullptr && (cells = Allocate()) == nullptr) return;
    Cell& cell = cells[next_];
    if (++next_ == capacity_) next_ = 0;
    // By the time it is written to, it is here: otherwise the next item's first locked instruction waits for it.
    __builtin_prefetch(&cells[next_ + kAhead < capacity_ ? next_ + kAhead : 0], /*rw=*/1);
    cell.turn.store(2 * added_ + 1, std::memory_order_relaxed);  // relaxed: ordered by the release of each word
    const int64_t names = static_cast<int64_t>(entry.job) << 32 | entry.operator_serial;
    const int64_t wait_and_flags = entry.gil_wait_ns * 4 + (entry.stolen ? 2 : 0) + (entry.network ? 1 : 0);
    const int64_t words[kWords] = {entry.start_ns, entry.end_ns,    entry.rows,    entry.bytes,
                                   names,          entry.partition, wait_and_flags};
    // release: partner of the acquires in Read.
    for (size_t i = 0; i < kWords; ++i) cell.words[i].store(words[i], std::memory_order_release);
    cell.turn.store(2 * ++added_, std::memory_order_release);  // release: partner of the first acquire in Read
  }

  /// Appends what the ring holds, in no particular order. Any thread, at any time.
  void Read(std::vector<TimelineEntry>* entries) const {
    const Cell* cells = cells_.load(std::memory_order_acquire);  // acquire: partner of the release in Allocate
    for (size_t i = 0; cells != nullptr && i < capacity_; ++i) {
      TimelineEntry entry;
      if (ReadCell(cells[i], &entry)) entries->push_back(entry);
    }
  }

  size_t capacity() const noexcept { return capacity_; }

 private:
  static constexpr size_t kWords = 7;
  static constexpr size_t kAhead = 3;

  struct alignas(64) Cell {
    std::atomic<uint64_t> turn{0};  // 0: never written
    std::atomic<int64_t> words[kWords] = {};
  };
  static_assert(sizeof(Cell) == 64, "a morsel costs one cache line");

  Cell* Allocate() noexcept {
    Cell* cells = new (std::nothrow) Cell[capacity_];
    cells_.store(cells, std::memory_order_release);  // release: partner of the acquire in Read
    return cells;
  }

  static bool ReadCell(const Cell& cell, TimelineEntry* entry) noexcept {
    const uint64_t turn = cell.turn.load(std::memory_order_acquire);  // acquire: partner of the last release in Add
    if (turn == 0 || (turn & 1) != 0) return false;
    int64_t words[kWords];
    // acquire: partner of the releases in Add.
    for (size_t i = 0; i < kWords; ++i) words[i] = cell.words[i].load(std::memory_order_acquire);
    if (cell.turn.load(std::memory_order_relaxed) != turn) return false;  // relaxed: ordered by those acquires
    *entry = {.start_ns = words[0],
              .end_ns = words[1],
              .rows = words[2],
              .bytes = words[3],
              .partition = words[5],
              .gil_wait_ns = words[6] / 4,
              .job = static_cast<uint32_t>(words[4] >> 32),
              .operator_serial = static_cast<uint32_t>(words[4]),
              .network = (words[6] & 1) != 0,
              .stolen = (words[6] & 2) != 0};
    return true;
  }

  const size_t capacity_;
  size_t next_ = 0;     // writer only
  uint64_t added_ = 0;  // writer only
  std::atomic<Cell*> cells_{nullptr};
};

}  // namespace sabot::slots

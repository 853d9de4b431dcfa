// What an item tells of itself while it runs, for the slot's log: whoever runs it fills in the note of its thread.
#pragma once

#include <chrono>
#include <cstdint>

namespace sabot::slots {

/// An item's job and operator as the Logbook knows them; serial 0: nobody's. `place` is where the slots count the
/// operator.
struct ItemNames {
  uint32_t job = 0;
  uint32_t operator_serial = 0;
  uint32_t place = 0;
};

/// -1: not a piece of a batch.
struct ItemNote {
  ItemNames names;
  int64_t partition = -1;
  int64_t rows = -1;
  int64_t bytes = -1;
  int64_t gil_wait_ns = 0;
};

/// Makes `note` the note of this thread until it ends; then that of the item which this one is nested in, if any.
class NoteScope {
 public:
  explicit NoteScope(ItemNote* note) noexcept : outer_(here) { here = note; }
  ~NoteScope() { here = outer_; }
  NoteScope(const NoteScope&) = delete;
  NoteScope& operator=(const NoteScope&) = delete;

  /// The note of the item that this thread runs; null outside of a slot.
  static ItemNote* Here() noexcept { return here; }

 private:
  static inline thread_local ItemNote* here = nullptr;
  ItemNote* const outer_;
};

/// Around the wait for the GIL that a call into Python begins with: Begin before it, End with the GIL held. What the
/// call itself waits for later, having let go of the GIL, is part of its run time.
class GilWait {
 public:
  static void Begin() noexcept {
    if (NoteScope::Here() != nullptr) began = std::chrono::steady_clock::now();
  }
  static void End() noexcept {
    if (ItemNote* note = NoteScope::Here()) note->gil_wait_ns += (std::chrono::steady_clock::now() - began).count();
  }

 private:
  static inline thread_local std::chrono::steady_clock::time_point began;
};

}  // namespace sabot::slots

// What a slot pool runs: a Run is one operator over a counted list of items (morsels). Arrow-free.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sabot::slots {

enum class Source : uint8_t { kLocal = 0, kNetwork = 1 };

/// One operator over `item_count()` items. Owned by a shared_ptr: the submitter and the pool, which lets go of it
/// after the last item. The pool calls RunItem once per item, from several slots at once, each to its end.
class Run {
 public:
  virtual ~Run() = default;

  virtual size_t item_count() const noexcept = 0;
  virtual Source source_of(size_t index) const noexcept = 0;

  /// Runs item `index` in slot `slot_id`; `queue_us` is how long it waited since Submit. Must not wait for a peer,
  /// credit, lock or disk. An error is the Run's own to keep.
  virtual void RunItem(size_t index, int slot_id, int64_t queue_us) noexcept = 0;

  /// Called exactly once for each item that the pool will never run (cancelled, or the pool shut down).
  virtual void SkipItem(size_t index) noexcept = 0;

  /// Called exactly once, after the last RunItem or SkipItem returned. The Run may be destroyed right after it.
  virtual void Finished() noexcept = 0;
};

}  // namespace sabot::slots

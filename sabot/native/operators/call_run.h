// One Python call in a slot, counted as one morsel.
#pragma once

#include <cstdint>
#include <memory>

#include "sabot/native/slots/item_note.h"
#include "sabot/native/slots/run.h"

namespace sabot::operators {

/// The functions take the GIL themselves, `call` tells GilWait when it has it, and never throw; `call` is given the
/// slot, `finished` follows it, or comes alone where the call was skipped.
struct CallHooks {
  void (*enter_slot)();
  void (*call)(void* context, int slot_id);
  void (*finished)(void* context);
};

class CallRun final : public slots::Run {
 public:
  CallRun(CallHooks hooks, void* context, slots::Source source, slots::ItemNames names = {})
      : hooks_(hooks), context_(context), source_(source), names_(names) {}

  size_t item_count() const noexcept override { return 1; }
  slots::Source source_of(size_t) const noexcept override { return source_; }
  void RunItem(size_t, int slot_id, int64_t) noexcept override {
    if (slots::ItemNote* note = slots::NoteScope::Here()) note->names = names_;
    slots::GilWait::Begin();
    hooks_.enter_slot();
    hooks_.call(context_, slot_id);
  }
  void SkipItem(size_t) noexcept override {}
  void Finished() noexcept override { hooks_.finished(context_); }

 private:
  const CallHooks hooks_;
  void* const context_;
  const slots::Source source_;
  const slots::ItemNames names_;
};

}  // namespace sabot::operators

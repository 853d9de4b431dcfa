// Keeps one Python thread state per slot, so that a morsel pays for the GIL and not for a new thread state.
#pragma once

#include <Python.h>

namespace sabot {

/// Called with the GIL at the end of every slot's thread that has run Python; set once, at import.
inline void (*on_slot_thread_end)() = nullptr;

/// The state that PyGILState_Ensure made for this thread, kept until the thread ends.
class SlotThreadState {
 public:
  void Keep() noexcept {
    if (state_ != nullptr) return;
    was_ = PyGILState_Ensure();
    state_ = PyEval_SaveThread();
  }
  ~SlotThreadState() {
    // Once Python is going down the state is Python's to free, and the GIL is not to be had.
    if (state_ == nullptr || !Py_IsInitialized() || Finalizing()) return;
    PyEval_RestoreThread(state_);
    if (on_slot_thread_end != nullptr) on_slot_thread_end();
    PyGILState_Release(was_);
  }

 private:
  static bool Finalizing() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing() != 0;
#else
    return _Py_IsFinalizing() != 0;
#endif
  }

  PyThreadState* state_ = nullptr;
  PyGILState_STATE was_ = PyGILState_UNLOCKED;
};

/// Only on threads that hold neither the GIL nor, unless it comes from here, a Python thread state: the slots'.
inline void EnterSlotThread() noexcept {
  static thread_local SlotThreadState state;
  state.Keep();
}

}  // namespace sabot

# The slot pool's Python face: pools, and calls in their slots. What morsels run through is in morsel_runs.pxi.

from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.exc cimport PyErr_CheckSignals
from libcpp.memory cimport make_shared, weak_ptr

cdef extern from "<chrono>" namespace "std::chrono" nogil:
    cdef cppclass CMilliseconds "std::chrono::milliseconds":
        CMilliseconds()
        CMilliseconds(int64_t count)
    cdef cppclass CTimePoint "std::chrono::steady_clock::time_point":
        CTimePoint operator+(CMilliseconds duration)
    CTimePoint _now "std::chrono::steady_clock::now"()

cdef extern from "sabot/native/slots/run.h" namespace "sabot::slots" nogil:
    cdef enum class CSource "sabot::slots::Source"(uint8_t):
        kLocal, kNetwork
    cdef cppclass CRun "sabot::slots::Run":
        size_t item_count() noexcept
    cdef cppclass CJobShare "sabot::slots::JobShare":
        string id
        double weight
        cbool valid()

include "logbook.pxi"

cdef extern from "sabot/native/slots/slot_pool.h" namespace "sabot::slots" nogil:
    cdef enum class COutcome "sabot::slots::Outcome":
        kAccepted, kShutDown, kLastSlot, kInvalid, kForked, kNoThreads, kBusy
    cdef struct CSlotStats "sabot::slots::SlotStats":
        int slot_id
        cbool busy
        int64_t morsels_processed
        int64_t local_morsels
        int64_t network_morsels
        int64_t stolen_morsels
        int64_t total_processing_time_us
        int64_t idle_us
        int64_t busy_us
        int64_t gil_wait_us
    cdef cppclass CSlotPoolOptions "sabot::slots::SlotPool::Options":
        int num_slots
        size_t queue_capacity
        size_t timeline_morsels
        cbool fair
        cbool steal
        cbool wake
    cdef cppclass CSlotPool "sabot::slots::SlotPool":
        @staticmethod
        unique_ptr[CSlotPool] Make(CSlotPoolOptions options) except +
        COutcome Submit(shared_ptr[CRun] run, const CJobShare& share) except +
        void Cancel(const shared_ptr[CRun]& run)
        void Widen(const shared_ptr[CRun]& run)
        COutcome AddSlots(int count) except +
        COutcome RemoveSlots(int count)
        COutcome Shutdown(cbool drain, CTimePoint deadline)
        int num_slots()
        int available_slots_approx()
        int64_t queue_depth_approx()
        int parked_slots_approx()
        vector[CSlotStats] stats() except +
        CLogbook& logbook()
        cbool on_slot_thread()
        cbool forked() noexcept

cdef extern from "sabot/native/operators/call_run.h" namespace "sabot::operators" nogil:
    cdef struct CCallHooks "sabot::operators::CallHooks":
        void (*enter_slot)() noexcept nogil
        void (*call)(void*, int) noexcept nogil
        void (*finished)(void*) noexcept nogil
    cdef cppclass CCallRun "sabot::operators::CallRun"(CRun):
        CCallRun(CCallHooks hooks, void* context, CSource source, CItemNames names) except +

cdef extern from "sabot/native/cython/slot_thread.h" namespace "sabot" nogil:
    void EnterSlotThread() noexcept
    void (*on_slot_thread_end)()

import threading as _threading
import time as _time

# How often a shutdown looks for signals.
cdef enum:
    _SIGNALS_MS = 50


cdef void _forget_slot_thread() noexcept with gil:
    # Before 3.13 Python keeps for ever what current_thread(), so logging too, has noted about a thread not its own.
    active = getattr(_threading, "_active", {})
    ident = _threading.get_ident()
    if isinstance(active.get(ident), _threading._DummyThread):
        del active[ident]


on_slot_thread_end = _forget_slot_thread

cdef int _accept(COutcome outcome, str what) except -1:
    if outcome == COutcome.kAccepted:
        return 0
    if outcome == COutcome.kForked:
        raise _errors.UsageError(
            f"{what}: this process was forked from the one that made the slots and has none of them; "
            "make a TaskSlotManager of its own, or start processes by spawn")
    if outcome == COutcome.kShutDown:
        raise _errors.UsageError(f"{what}: the slots were shut down; make a new TaskSlotManager")
    if outcome == COutcome.kLastSlot:
        raise _errors.UsageError(f"{what}: at least one slot must stay; shut the slots down to stop all of them")
    if outcome == COutcome.kNoThreads:
        raise _errors.LimitReached(f"{what}: the system gave no more threads; raise its limit (ulimit -u) or use fewer slots")
    raise _errors.UsageError(f"{what}: out of range, or called from inside a slot, which would wait for itself")


cdef CJobShare _share_of(str job, double weight) except *:
    cdef CJobShare share
    share.id = job.encode()
    share.weight = weight
    if not share.valid():
        raise _errors.UsageError(f"the weight of a job is {weight}; give a number from 0.001 to 1,000,000")
    return share


cdef class SlotPool:
    """Native slots. `pool` is what other native code submits to. `fair` and `steal` are switched off only by tests."""

    cdef shared_ptr[CSlotPool] pool
    cdef readonly bint given_up
    cdef object __weakref__

    def __cinit__(self, int num_slots, size_t queue_capacity=4096, *, size_t timeline_morsels=0, bint fair=True,
                  bint steal=True):
        cdef CSlotPoolOptions options
        options.num_slots = num_slots
        options.queue_capacity = queue_capacity
        options.timeline_morsels = timeline_morsels
        options.fair = fair
        options.steal = steal
        cdef unique_ptr[CSlotPool] made
        with nogil:
            made = CSlotPool.Make(options)
        if made.get() == NULL:
            raise _errors.UsageError(
                f"cannot start {num_slots} slots: give 0 (one per core) to 1024, and no more than the system has threads for")
        self.pool = shared_ptr[CSlotPool](move(made))

    def __dealloc__(self):
        with nogil:  # joining a slot needs the GIL to be free for it
            self.pool.reset()

    def num_slots(self):
        return self.pool.get().num_slots()

    def available_slots(self):
        return self.pool.get().available_slots_approx()

    def parked_slots(self):
        return self.pool.get().parked_slots_approx()

    def queue_depth(self):
        return self.pool.get().queue_depth_approx()

    def on_slot_thread(self):
        return self.pool.get().on_slot_thread()

    def stats(self):
        cdef vector[CSlotStats] stats = self.pool.get().stats()
        return [dict(one) for one in stats]

    def operator_stats(self):
        return _operator_stats(&self.pool.get().logbook())

    def timeline(self, size_t morsels_max):
        """The last morsels as one batch, by start."""
        return _timeline(&self.pool.get().logbook(), morsels_max)

    def add_slots(self, int count):
        cdef COutcome outcome
        with nogil:
            outcome = self.pool.get().AddSlots(count)
        _accept(outcome, f"cannot add {count} slots")

    def remove_slots(self, int count):
        cdef COutcome outcome
        with nogil:
            outcome = self.pool.get().RemoveSlots(count)
        _accept(outcome, f"cannot remove {count} slots")

    def shutdown(self, bint drain, timeout_s=None):
        """Whether every slot has ended in `timeout_s`; a signal ends the wait, too."""
        cdef COutcome outcome = COutcome.kBusy
        cdef int64_t left_ms = 0
        deadline = None if timeout_s is None else _time.monotonic() + timeout_s
        while outcome == COutcome.kBusy:
            left_ms = _SIGNALS_MS if deadline is None else min(_SIGNALS_MS, max(0, (deadline - _time.monotonic()) * 1000))
            with nogil:
                outcome = self.pool.get().Shutdown(drain, _now() + CMilliseconds(left_ms))
            if outcome == COutcome.kBusy:
                if left_ms == 0:
                    return False
                PyErr_CheckSignals()
        _accept(outcome, "cannot shut the slots down")
        return True

    def give_up(self):
        """Ends the waits for morsels that still run: nobody waits for them any more."""
        self.given_up = True

    def call(self, function, on_finished, bint network, str job="", double weight=1.0, *, str name=""):
        """Runs `function()` once in a slot, then `on_finished(ran, result, exception)`; not `ran` means skipped."""
        cdef CJobShare share = _share_of(job, weight)
        cdef _SlotCall call = _SlotCall.__new__(_SlotCall)
        call.function = function
        call.on_finished = on_finished
        cdef CCallHooks hooks
        hooks.enter_slot = EnterSlotThread
        hooks.call = _run_slot_call
        hooks.finished = _finish_slot_call
        cdef shared_ptr[CRun] run = <shared_ptr[CRun]>make_shared[CCallRun](
            hooks, <void*>call, CSource.kNetwork if network else CSource.kLocal,
            self.pool.get().logbook().Name(job.encode(), name.encode()))
        cdef COutcome outcome
        Py_INCREF(call)  # the run's, until it has finished
        with nogil:
            outcome = self.pool.get().Submit(run, share)
        if outcome != COutcome.kAccepted:
            Py_DECREF(call)
            _accept(outcome, "cannot run the call")


cdef class SlotAccount:
    """Slots, and the job on whose account native code uses them."""

    cdef shared_ptr[CSlotPool] pool
    cdef CJobShare share

    def __cinit__(self, SlotPool slots not None, str job="", double weight=1.0):
        self.share = _share_of(job, weight)
        self.pool = slots.pool

    def __dealloc__(self):
        with nogil:  # as SlotPool's: this may be the last that holds the slots
            self.pool.reset()


cdef class _SlotCall:
    cdef object function, on_finished, answer
    cdef bint ran


cdef void _run_slot_call(void* context, int slot_id) noexcept with gil:
    EndGilWait()
    cdef _SlotCall call = <_SlotCall>context
    call.ran = True
    try:
        call.answer = (call.function(), None)
    except BaseException as error:
        error.add_note(f"slot={slot_id}")
        call.answer = (None, error)


cdef void _finish_slot_call(void* context) noexcept with gil:
    cdef _SlotCall call = <_SlotCall>context
    on_finished, answer, ran = call.on_finished, call.answer, call.ran
    call.function = call.on_finished = call.answer = None
    Py_DECREF(call)
    if ran:
        on_finished(True, *answer)
    else:
        on_finished(False, None, None)


include "workers.pxi"
include "morsel_result.pxi"
include "morsel_runs.pxi"

# Acero plans in the slots.

from cython.operator cimport dereference as deref
from pyarrow._acero cimport Declaration
from pyarrow.includes.libarrow cimport CTable
from pyarrow.includes.libarrow_acero cimport CDeclaration
from pyarrow.lib cimport pyarrow_wrap_table

cdef extern from "sabot/native/operators/running_plan.h" namespace "sabot::operators" nogil:
    cdef cppclass CPlanOptions "sabot::operators::RunningPlan::Options":
        shared_ptr[CSlotPool] pool
        CJobShare share
        CSource source
        size_t threads_max
        CMemoryPool* memory
    cdef cppclass CRunningPlan "sabot::operators::RunningPlan":
        @staticmethod
        size_t ThreadsMax()
        @staticmethod
        CResult[unique_ptr[CRunningPlan]] Start(const CDeclaration& declaration, CPlanOptions options) except +
        cbool WaitFor(int64_t timeout_us) except +
        void Cancel() except +
        CResult[shared_ptr[CTable]] result() except +


def run_declaration(Declaration declaration not None, SlotPool pool not None, cancel=None, bint network=False,
                    str job="", double weight=1.0, size_t threads_max=0):
    """The table that the plan gives, computed by the slots while this thread waits; in a slot, by that slot alone.

    `threads_max` is for tests: so many threads take part at most, this one included; 0: as many as Acero can number.
    A signal, or `cancel.is_set()`, ends the plan; either way none of its tasks runs any more on return.
    """
    cdef int64_t slice_us = _WAIT_SLICE_US if cancel is None else _CANCEL_SLICE_US
    cdef CPlanOptions options
    options.pool = pool.pool
    options.source = CSource.kNetwork if network else CSource.kLocal
    options.share = _share_of(job, weight)
    options.threads_max = threads_max or CRunningPlan.ThreadsMax()
    options.memory = memory_in_use()
    cdef CResult[unique_ptr[CRunningPlan]] started
    cdef unique_ptr[CRunningPlan] plan
    cdef CResult[shared_ptr[CTable]] result
    cdef cbool ended = False
    with nogil:
        started = CRunningPlan.Start(declaration.decl, move(options))
        check(started.status())
        plan = move(deref(started))
    try:
        while not ended:
            if cancel is not None and cancel.is_set():
                with nogil:
                    plan.get().Cancel()
            with nogil:
                ended = plan.get().WaitFor(slice_us)
            if not ended:
                PyErr_CheckSignals()
        with nogil:
            result = plan.get().result()
            check(result.status())
        return pyarrow_wrap_table(deref(result))
    finally:
        with nogil:  # waits for the tasks that run, which may need the GIL
            plan.reset()

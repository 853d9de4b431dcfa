# The slot pool's Python face: pools, operators, and runs of morsels.

from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF
from libcpp.memory cimport make_shared
from pyarrow._compute cimport Expression
from pyarrow.includes.libarrow cimport CExpression

cdef extern from "sabot/native/slots/run.h" namespace "sabot::slots" nogil:
    cdef enum class CSource "sabot::slots::Source"(uint8_t):
        kLocal, kNetwork
    cdef cppclass CRun "sabot::slots::Run":
        size_t item_count() noexcept

cdef extern from "sabot/native/slots/slot_pool.h" namespace "sabot::slots" nogil:
    cdef enum class COutcome "sabot::slots::Outcome":
        kAccepted, kShutDown, kLastSlot, kInvalid, kForked, kNoThreads
    cdef struct CSlotStats "sabot::slots::SlotStats":
        int slot_id
        cbool busy
        int64_t morsels_processed
        int64_t local_morsels
        int64_t network_morsels
        int64_t stolen_morsels
        int64_t total_processing_time_us
    cdef cppclass CSlotPoolOptions "sabot::slots::SlotPool::Options":
        int num_slots
        size_t queue_capacity
    cdef cppclass CSlotPool "sabot::slots::SlotPool":
        @staticmethod
        unique_ptr[CSlotPool] Make(CSlotPoolOptions options)
        COutcome Submit(shared_ptr[CRun] run)
        void Cancel(const shared_ptr[CRun]& run)
        COutcome AddSlots(int count)
        COutcome RemoveSlots(int count)
        COutcome Shutdown(cbool drain)
        int num_slots()
        int available_slots_approx()
        int64_t queue_depth_approx()
        int parked_slots_approx()
        vector[CSlotStats] stats()
        cbool on_slot_thread()

cdef extern from "sabot/native/operators/step.h" namespace "sabot::operators" nogil:
    cdef cppclass CStep "sabot::operators::Step":
        pass
    ctypedef unique_ptr[CStep] CStepPtr "std::unique_ptr<sabot::operators::Step>"
    cdef struct CPythonHooks "sabot::operators::PythonHooks":
        void (*enter_slot)() noexcept nogil
        void (*call)(void*, const shared_ptr[CRecordBatch]&, shared_ptr[CRecordBatch]*, void**) noexcept nogil
        void (*release)(void*) noexcept nogil
    CStepPtr MakeFilter(CExpression expression)
    CStepPtr MakeProject(vector[string] names, vector[CExpression] expressions)
    CStepPtr MakeFilterOrColumn(CExpression expression, string name)
    CStepPtr MakeCall(CPythonHooks hooks, void* function)
    cdef void* PythonExceptionOf "sabot::operators::PythonException::Of"(const CStatus& status)

cdef extern from "sabot/native/operators/morsel_run.h" namespace "sabot::operators" nogil:
    cdef cppclass CSteps "sabot::operators::Steps":
        void push_back(CStepPtr step) except +
    ctypedef const CSteps CConstSteps "const sabot::operators::Steps"
    cdef cppclass CMorsel "sabot::operators::Morsel":
        shared_ptr[CRecordBatch] batch
        int64_t start_row
        int64_t num_rows
        int64_t partition_id
        CSource source
    cdef struct CMorselOutcome "sabot::operators::MorselOutcome":
        shared_ptr[CRecordBatch] rows
        int slot_id
        int64_t queue_us
        int64_t run_us
    cdef struct CMorselFailure "sabot::operators::MorselFailure":
        CStatus status
        size_t index
        int slot_id
        size_t others
    cdef cppclass CMorselRun "sabot::operators::MorselRun"(CRun):
        CMorselRun(shared_ptr[CSteps] steps) except +
        void Add(CMorsel morsel) except +
        void NotifyOnFinish(void (*on_finished)(void*) noexcept nogil, void* context)
        cbool WaitFor(int64_t timeout_ms) noexcept
        const CMorsel& morsel(size_t index)
        const CMorselOutcome& outcome(size_t index)
        size_t skipped()
        cbool failed()
        const CMorselFailure& failure()

cdef extern from "sabot/native/operators/call_run.h" namespace "sabot::operators" nogil:
    cdef struct CCallHooks "sabot::operators::CallHooks":
        void (*enter_slot)() noexcept nogil
        void (*call)(void*, int) noexcept nogil
        void (*finished)(void*) noexcept nogil
    cdef cppclass CCallRun "sabot::operators::CallRun"(CRun):
        CCallRun(CCallHooks hooks, void* context, CSource source) except +

cdef extern from "sabot/native/cython/slot_thread.h" namespace "sabot" nogil:
    void EnterSlotThread() noexcept

# How often a wait looks for signals and for its cancel.
cdef enum:
    _WAIT_SLICE_MS = 50
    _CANCEL_SLICE_MS = 5


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


cdef class SlotPool:
    """Native slots. `pool` is what other native code submits to."""

    cdef shared_ptr[CSlotPool] pool
    cdef object __weakref__

    def __cinit__(self, int num_slots, size_t queue_capacity=4096):
        cdef CSlotPoolOptions options
        options.num_slots = num_slots
        options.queue_capacity = queue_capacity
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

    def shutdown(self, bint drain):
        cdef COutcome outcome
        with nogil:
            outcome = self.pool.get().Shutdown(drain)
        _accept(outcome, "cannot shut the slots down")

    def call(self, function, on_finished, bint network):
        """Runs `function()` once in a slot, then `on_finished(ran, result, exception)`; not `ran` means skipped."""
        cdef _SlotCall call = _SlotCall.__new__(_SlotCall)
        call.function = function
        call.on_finished = on_finished
        cdef CCallHooks hooks
        hooks.enter_slot = EnterSlotThread
        hooks.call = _run_slot_call
        hooks.finished = _finish_slot_call
        cdef shared_ptr[CRun] run = <shared_ptr[CRun]>make_shared[CCallRun](
            hooks, <void*>call, CSource.kNetwork if network else CSource.kLocal)
        cdef COutcome outcome
        Py_INCREF(call)  # the run's, until it has finished
        with nogil:
            outcome = self.pool.get().Submit(run)
        if outcome != COutcome.kAccepted:
            Py_DECREF(call)
            _accept(outcome, "cannot run the call")


cdef class _SlotCall:
    cdef object function, on_finished, answer
    cdef bint ran


cdef void _run_slot_call(void* context, int slot_id) noexcept with gil:
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


cdef class _Function:
    cdef object function
    cdef str name


cdef void _call_function(void* context, const shared_ptr[CRecordBatch]& rows, shared_ptr[CRecordBatch]* result,
                         void** exception) noexcept with gil:
    cdef _Function function = <_Function>context
    try:
        answer = function.function(pyarrow_wrap_batch(rows))
        if answer is None:
            return
        if not isinstance(answer, pyarrow.RecordBatch):
            raise TypeError(
                f"the operator {function.name} must return a pyarrow.RecordBatch or None, not {type(answer).__qualname__}")
        result[0] = pyarrow_unwrap_batch(answer)
    except BaseException as error:
        Py_INCREF(error)
        exception[0] = <void*>error


cdef void _release(void* owned) noexcept with gil:
    Py_DECREF(<object>owned)


cdef class Operator:
    """Steps that a morsel runs through in one go; used by any number of runs at once."""

    cdef shared_ptr[CSteps] steps
    cdef readonly str name

    def __cinit__(self, str name):
        self.steps = make_shared[CSteps]()
        self.name = name

    def add_filter(self, Expression expression not None):
        self.steps.get().push_back(MakeFilter(expression.expr))

    def add_project(self, names, expressions):
        cdef vector[string] c_names
        cdef vector[CExpression] c_expressions
        for name, expression in zip(names, expressions, strict=True):
            c_names.push_back(name.encode())
            c_expressions.push_back((<Expression?>expression).expr)
        self.steps.get().push_back(MakeProject(move(c_names), move(c_expressions)))

    def add_filter_or_column(self, Expression expression not None):
        self.steps.get().push_back(MakeFilterOrColumn(expression.expr, str(expression).encode()))

    def add_call(self, function, str name):
        cdef _Function held = _Function.__new__(_Function)
        held.function = function
        held.name = name
        cdef CPythonHooks hooks
        hooks.enter_slot = EnterSlotThread
        hooks.call = _call_function
        hooks.release = _release
        Py_INCREF(held)  # the step's, given back by _release
        self.steps.get().push_back(MakeCall(hooks, <void*>held))


cdef void _notify(void* context) noexcept with gil:
    callback = <object>context
    Py_DECREF(callback)
    callback()


cdef class MorselRun:
    """Morsels on their way through one operator. Add them, submit once, wait, then read the outcomes."""

    cdef shared_ptr[CMorselRun] run
    cdef SlotPool pool
    cdef readonly bint cancelled
    cdef size_t count

    def __cinit__(self, Operator operator not None):
        self.run = make_shared[CMorselRun](operator.steps)

    def __len__(self):
        return self.count

    def add(self, batch, int64_t start_row, int64_t num_rows, int64_t partition_id, bint network):
        cdef CMorsel morsel
        morsel.batch = pyarrow_unwrap_batch(batch)
        if morsel.batch.get() == NULL:
            raise _errors.UsageError(f"a morsel's batch must be a pyarrow.RecordBatch, not {type(batch).__qualname__}")
        cdef int64_t rows = morsel.batch.get().num_rows()
        if start_row < 0 or num_rows < 0 or start_row > rows or num_rows > rows - start_row:
            raise _errors.UsageError(
                f"morsel {self.count} wants rows {start_row} to {start_row + num_rows} of a batch of {rows}; "
                "keep start_row and num_rows within it")
        morsel.start_row = start_row
        morsel.num_rows = num_rows
        morsel.partition_id = partition_id
        morsel.source = CSource.kNetwork if network else CSource.kLocal
        self.run.get().Add(move(morsel))
        self.count += 1

    def add_slices(self, batch, int64_t rows_per_morsel, int64_t partition_id, bint network):
        """Cuts `batch` into morsels of so many rows; a batch without rows is one morsel."""
        cdef int64_t rows = batch.num_rows
        cdef int64_t start = 0
        while True:
            self.add(batch, start, min(rows_per_morsel, rows - start), partition_id, network)
            start += rows_per_morsel
            if start >= rows:
                return

    def submit(self, SlotPool pool not None, on_finished=None):
        """`on_finished()` is called once, in a slot or in the thread that cancels."""
        cdef COutcome outcome
        if on_finished is not None:
            Py_INCREF(on_finished)  # the run's, until it has finished
            self.run.get().NotifyOnFinish(_notify, <void*>on_finished)
        self.pool = pool
        with nogil:
            outcome = pool.pool.get().Submit(<shared_ptr[CRun]>self.run)
        if outcome != COutcome.kAccepted:
            if on_finished is not None:
                Py_DECREF(on_finished)
            _accept(outcome, f"cannot run {self.count} morsels")

    def cancel(self):
        """Skips the morsels that have not started; returns at once."""
        self.cancelled = True
        if self.pool is not None:
            with nogil:
                self.pool.pool.get().Cancel(<shared_ptr[CRun]>self.run)

    def skipped(self):
        """How many morsels never ran. To be called after the end."""
        return self.run.get().skipped()

    def wait(self, cancel=None):
        """Until every morsel has run or was skipped. A signal, or `cancel.is_set()`, skips those that have not started."""
        cdef int64_t slice_ms = _WAIT_SLICE_MS if cancel is None else _CANCEL_SLICE_MS
        cdef cbool finished = False
        try:
            while not finished:
                if cancel is not None and not self.cancelled and cancel.is_set():
                    self.cancel()
                with nogil:
                    finished = self.run.get().WaitFor(slice_ms)
                if not finished:
                    PyErr_CheckSignals()
        except BaseException:
            self.cancel()
            while not finished:
                with nogil:
                    finished = self.run.get().WaitFor(_WAIT_SLICE_MS)
                PyErr_CheckSignals()
            raise

    def raise_failure(self):
        """What the first failed morsel raised, as itself; or what stopped the run. To be called after its end."""
        cdef const CMorselFailure* failure
        if self.run.get().failed():
            failure = &self.run.get().failure()
            error = self._error_of(failure.status)
            note = (f"slot={failure.slot_id} morsel={failure.index} "
                    f"partition={self.run.get().morsel(failure.index).partition_id}")
            if failure.others:
                note += f" ({failure.others} more morsels failed)"
            error.add_note(note)
            raise error
        cdef size_t skipped = self.run.get().skipped()
        if skipped and self.cancelled:
            raise _errors.JobCancelled(f"{skipped} of {self.count} morsels were cancelled before they ran")
        if skipped:
            raise _errors.UsageError(
                f"the slots were shut down before {skipped} of {self.count} morsels ran; keep them until the work is done")

    cdef object _error_of(self, const CStatus& status):
        cdef void* exception = PythonExceptionOf(status)
        if exception != NULL:
            return <object>exception
        try:
            check(status)
        except Exception as error:
            return error

    def outcomes(self):
        """A list of (batch or None, slot_id, queue_us, run_us), in the order in which the morsels were added."""
        cdef const CMorselOutcome* outcome
        cdef size_t i
        found = []
        for i in range(self.count):
            outcome = &self.run.get().outcome(i)
            found.append((self._rows(i), outcome.slot_id, outcome.queue_us, outcome.run_us))
        return found

    def batches(self):
        """The morsels' batches, None where there are no rows, in the order in which they were added."""
        cdef size_t i
        return [self._rows(i) for i in range(self.count)]

    cdef object _rows(self, size_t index):
        if self.run.get().outcome(index).rows.get() == NULL:
            return None
        return pyarrow_wrap_batch(self.run.get().outcome(index).rows)

# Operators, and runs of morsels through them; part of slots.pxi.

from pyarrow._compute cimport Expression
from pyarrow.includes.libarrow cimport CExpression

cdef extern from "sabot/native/operators/step.h" namespace "sabot::operators" nogil:
    cdef cppclass CStep "sabot::operators::Step":
        pass
    ctypedef unique_ptr[CStep] CStepPtr "std::unique_ptr<sabot::operators::Step>"
    cdef struct CPythonHooks "sabot::operators::PythonHooks":
        void (*enter_slot)() noexcept nogil
        void (*call)(void*, const shared_ptr[CRecordBatch]&, shared_ptr[CRecordBatch]*, void**) noexcept nogil
        void (*release)(void*) noexcept nogil
    CStepPtr MakeFilter(CExpression expression, CMemoryPool* memory)
    CStepPtr MakeProject(vector[string] names, vector[CExpression] expressions, CMemoryPool* memory)
    CStepPtr MakeFilterOrColumn(CExpression expression, string name, CMemoryPool* memory)
    CStepPtr MakeCall(CPythonHooks hooks, void* function)
    cdef void* PythonExceptionOf "sabot::operators::PythonException::Of"(const CStatus& status)

cdef extern from "sabot/native/operators/worker_step.h" namespace "sabot::operators" nogil:
    CStepPtr MakeWorkerCall(shared_ptr[CWorkerPool] pool, shared_ptr[const CFunction] function, CCallLimits limits,
                            CMemoryPool* memory, cbool keep_failed)
    cdef const CSealedMemory* WorkerFailureOf "sabot::operators::WorkerFailure::Of"(const CStatus& status)

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
        int64_t num_bytes
    cdef struct CMorselOutcome "sabot::operators::MorselOutcome":
        shared_ptr[CRecordBatch] rows
        int slot_id
        int64_t queue_us
        int64_t run_us
        int64_t gil_wait_us
    cdef struct CMorselFailure "sabot::operators::MorselFailure":
        CStatus status
        size_t index
        int slot_id
        size_t others
    cdef enum class CNext "sabot::operators::MorselRun::Next":
        kMorsel, kNotYet, kNone
    cdef cppclass CMorselRun "sabot::operators::MorselRun"(CRun):
        CMorselRun(shared_ptr[CSteps] steps) except +
        void Add(CMorsel morsel) except +
        void SetNames(CItemNames names)
        void SetFirst(size_t morsel)
        void ListEnded()
        void PutLargeFirst() except +
        void NotifyOnFinish(void (*on_finished)(void*) noexcept nogil, void* context)
        void Interrupt() noexcept
        cbool WaitFor(int64_t timeout_us) noexcept
        CNext WaitForNext(size_t nth, int64_t timeout_us, size_t* index) noexcept
        size_t ended_approx()
        const CMorsel& morsel(size_t index)
        const CMorselOutcome& outcome(size_t index)
        size_t skipped()
        cbool failed()
        const CMorselFailure& failure()
        CStatus TakeFailureStatus() noexcept

# How often a wait looks for signals and for its cancel, and how soon for the first time whether morsels end at all.
cdef enum:
    _WAIT_SLICE_US = 50_000
    _CANCEL_SLICE_US = 5_000
    _FIRST_SLICE_US = 500


cdef class _Function:
    cdef object function
    cdef str name


cdef void _call_function(void* context, const shared_ptr[CRecordBatch]& rows, shared_ptr[CRecordBatch]* result,
                         void** exception) noexcept with gil:
    EndGilWait()
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
    cdef readonly bint calls_python  # here or in a worker process
    cdef public object sizer  # what sabot.slots has learnt of how large its morsels should be
    cdef object open_failure

    def __cinit__(self, str name):
        self.steps = make_shared[CSteps]()
        self.name = name

    def add_filter(self, Expression expression not None):
        self.steps.get().push_back(MakeFilter(expression.expr, memory_in_use()))

    def add_project(self, names, expressions):
        cdef vector[string] c_names
        cdef vector[CExpression] c_expressions
        for name, expression in zip(names, expressions, strict=True):
            c_names.push_back(name.encode())
            c_expressions.push_back((<Expression?>expression).expr)
        self.steps.get().push_back(MakeProject(move(c_names), move(c_expressions), memory_in_use()))

    def add_filter_or_column(self, Expression expression not None):
        self.steps.get().push_back(MakeFilterOrColumn(expression.expr, str(expression).encode(), memory_in_use()))

    def add_call(self, function, str name):
        self.calls_python = True
        cdef _Function held = _Function.__new__(_Function)
        held.function = function
        held.name = name
        cdef CPythonHooks hooks
        hooks.enter_slot = EnterSlotThread
        hooks.call = _call_function
        hooks.release = _release
        Py_INCREF(held)  # the step's, given back by _release
        self.steps.get().push_back(MakeCall(hooks, <void*>held))

    def add_worker_call(self, NativeWorkerPool pool not None, WorkerFunction function not None, double timeout_s,
                        bint keep_failed=False):
        """`timeout_s` bounds one morsel; 0: nothing does. `keep_failed`: rows that cost the function its worker come out
        marked, instead of failing the run."""
        self.calls_python = True
        cdef CCallLimits limits = pool.limits
        limits.timeout = CMilliseconds(<int64_t>(timeout_s * 1000))
        self.open_failure = pool.open_failure
        self.steps.get().push_back(MakeWorkerCall(pool.pool, function.function, limits, memory_in_use(), keep_failed))


cdef void _notify(void* context) noexcept with gil:
    callback = <object>context
    Py_DECREF(callback)
    callback()


cdef class MorselRun:
    """Morsels on their way through one operator. Add them, execute or submit once, then read the outcomes.

    Dropping it skips the morsels that have not started, so that no interrupted caller leaves work behind.
    """

    cdef shared_ptr[CMorselRun] run
    cdef shared_ptr[CSlotPool] pool
    cdef object open_failure
    cdef object raised  # here, where the garbage collector sees the cycle through its traceback
    cdef SlotPool slots  # that it was submitted to
    cdef readonly bint accepted, cancelled
    cdef size_t count
    cdef str name
    cdef public size_t first_morsel  # how many morsels of the same call are in runs before this one
    cdef size_t ended_seen  # when a wait last looked
    cdef size_t taken       # by next_ended

    def __cinit__(self, Operator operator not None):
        self.name = operator.name
        self.run = make_shared[CMorselRun](operator.steps)
        self.open_failure = operator.open_failure

    def __dealloc__(self):
        with nogil:  # skipping may end the run, and letting go of the pool may end it: both may need the GIL elsewhere
            self._stop()
            self.pool.reset()

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

    def submit(self, SlotPool pool not None, on_finished=None, str job="", double weight=1.0):
        """`on_finished()` is called once, in a slot or in the thread that cancels."""
        cdef CJobShare share = _share_of(job, weight)
        cdef COutcome outcome
        if on_finished is not None:
            Py_INCREF(on_finished)  # the run's, until it has finished
            self.run.get().NotifyOnFinish(_notify, <void*>on_finished)
        self.pool = pool.pool
        self.slots = pool
        self.run.get().SetNames(pool.pool.get().logbook().Name(job.encode(), self.name.encode()))
        self.run.get().SetFirst(self.first_morsel)
        self.run.get().PutLargeFirst()
        with nogil:
            outcome = pool.pool.get().Submit(<shared_ptr[CRun]>self.run, share)
        if outcome != COutcome.kAccepted:
            if on_finished is not None:
                Py_DECREF(on_finished)
            _accept(outcome, f"cannot run {self.count} morsels")
        self.accepted = True

    def execute(self, SlotPool pool not None, cancel=None, str job="", double weight=1.0):
        """Submits, waits, and raises what went wrong; an interrupt cannot come between."""
        self.submit(pool, None, job, weight)
        self.wait(cancel)
        self.raise_failure()

    def list_ended(self):
        """For next_ended; before submit."""
        self.run.get().ListEnded()

    def cancel(self):
        """Skips the morsels that have not started, and kills workers in mid-call; returns at once."""
        self.cancelled = True
        with nogil:
            self._stop()

    cdef void _stop(self) noexcept nogil:
        if self.pool.get() == NULL or self.pool.get().forked():  # in a fork's child the calls are the parent's
            return
        self.pool.get().Cancel(<shared_ptr[CRun]>self.run)
        self.run.get().Interrupt()

    def skipped(self):
        """How many morsels never ran. To be called after the end."""
        return self.run.get().skipped()

    def wait(self, cancel=None):
        """Until every morsel has run or was skipped. A signal, or `cancel.is_set()`, skips those that have not started."""
        cdef int64_t slice_us = _FIRST_SLICE_US
        cdef cbool finished = False
        try:
            while not finished:
                if cancel is not None and not self.cancelled and cancel.is_set():
                    self.cancel()
                with nogil:
                    finished = self.run.get().WaitFor(slice_us)
                slice_us = _WAIT_SLICE_US if cancel is None else _CANCEL_SLICE_US
                if not finished:
                    self._look()
        except BaseException:
            self.cancel()
            while not finished and not self.slots.given_up:
                with nogil:
                    finished = self.run.get().WaitFor(_WAIT_SLICE_US)
                PyErr_CheckSignals()
            raise

    def next_ended(self):
        """Waits for the next morsel to end, in whatever order; its index, or None after the last one that ran. A signal
        cancels the run."""
        cdef int64_t slice_us = _FIRST_SLICE_US
        cdef size_t index = 0
        cdef CNext found = CNext.kNotYet
        try:
            while found == CNext.kNotYet:
                with nogil:
                    found = self.run.get().WaitForNext(self.taken, slice_us, &index)
                slice_us = _WAIT_SLICE_US
                if found == CNext.kNotYet:
                    self._look()
        except BaseException:
            self.cancel()
            raise
        if found == CNext.kNone:
            return None
        self.taken += 1
        return index

    cdef int _look(self) except -1:
        # While no morsel ends, whatever it waits for may be another of them: let other slots have them.
        cdef size_t ended = self.run.get().ended_approx()
        if ended == self.ended_seen:
            with nogil:
                self.pool.get().Widen(<shared_ptr[CRun]>self.run)
        self.ended_seen = ended
        if self.slots.given_up:
            raise _errors.LimitReached(
                "the slots were shut down with a deadline, and a function of this call ran on beyond it; "
                "processes=True runs functions where they can be stopped")
        PyErr_CheckSignals()
        return 0

    def raise_failure(self):
        """What the first failed morsel raised, as itself; or what stopped the run. To be called after its end."""
        cdef const CMorselFailure* failure
        if self.run.get().failed():
            if self.raised is not None:
                raise self.raised
            failure = &self.run.get().failure()
            error = self.raised = self._error_of(self.run.get().TakeFailureStatus())
            note = (f"slot={failure.slot_id} morsel={self.first_morsel + failure.index} "
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
        cdef const CSealedMemory* failure = WorkerFailureOf(status)
        if failure != NULL:
            return self.open_failure((<const char*>failure.data())[:failure.size()])
        try:
            check(status)
        except Exception as error:
            return error

    def results(self):
        """Every morsel's, in the order in which they were added."""
        cdef size_t i
        return [self.result(i, i) for i in range(self.count)]

    cpdef MorselResult result(self, size_t index, int64_t morsel_id):
        """One of them, under another number; of a morsel that has ended."""
        cdef const CMorselOutcome* outcome = &self.run.get().outcome(index)
        cdef MorselResult result = MorselResult.__new__(MorselResult)
        result.batch = self._rows(index)
        result.morsel_id = morsel_id
        result.slot_id = outcome.slot_id
        result.source = _network if self.run.get().morsel(index).source == CSource.kNetwork else _local
        result.queue_us = outcome.queue_us
        result.run_us = outcome.run_us
        return result

    def costs(self):
        """A list of (bytes, run_us, gil_wait_us) of the morsels that ran. To be called after the end."""
        cdef const CMorselOutcome* outcome
        cdef size_t i
        found = []
        for i in range(self.count):
            outcome = &self.run.get().outcome(i)
            if outcome.slot_id >= 0:
                found.append((self.run.get().morsel(i).num_bytes, outcome.run_us, outcome.gil_wait_us))
        return found

    def batches(self):
        """The morsels' batches, None where there are no rows, in the order in which they were added."""
        cdef size_t i
        return [self._rows(i) for i in range(self.count)]

    cdef object _rows(self, size_t index):
        if self.run.get().outcome(index).rows.get() == NULL:
            return None
        return pyarrow_wrap_batch(self.run.get().outcome(index).rows)

# A job's worker processes, as the slots use them; part of slots.pxi. Who starts a worker, and what becomes of what it
# prints, is told by Python.

import logging as _logging

_log = _logging.getLogger("sabot.slots.workers")

cdef extern from "sabot/native/workers/worker.h" namespace "sabot::workers" nogil:
    cdef cppclass CDescriptor "sabot::workers::Descriptor":
        CDescriptor(int fd)
    cdef cppclass CFunction "sabot::workers::Function":
        @staticmethod
        shared_ptr[const CFunction] Make(string name, const void* pickled, size_t size) except +
        const string name
    cdef cppclass CWorkerSockets "sabot::workers::WorkerSockets":
        CDescriptor data
        CDescriptor life
        CDescriptor output
    cdef cppclass CCallResult "sabot::workers::CallResult":
        string printed
        uint64_t printed_bytes
    cdef cppclass CCallLimits "sabot::workers::CallLimits":
        CCallLimits()
        CMilliseconds timeout
        CMilliseconds start_timeout
        size_t output_bytes_max
        uint64_t result_bytes_max
    cdef cppclass CSealedMemory "sabot::workers::SealedMemory":
        const uint8_t* data()
        size_t size()

cdef extern from "sabot/native/workers/worker_pool.h" namespace "sabot::workers" nogil:
    cdef struct CWorkerHooks "sabot::workers::WorkerHooks":
        cbool (*start)(void*, CWorkerSockets*, string*) noexcept nogil
        void (*printed)(void*, const CFunction&, size_t, const CCallResult&) noexcept nogil
        void (*release)(void*) noexcept nogil
    cdef cppclass CWorkerPool "sabot::workers::WorkerPool":
        CWorkerPool(CWorkerHooks hooks, void* context) except +
        void Close()
        cbool closed()
        vector[int] pids_approx()


cdef class _WorkerCallbacks:
    cdef object start, printed


cdef cbool _start_worker(void* context, CWorkerSockets* sockets, string* why) noexcept with gil:
    try:
        data, life, output = (<_WorkerCallbacks>context).start()
        sockets.data = CDescriptor(<int>data)
        sockets.life = CDescriptor(<int>life)
        sockets.output = CDescriptor(<int>output)
        return True
    except BaseException as error:
        why[0] = str(error).encode("utf-8", "replace")
        return False
    finally:
        _forget_slot_thread()


cdef void _hand_on_printed(void* context, const CFunction& function, size_t morsel,
                           const CCallResult& result) noexcept with gil:
    try:
        (<_WorkerCallbacks>context).printed(
            function.name.decode("utf-8", "replace"), morsel, result.printed.decode("utf-8", "replace"),
            result.printed_bytes - result.printed.size())
    except BaseException as error:
        _log.error("worker's output lost function=%s error=%r", function.name, error)
    finally:
        _forget_slot_thread()


cdef void _release_callbacks(void* owned) noexcept with gil:
    Py_DECREF(<object>owned)


cdef class WorkerFunction:
    """A pickled function on its way to workers; each of them gets it once."""

    cdef shared_ptr[const CFunction] function
    cdef readonly str name

    def __cinit__(self, str name, bytes pickled):
        cdef const uint8_t[:] view = pickled
        self.function = CFunction.Make(name.encode("utf-8", "replace"), &view[0] if len(pickled) else NULL, len(pickled))
        if self.function.get() == NULL:
            raise _errors.LimitReached(
                f"no memory for the {len(pickled):,} bytes of the function {name}; give large data as a table")
        self.name = name


cdef class NativeWorkerPool:
    """`start()` gives three descriptors of a new worker; `printed(function, morsel, text, bytes_cut)` gets its output.

    Neither may refer to this object.
    """

    cdef shared_ptr[CWorkerPool] pool
    cdef CCallLimits limits
    cdef readonly object open_failure
    cdef object __weakref__

    def __cinit__(self, *, start, printed, open_failure, double start_timeout_s, size_t output_bytes_max,
                  uint64_t result_bytes_max):
        cdef _WorkerCallbacks callbacks = _WorkerCallbacks.__new__(_WorkerCallbacks)
        callbacks.start = start
        callbacks.printed = printed
        cdef CWorkerHooks hooks
        hooks.start = _start_worker
        hooks.printed = _hand_on_printed
        hooks.release = _release_callbacks
        self.open_failure = open_failure
        self.limits.start_timeout = CMilliseconds(<int64_t>(start_timeout_s * 1000))
        self.limits.output_bytes_max = output_bytes_max
        self.limits.result_bytes_max = result_bytes_max
        Py_INCREF(callbacks)  # the pool's, given back by _release_callbacks
        self.pool = make_shared[CWorkerPool](hooks, <void*>callbacks)

    def __dealloc__(self):
        with nogil:
            self.pool.reset()

    def close(self):
        """Kills every worker, in mid-call too; calls that run and later ones are cancelled."""
        with nogil:
            self.pool.get().Close()

    @property
    def closed(self):
        return self.pool.get().closed()

    def pids(self):
        """The workers that have told their process ids."""
        return list(self.pool.get().pids_approx())


cdef class WorkerPools:
    """All pools of one manager that still live: an operator keeps its pool when no Python object does any more."""

    cdef vector[weak_ptr[CWorkerPool]] pools

    def add(self, NativeWorkerPool pool not None):
        cdef vector[weak_ptr[CWorkerPool]] kept
        for i in range(self.pools.size()):
            if not self.pools[i].expired():
                kept.push_back(self.pools[i])
        kept.push_back(weak_ptr[CWorkerPool](pool.pool))
        self.pools.swap(kept)

    def close(self):
        """Closes every one of them."""
        cdef vector[weak_ptr[CWorkerPool]] pools
        cdef shared_ptr[CWorkerPool] pool
        self.pools.swap(pools)
        for i in range(pools.size()):
            pool = pools[i].lock()
            if pool.get() != NULL:
                with nogil:
                    pool.get().Close()
                    pool.reset()

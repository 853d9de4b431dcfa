# The agent's ledger, and the pool by which Arrow allocates out of it.

from pyarrow.includes.libarrow cimport CMemoryPool
from pyarrow.lib cimport MemoryPool, maybe_unbox_memory_pool

cdef extern from "sabot/native/memory/ledger.h" namespace "sabot::memory" nogil:
    cdef enum class CPromise "sabot::memory::Promise":
        kCredits, kTasks
    cdef cppclass CLedgerOptions "sabot::memory::Ledger::Options":
        int64_t bytes_max
        double high_water
        double low_water
    cdef struct CLedgerSnapshot "sabot::memory::Snapshot":
        int64_t bytes_max
        int64_t allocated
        int64_t store
        int64_t outbox
        int64_t results
        int64_t credits
        int64_t tasks
        int64_t workers
        int64_t committed
        int64_t peak
    cdef cppclass CLedger "sabot::memory::Ledger":
        CLedger(CLedgerOptions options) except +
        cbool TryReserve(CPromise promise, int64_t bytes)
        cbool ReserveIfRoom(CPromise promise, int64_t bytes)
        void Withdraw(CPromise promise)
        void Reserve(CPromise promise, int64_t bytes)
        void Unreserve(CPromise promise, int64_t bytes)
        cbool above_high_water()
        cbool below_low_water()
        void SetFreeing(cbool freeing)
        cbool freeing()
        void TellEnded()
        int64_t bytes_to_free()
        CLedgerSnapshot snapshot()

cdef extern from "sabot/native/memory/ledger_pool.h" namespace "sabot::memory" nogil:
    cdef cppclass CLedgerPoolOptions "sabot::memory::LedgerPool::Options":
        cbool recycles
    cdef cppclass CLedgerPool "sabot::memory::LedgerPool"(CMemoryPool):
        CLedgerPool(shared_ptr[CLedger] ledger, CLedgerPoolOptions options) except +
        int64_t idle_bytes()
    void KeepForProcess(shared_ptr[CLedgerPool] pool)

cdef extern from "sabot/native/memory/memory_watch.h" namespace "sabot::memory" nogil:
    cdef cppclass CMemoryWatch "sabot::memory::MemoryWatch":
        CMemoryWatch(shared_ptr[CLedgerPool] pool) except +
        void SetNursery(int pid)
        void Measure()

cdef extern from "sabot/native/memory/freed_signal.h" namespace "sabot::memory" nogil:
    cdef cppclass CFreedSignal "sabot::memory::FreedSignal":
        CFreedSignal(shared_ptr[CLedger] ledger) except +
        int fd()


cdef CMemoryPool* memory_in_use() except NULL:
    """The pool that pyarrow allocates from here: in an agent the ledger's, in a user's process his own choice."""
    return maybe_unbox_memory_pool(None)


cdef class LedgerPool(MemoryPool):
    """A ledger's pool as pyarrow takes it: `pyarrow.set_memory_pool(ledger.pool)`."""

    def __init__(self):
        raise TypeError("take it from a Ledger")

    @property
    def idle_bytes(self):
        """Blocks that wait for their next use; not counted in the ledger, and given back before its limit is passed."""
        return (<CLedgerPool*> self.pool).idle_bytes()


cdef class Ledger:
    """What an agent holds and has promised, against `bytes_max` (0: no limit). See sabot/native/memory/ledger.h."""

    cdef shared_ptr[CLedger] ledger
    cdef shared_ptr[CLedgerPool] ledger_pool
    cdef unique_ptr[CMemoryWatch] watch
    cdef unique_ptr[CFreedSignal] freed
    cdef readonly LedgerPool pool

    def __init__(self, int64_t bytes_max=0, *, double high_water=0.75, double low_water=0.6, bint recycles=True):
        cdef CLedgerOptions options
        cdef CLedgerPoolOptions pool_options
        options.bytes_max = bytes_max
        options.high_water = high_water
        options.low_water = low_water
        pool_options.recycles = recycles
        self.ledger.reset(new CLedger(options))
        self.ledger_pool.reset(new CLedgerPool(self.ledger, pool_options))
        KeepForProcess(self.ledger_pool)
        self.pool = LedgerPool.__new__(LedgerPool)
        self.pool.init(self.ledger_pool.get())

    def __dealloc__(self):
        with nogil:
            self.watch.reset()
            self.freed.reset()

    def start_watch(self):
        """Has a native thread measure what workers hold, and give back idle memory, until `stop_watch`."""
        with nogil:
            self.watch.reset()  # the old one's end says that nobody watches: it must not come after the new one's start
            self.watch.reset(new CMemoryWatch(self.ledger_pool))

    def stop_watch(self):
        """Ends that thread; repeats do nothing. Idle memory is given back, and what is freed from now on at once."""
        with nogil:
            self.watch.reset()

    def measure(self, nursery_pid=None):
        """Tells the watch which process's children are the workers, and measures now."""
        if self.watch.get() == NULL:
            return
        cdef int pid = nursery_pid or 0
        with nogil:
            self.watch.get().SetNursery(pid)
            self.watch.get().Measure()

    @property
    def freed_fd(self):
        """Readable when memory has come free that somebody waited for; read eight bytes to arm it again."""
        if self.freed.get() == NULL:
            self.freed.reset(new CFreedSignal(self.ledger))
        if self.freed.get().fd() < 0:
            raise _errors.LimitReached("no file descriptor is left for the ledger; raise the limit (ulimit -n)")
        return self.freed.get().fd()

    def try_reserve_task(self, int64_t bytes):
        """Promises `bytes` to a task; False, and nothing promised, where there is no room below the high-water mark."""
        cdef cbool reserved
        with nogil:
            reserved = self.ledger.get().TryReserve(CPromise.kTasks, bytes)
        return reserved

    def withdraw_tasks(self):
        """No task waits any more for what try_reserve_task has refused: nothing need be freed for it."""
        with nogil:
            self.ledger.get().Withdraw(CPromise.kTasks)

    def reserve_task(self, int64_t bytes):
        """As try_reserve_task, whatever room there is."""
        with nogil:
            self.ledger.get().Reserve(CPromise.kTasks, bytes)

    def unreserve_task(self, int64_t bytes):
        with nogil:
            self.ledger.get().Unreserve(CPromise.kTasks, bytes)

    @property
    def above_high_water(self):
        return self.ledger.get().above_high_water()

    @property
    def bytes_to_free(self):
        """What the spill writer should free now: 0 where nothing presses and nobody waits."""
        return self.ledger.get().bytes_to_free()

    @property
    def below_low_water(self):
        return self.ledger.get().below_low_water()

    @property
    def freeing(self):
        """Somebody is at work to free memory; when he has come to an end `freed_fd` becomes readable."""
        return self.ledger.get().freeing()

    @freeing.setter
    def freeing(self, freeing):
        self.ledger.get().SetFreeing(freeing)
        if not freeing:
            with nogil:
                self.ledger.get().TellEnded()

    def snapshot(self):
        """Bytes by account, with `bytes_max`, `committed` and the highest `allocated` so far as `peak`."""
        cdef CLedgerSnapshot now = self.ledger.get().snapshot()
        return {
            "bytes_max": now.bytes_max, "allocated": now.allocated, "store": now.store, "outbox": now.outbox,
            "results": now.results, "credits": now.credits, "tasks": now.tasks, "workers": now.workers,
            "committed": now.committed, "peak": now.peak, "idle": self.ledger_pool.get().idle_bytes(),
        }

# What an operator made of one morsel. A class of Python's own would take longer to fill than a short morsel to run.

cimport cython

from sabot.native.morsel_source import MorselSource as _MorselSource

cdef object _local = _MorselSource.LOCAL
cdef object _network = _MorselSource.NETWORK


@cython.freelist(256)
@cython.final
cdef class MorselResult:
    """What an operator made of one morsel. `batch` is None where it gave no rows; times are in microseconds."""

    cdef readonly object batch, source
    cdef readonly int64_t morsel_id, slot_id, queue_us, run_us

    def __init__(self, *, batch, int64_t morsel_id, int64_t slot_id, source, int64_t queue_us, int64_t run_us):
        self.batch = batch
        self.morsel_id = morsel_id
        self.slot_id = slot_id
        self.source = source
        self.queue_us = queue_us
        self.run_us = run_us

    cdef tuple _values(self):
        return self.batch, self.morsel_id, self.slot_id, self.source, self.queue_us, self.run_us

    def __eq__(self, other):
        if not isinstance(other, MorselResult):
            return NotImplemented
        return self._values() == (<MorselResult>other)._values()

    def __hash__(self):
        return hash(self._values())

    def __repr__(self):
        return (f"MorselResult(batch={self.batch!r}, morsel_id={self.morsel_id}, slot_id={self.slot_id}, "
                f"source={self.source!r}, queue_us={self.queue_us}, run_us={self.run_us})")

    def __reduce__(self):
        return _restore_morsel_result, self._values()


def _restore_morsel_result(batch, morsel_id, slot_id, source, queue_us, run_us):
    return MorselResult(batch=batch, morsel_id=morsel_id, slot_id=slot_id, source=source, queue_us=queue_us, run_us=run_us)

# What the slots have done: the logbook's Python face; part of slots.pxi.

from cython.operator cimport dereference as _value_of

cdef extern from "sabot/native/slots/logbook.h" namespace "sabot::slots" nogil:
    cdef cppclass CItemNames "sabot::slots::ItemNames":
        pass
    cdef cppclass CHistogramCounts "sabot::slots::HistogramCounts":
        int64_t* counts_data "counts.data"()
        int64_t sum_ns
    cdef size_t HISTOGRAM_BUCKETS "sabot::slots::HistogramCounts::kBuckets"
    cdef int64_t HistogramBoundNs "sabot::slots::HistogramCounts::BoundNs"(size_t bucket)
    cdef cppclass COperatorTotals "sabot::slots::OperatorTotals":
        CHistogramCounts queue
        CHistogramCounts run
    cdef cppclass COperatorStats "sabot::slots::OperatorStats":
        string name
        COperatorTotals totals
    cdef cppclass CTimeline "sabot::slots::Timeline":
        pass
    cdef cppclass CLogbook "sabot::slots::Logbook":
        CItemNames Name(string job, string operator_name) except +
        vector[COperatorStats] operator_stats() except +
        CTimeline timeline(size_t morsels_max) except +

cdef extern from "sabot/native/slots/item_note.h" namespace "sabot::slots" nogil:
    void EndGilWait "sabot::slots::GilWait::End"() noexcept

cdef extern from "sabot/native/operators/timeline_batch.h" namespace "sabot::operators" nogil:
    CResult[shared_ptr[CRecordBatch]] TimelineBatch(const CTimeline& timeline) except +

HISTOGRAM_BOUNDS_US = tuple(HistogramBoundNs(bucket) / 1000 for bucket in range(HISTOGRAM_BUCKETS - 1))


cdef list _operator_stats(CLogbook* logbook):
    cdef vector[COperatorStats] stats
    cdef size_t i
    with nogil:
        stats = logbook.operator_stats()
    found = []
    for i in range(stats.size()):
        queue = _counts(stats[i].totals.queue)
        run = _counts(stats[i].totals.run)
        found.append({
            "operator": stats[i].name.decode(errors="replace"),
            "morsels": sum(run),
            "queue_us": stats[i].totals.queue.sum_ns // 1000,
            "run_us": stats[i].totals.run.sum_ns // 1000,
            "queue_counts": queue,
            "run_counts": run,
            "bounds_us": HISTOGRAM_BOUNDS_US,
        })
    return found


cdef list _counts(CHistogramCounts& histogram):
    return [histogram.counts_data()[bucket] for bucket in range(HISTOGRAM_BUCKETS)]


cdef object _timeline(CLogbook* logbook, size_t morsels_max):
    cdef CTimeline timeline
    cdef CResult[shared_ptr[CRecordBatch]] batch
    with nogil:
        timeline = logbook.timeline(morsels_max)
        batch = TimelineBatch(timeline)
        check(batch.status())
    return pyarrow_wrap_batch(_value_of(batch))

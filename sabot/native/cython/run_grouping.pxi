# Aggregates over runs of rows with equal keys.

cdef extern from "sabot/native/rows/run_grouping.h" namespace "sabot::rows" nogil:
    cdef enum class RunFunction(uint8_t):
        kCountAll, kCount, kSum, kMin, kMax

    cdef cppclass CRunAggregate "sabot::rows::RunAggregate":
        RunFunction function
        int column

    cdef cppclass CRunRules "sabot::rows::RunRules":
        int64_t runs_max
        cbool ascending

    cbool CanGroupRuns(
        const CSchema& schema, const vector[int]& keys, const vector[CRunAggregate]& aggregates, cbool ascending) except +
    CResult[shared_ptr[CRecordBatch]] GroupRuns(
        const CRecordBatch& rows, const vector[int]& keys, const vector[CRunAggregate]& aggregates,
        const CRunRules& rules, CMemoryPool* pool)


_RUN_FUNCTIONS = {
    "count_all": <int> RunFunction.kCountAll,
    "count": <int> RunFunction.kCount,
    "sum": <int> RunFunction.kSum,
    "min": <int> RunFunction.kMin,
    "max": <int> RunFunction.kMax,
}


cdef class RunGrouping:
    """One row for each run of rows with equal keys: the key columns, then aggregates (function, column) of the others.

    `takes` says whether it does so for these columns; with `ascending` only runs whose keys ascend, so that each is a
    whole group.
    """

    cdef vector[int] keys
    cdef vector[CRunAggregate] aggregates
    cdef CRunRules rules
    cdef readonly bint takes

    def __init__(self, schema, keys, aggregates, *, bint ascending):
        cdef CRunAggregate aggregate
        cdef shared_ptr[CSchema] c_schema = pyarrow_unwrap_schema(schema)
        self.takes = all(function in _RUN_FUNCTIONS for function, _ in aggregates)
        if not self.takes:
            return
        self.keys = _column_numbers(schema, keys)
        for function, column in aggregates:
            aggregate.function = <RunFunction> (<int> _RUN_FUNCTIONS[function])
            aggregate.column = 0 if column is None else _column_numbers(schema, [column])[0]
            self.aggregates.push_back(aggregate)
        self.rules.ascending = ascending
        self.takes = CanGroupRuns(_deref(c_schema), self.keys, self.aggregates, ascending)

    def group(self, batch, int64_t runs_max):
        """The runs of `batch`, or None where there are none, more than `runs_max`, or they do not ascend and must."""
        cdef:
            shared_ptr[CRecordBatch] c_batch = _batch_of(batch)
            CRunRules rules = self.rules
            CResult[shared_ptr[CRecordBatch]] result
            CMemoryPool* pool = memory_in_use()
        rules.runs_max = runs_max
        with nogil:
            result = GroupRuns(_deref(c_batch), self.keys, self.aggregates, rules, pool)
            check(result.status())
        return None if _deref(result).get() == NULL else pyarrow_wrap_batch(_deref(result))

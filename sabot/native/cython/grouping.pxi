# Grouping by one key, without Acero, and what Acero lacks to compute variances in two halves.

from pyarrow.lib cimport pyarrow_unwrap_table

cdef extern from "sabot/native/operators/group_rows.h" namespace "sabot::operators" nogil:
    cdef cppclass CGroupAggregate "sabot::operators::GroupAggregate":
        string function
        int column
        string name
    CResult[shared_ptr[CTable]] GroupRows(
        const shared_ptr[CTable]& table, int key, const vector[CGroupAggregate]& aggregates,
        CMemoryPool* pool) except +

cdef extern from "sabot/native/operators/moment_kernels.h" namespace "sabot::operators" nogil:
    CStatus RegisterMoments() except +

check(RegisterMoments())


def group_rows(table, str key not None, aggregates):
    """`table` grouped by `key` with (function, column or None, name) for each aggregate; None where only Acero can."""
    cdef:
        shared_ptr[CTable] c_table = pyarrow_unwrap_table(table)
        vector[CGroupAggregate] c_aggregates
        CGroupAggregate aggregate
        int number = _column_numbers(table.schema, [key])[0]
        CMemoryPool* pool = memory_in_use()
        CResult[shared_ptr[CTable]] grouped
    for function, column, name in aggregates:
        aggregate.function = function.encode()
        aggregate.column = -1 if column is None else _column_numbers(table.schema, [column])[0]
        aggregate.name = name.encode()
        c_aggregates.push_back(aggregate)
    with nogil:
        grouped = GroupRows(c_table, number, c_aggregates, pool)
        check(grouped.status())
    if _deref(grouped).get() == NULL:
        return None
    return pyarrow_wrap_table(_deref(grouped))

# The rows: value hashes, checksums and the partitioner.

import difflib as _difflib

from cython.operator cimport dereference as _deref
from pyarrow.lib cimport pyarrow_unwrap_array, pyarrow_unwrap_buffer

cdef extern from "sabot/native/rows/row_bytes.h" namespace "sabot::rows" nogil:
    int64_t BytesOfRows(const CRecordBatch& batch) except +

cdef extern from "sabot/native/rows/hash.h" namespace "sabot::rows" nogil:
    CStatus HashColumn(const CArray& array, uint64_t* out) except +
    CStatus HashKeys(const CRecordBatch& batch, const vector[int]& key_columns, uint64_t* out) except +
    CResult[uint64_t] ContentSum(const CRecordBatch& batch, const vector[int]& key_columns, int column) except +
    int32_t PartitionOf(uint64_t key_hash, int32_t num_partitions) except +
    uint64_t Mix(uint64_t first, uint64_t second) except +
    uint64_t Bind(uint64_t key_hash, uint64_t value_hash) except +

cdef extern from "sabot/native/rows/checksum.h" namespace "sabot::rows" nogil:
    CResult[uint64_t] ChecksumBatch(const CRecordBatch& batch) except +

cdef extern from "sabot/native/rows/range_bounds.h" namespace "sabot::rows" nogil:
    cdef cppclass CSortOrder "sabot::rows::SortOrder":
        cbool descending
        cbool nulls_first

    cdef cppclass CTieTurn "sabot::rows::TieTurn":
        int64_t index
        int64_t count

    cdef cppclass CRangeBounds "sabot::rows::RangeBounds":
        @staticmethod
        CResult[shared_ptr[const CRangeBounds]] Make(const CRecordBatch& boundaries, vector[CSortOrder] orders) except +

cdef extern from "sabot/native/rows/partitioner.h" namespace "sabot::rows" nogil:
    cdef enum class Partitioning(uint8_t):
        kHash, kRoundRobin, kRange, kColumn, kBroadcast, kOne

    cdef cppclass Extent:
        int32_t partition
        int64_t rows
        uint64_t content_sum

    cdef cppclass ScatteredChunk:
        int32_t owner
        shared_ptr[CRecordBatch] batch
        vector[Extent] extents

    cdef cppclass ScatterOptions:
        Partitioning partitioning
        vector[int] key_columns
        shared_ptr[const CRangeBounds] bounds
        CTieTurn tie_turn
        int32_t one_partition
        int32_t num_partitions
        vector[int32_t] owner_of
        int sum_column
        cbool content_sums
        vector[cbool] checked_owners
        int64_t first_row
        int64_t chunk_bytes_max
        CMemoryPool* pool

    CResult[vector[ScatteredChunk]] Scatter(
        const vector[shared_ptr[CRecordBatch]]& batches, const ScatterOptions& options)


cdef shared_ptr[CRecordBatch] _batch_of(batch) except *:
    cdef shared_ptr[CRecordBatch] c_batch = pyarrow_unwrap_batch(batch)
    if c_batch.get() == NULL:
        raise _errors.UsageError(f"Expected a pyarrow.RecordBatch, not {type(batch).__name__}.")
    return c_batch


cdef shared_ptr[CArray] _array_of(array) except *:
    cdef shared_ptr[CArray] c_array = pyarrow_unwrap_array(array)
    if c_array.get() == NULL:
        raise _errors.UsageError(f"Expected a pyarrow.Array, not {type(array).__name__}.")
    return c_array


cdef uint8_t* _memory_of(buffer) except NULL:
    return pyarrow_unwrap_buffer(buffer).get().mutable_data()


cdef vector[int] _column_numbers(schema, names) except *:
    cdef vector[int] numbers
    for name in names:
        found = schema.get_all_field_indices(name)
        if not found:
            near = _difflib.get_close_matches(name, schema.names, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"the columns are {', '.join(schema.names)}."
            raise _errors.UsageError(f"There is no column {name!r}; {advice}", column=name)
        if len(found) > 1:
            raise _errors.UsageError(f"There are {len(found)} columns named {name!r}; rename all but one.", column=name)
        numbers.push_back(found[0])
    return numbers


cdef int _check_partitions(int32_t num_partitions) except -1:
    if num_partitions < 1:
        raise _errors.UsageError(f"The number of partitions is {num_partitions}; it must be at least 1.")
    return 0


def hash_column(array):
    """The value hash of every row of `array`, as docs/protocol.md defines it."""
    cdef:
        shared_ptr[CArray] c_array = _array_of(array)
        int64_t rows = _deref(c_array).length()
        object hashes = pyarrow.allocate_buffer(rows * 8)
        uint64_t* out = <uint64_t*> _memory_of(hashes)
    with nogil:
        check(HashColumn(_deref(c_array), out))
    return pyarrow.Array.from_buffers(pyarrow.uint64(), rows, [None, hashes], 0)


def hash_keys(batch, key_columns):
    """The key hash of every row of `batch`: the hashes of the named columns combined in order; 0 without any."""
    cdef:
        shared_ptr[CRecordBatch] c_batch = _batch_of(batch)
        int64_t rows = batch.num_rows
        vector[int] columns = _column_numbers(batch.schema, key_columns)
        object hashes = pyarrow.allocate_buffer(rows * 8)
        uint64_t* out = <uint64_t*> _memory_of(hashes)
    with nogil:
        check(HashKeys(_deref(c_batch), columns, out))
    return pyarrow.Array.from_buffers(pyarrow.uint64(), rows, [None, hashes], 0)


def mix(uint64_t first, uint64_t second):
    """Combines two hashes, in this order."""
    return Mix(first, second)


def bind(uint64_t key_hash, uint64_t value_hash):
    """Binds a value hash to a key hash, as audits do."""
    return Bind(key_hash, value_hash)


def partition_of(hashes, int32_t num_partitions):
    """The partition of every key hash, each in [0, num_partitions); `hashes` is uint64 without nulls."""
    _array_of(hashes)
    if hashes.type != pyarrow.uint64() or hashes.null_count:
        found = f"{hashes.type} with {hashes.null_count} nulls"
        raise _errors.UsageError(f"Key hashes are uint64 without nulls, not {found}.")
    _check_partitions(num_partitions)
    cdef:
        int64_t rows = len(hashes)
        int64_t row
        object values = hashes.buffers()[1]
        int64_t first = hashes.offset
        const uint64_t* key_hashes = <const uint64_t*> pyarrow_unwrap_buffer(values).get().data() + first
        object partitions = pyarrow.allocate_buffer(rows * 4)
        int32_t* out = <int32_t*> _memory_of(partitions)
    with nogil:
        for row in range(rows):
            out[row] = PartitionOf(key_hashes[row], num_partitions)
    return pyarrow.Array.from_buffers(pyarrow.int32(), rows, [None, partitions], 0)


def row_bytes(batch):
    """The bytes of the batch's rows, as receipts count them."""
    cdef shared_ptr[CRecordBatch] c_batch = _batch_of(batch)
    return BytesOfRows(_deref(c_batch))


def content_sum(batch, key_columns, int column):
    """The wrapping sum over rows of mix(key hash, hash of column number `column`); 0 for a batch without columns."""
    cdef shared_ptr[CRecordBatch] c_batch = _batch_of(batch)
    if batch.num_columns == 0:
        return 0
    if not 0 <= column < batch.num_columns:
        raise _errors.UsageError(f"Column number {column} is out of range: there are {batch.num_columns} columns.")
    cdef:
        vector[int] columns = _column_numbers(batch.schema, key_columns)
        CResult[uint64_t] result
    with nogil:
        result = ContentSum(_deref(c_batch), columns, column)
        check(result.status())
    return _deref(result)


def checksum_batch(batch):
    """The chunk checksum of `batch`, which a slice and its copy after IPC have in common."""
    cdef:
        shared_ptr[CRecordBatch] c_batch = _batch_of(batch)
        CResult[uint64_t] result
    with nogil:
        result = ChecksumBatch(_deref(c_batch))
        check(result.status())
    return _deref(result)


_PARTITIONINGS = {
    "hash": <int> Partitioning.kHash,
    "round_robin": <int> Partitioning.kRoundRobin,
    "range": <int> Partitioning.kRange,
    "column": <int> Partitioning.kColumn,
    "broadcast": <int> Partitioning.kBroadcast,
    "one": <int> Partitioning.kOne,
}


cdef Partitioning _partitioning_of(str name) except *:
    if name not in _PARTITIONINGS:
        raise _errors.UsageError(f"There is no partitioning {name!r}; use one of {', '.join(_PARTITIONINGS)}.")
    return <Partitioning> (<int> _PARTITIONINGS[name])


cdef class RangeBounds:
    """Boundaries of ranges, made once: `boundaries` has a row for each range but the first, that range's first key, and
    `orders` a pair (descending, nulls first) for each of its columns."""

    cdef shared_ptr[const CRangeBounds] bounds

    def __init__(self, boundaries, orders):
        cdef vector[CSortOrder] c_orders
        cdef CSortOrder order
        for descending, nulls_first in orders:
            order.descending = descending
            order.nulls_first = nulls_first
            c_orders.push_back(order)
        cdef CResult[shared_ptr[const CRangeBounds]] made = CRangeBounds.Make(_deref(_batch_of(boundaries)), c_orders)
        check(made.status())
        self.bounds = _deref(made)


def scatter(batches, key_columns, int32_t num_partitions, owner_of, int sum_column, int64_t chunk_bytes_max,
            partitioning="hash", int64_t first_row=0, RangeBounds bounds=None, tie_turn=(0, 0), int one_partition=0):
    """Chunks of `batches` by owner and partition: (owner, batch, [(partition, rows, content sum), ...]) each."""
    cdef:
        vector[shared_ptr[CRecordBatch]] inputs
        ScatterOptions options
        CResult[vector[ScatteredChunk]] result
        vector[ScatteredChunk] chunks
    options.partitioning = _partitioning_of(partitioning)
    for batch in batches:
        inputs.push_back(_batch_of(batch))
    if inputs.empty():
        return []
    options.key_columns = _column_numbers(batches[0].schema, key_columns)
    if bounds is not None:
        options.bounds = bounds.bounds
    options.tie_turn.index, options.tie_turn.count = tie_turn
    options.one_partition = one_partition
    options.num_partitions = num_partitions
    options.owner_of = owner_of
    options.sum_column = sum_column
    options.first_row = first_row
    options.chunk_bytes_max = chunk_bytes_max
    options.pool = memory_in_use()
    with nogil:
        result = Scatter(inputs, options)
        check(result.status())
        chunks = move(_deref(result))
    return [
        (
            chunks[i].owner,
            pyarrow_wrap_batch(chunks[i].batch),
            [(extent.partition, extent.rows, extent.content_sum) for extent in chunks[i].extents],
        )
        for i in range(chunks.size())
    ]

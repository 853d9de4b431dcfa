# The native halves of the shuffle: NativeServer (store, published batches, Flight server), NativeClient (outboxes, pulls,
# pings) and NativeSender (one attempt). Waits run in slices so that Ctrl-C is heard.

include "shuffle_types.pxi"

import time as _time

from cython.operator cimport dereference as deref

from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF

cdef double _WAIT_SLICE_S = 0.1


cdef string _bytes(str text):
    return text.encode()


cdef vector[shared_ptr[CRecordBatch]] _unwrap_batches(batches) except *:
    cdef vector[shared_ptr[CRecordBatch]] unwrapped
    for batch in batches:
        if not isinstance(batch, pyarrow.RecordBatch):
            raise _errors.UsageError(f"Rows must be given as pyarrow.RecordBatch, not as {type(batch).__name__}.")
        unwrapped.push_back(pyarrow_unwrap_batch(batch))
    return unwrapped


cdef CSlotPool* _pool_of(SlotPool slot_pool):
    if slot_pool is None:
        return NULL
    return slot_pool.pool.get()


cdef list _wrap_batches(const vector[shared_ptr[CRecordBatch]]& batches):
    cdef size_t i
    return [pyarrow_wrap_batch(batches[i]) for i in range(batches.size())]


cdef cbool _call_processor(
    void* processor, const shared_ptr[CRecordBatch]& rows, shared_ptr[CRecordBatch]* result
) noexcept with gil:
    holder = <object>processor
    try:
        answer = holder.call(pyarrow_wrap_batch(rows))
        if answer is not None:
            result[0] = pyarrow_unwrap_batch(answer)
    except BaseException as error:  # kept for the reader, who raises it as itself
        holder.keep(error)
        return False
    return True


cdef void _release_processor(void* processor) noexcept with gil:
    Py_DECREF(<object>processor)


cdef class NativeServer:
    """Stores chunks and published batches and serves them over Flight; listens from construction to stop()."""

    cdef shared_ptr[CChunkStore] store
    cdef shared_ptr[CPublishedStore] published
    cdef unique_ptr[CFlightServer] server
    cdef dict processing_of
    cdef int64_t batch_bytes_max
    cdef string agent

    def __init__(self, *, str host, int port, str advertise_host, uint64_t incarnation, double open_wait_s,
                 int64_t batch_bytes_max, bint verify_checksums=True):
        cdef CServerOptions options
        self.processing_of = {}
        self.batch_bytes_max = batch_bytes_max
        options.host = _bytes(host)
        options.port = port
        options.agent = _bytes(advertise_host)
        options.incarnation = incarnation
        options.open_wait_s = open_wait_s
        options.batch_bytes_max = batch_bytes_max
        options.verify_checksums = verify_checksums
        self.store.reset(new CChunkStore())
        self.published.reset(new CPublishedStore())
        cdef CResult[unique_ptr[CFlightServer]] made
        with nogil:
            made = CFlightServer.Make(options, self.store, self.published)
        check(made.status())
        self.server = move(deref(made))
        self.agent = _bytes(f"{advertise_host}:{self.port}")

    @property
    def port(self):
        return self.server.get().port()

    def stop(self):
        cdef CFlightServer* server = self.server.get()
        if server != NULL:
            with nogil:
                server.Stop()

    def open_shuffle(self, str shuffle_id, *, int num_partitions, int owner_count, int my_owner, int sender_count,
                     bint owners_fixed, schema=None, processor=None, SlotPool slot_pool=None, bint dedupe=True,
                     bint check_manifests=True):
        cdef CStoreSpec spec
        cdef shared_ptr[CProcessing] processing
        spec.book.shuffle_id = _bytes(shuffle_id)
        spec.book.agent = self.agent
        spec.book.num_partitions = num_partitions
        spec.book.owner_count = owner_count
        spec.book.my_owner = my_owner
        spec.book.sender_count = sender_count
        spec.book.owners_fixed = owners_fixed
        spec.book.dedupe = dedupe
        spec.book.check_manifests = check_manifests
        if schema is not None:
            spec.schema = pyarrow_unwrap_schema(schema)
        if processor is not None:
            holder = _Processing()
            holder.processor = processor
            Py_INCREF(processor)  # given back by _release_processor, when the last slot is done with it
            holder.processing = MakeProcessing(slot_pool.pool, _call_processor, <void*>processor, _release_processor)
            spec.arrival = ArrivalOf(holder.processing)
        check(self.store.get().Open(spec))
        if processor is not None:
            self.processing_of[shuffle_id] = holder

    def wait_senders(self, str shuffle_id, double timeout_s):
        """False where not every sender had finished at the deadline."""
        cdef string id_bytes = _bytes(shuffle_id)
        cdef CResult[cbool] finished
        cdef double slice_s
        deadline = _time.monotonic() + timeout_s
        while True:
            slice_s = min(_WAIT_SLICE_S, max(0.0, deadline - _time.monotonic()))
            with nogil:
                finished = WaitSendersFor(self.store.get(), id_bytes, slice_s)
            check(finished.status())
            if deref(finished):
                return True
            PyErr_CheckSignals()
            if _time.monotonic() >= deadline:
                return False

    def holds(self, str shuffle_id, int partition):
        cdef CResult[cbool] holds = self.store.get().Holds(_bytes(shuffle_id), partition)
        check(holds.status())
        return deref(holds)

    def confirmed_attempts(self, str shuffle_id):
        cdef CResult[vector[CAttemptKey]] keys = self.store.get().ConfirmedAttempts(_bytes(shuffle_id))
        check(keys.status())
        cdef vector[CAttemptKey] found = deref(keys)
        return [(found[i].task, found[i].attempt) for i in range(found.size())]

    def take(self, str shuffle_id, int partition, attempts, *, int num_partitions, SlotPool slot_pool=None,
             double timeout_s=30.0):
        """The audited rows of a partition: (schema or None, batches, rows, content sum, rows from other agents)."""
        cdef vector[CAttemptKey] keys
        cdef CAttemptKey key
        for task, attempt in attempts:
            key.task = task
            key.attempt = attempt
            keys.push_back(key)
        cdef CAuditNames names
        names.shuffle_id = _bytes(shuffle_id)
        names.agent = self.agent
        names.partition = partition
        names.num_partitions = num_partitions
        cdef CSlotPool* pool = _pool_of(slot_pool)
        cdef CResult[CContents] taken
        cdef CResult[CPartitionSum] audited
        cdef CContents contents
        with nogil:
            taken = self.store.get().Take(names.shuffle_id, partition, keys)
            check(taken.status())
            contents = deref(taken)
            audited = AuditPartition(contents, names, pool)
            check(audited.status())
        cdef CPartitionSum released = deref(audited)
        schema = None if contents.schema.get() == NULL else pyarrow_wrap_schema(contents.schema)
        holder = self.processing_of.get(shuffle_id)
        if holder is None:
            batches = [pyarrow_wrap_batch(contents.pieces[i].rows) for i in range(contents.pieces.size())]
        else:
            batches = (<_Processing>holder).results(contents, timeout_s)
            schema = batches[0].schema if batches else schema
        return schema, batches, released.rows, released.content_sum, NetworkRows(contents)

    def publish(self, str name, int64_t index, batches, schema):
        """Keeps batches for pull; (ticket, rows, content sum)."""
        cdef vector[shared_ptr[CRecordBatch]] unwrapped = _unwrap_batches(batches)
        cdef shared_ptr[CSchema] c_schema = pyarrow_unwrap_schema(schema)
        cdef string name_bytes = _bytes(name)
        cdef CResult[shared_ptr[const CPublished]] part
        with nogil:
            part = self.published.get().Publish(name_bytes, index, c_schema, unwrapped, self.batch_bytes_max)
        check(part.status())
        cdef shared_ptr[const CPublished] kept = deref(part)
        return ticket_of(name, index), kept.get().rows, kept.get().content_sum

    def find(self, str name, int64_t index):
        """What is published so: (schema, batches)."""
        cdef CResult[shared_ptr[const CPublished]] part = self.published.get().Find(_bytes(name), index)
        check(part.status())
        cdef shared_ptr[const CPublished] kept = deref(part)
        return pyarrow_wrap_schema(kept.get().schema), _wrap_batches(kept.get().batches)

    def published_names(self):
        """The published names with their ages in seconds."""
        cdef vector[pair[string, double]] names = self.published.get().NamesWithAge()
        return [(names[i].first.decode(), names[i].second) for i in range(names.size())]

    def end(self, str prefix):
        cdef string prefix_bytes = _bytes(prefix)
        with nogil:
            self.store.get().EndPrefix(prefix_bytes)
            self.published.get().DropPrefix(prefix_bytes)
        for shuffle_id in [name for name in self.processing_of if name == prefix or name.startswith(prefix + "/")]:
            del self.processing_of[shuffle_id]

    def stats(self):
        cdef CStoreStats stats = self.store.get().stats()
        return {
            "shuffles": stats.shuffles,
            "stored_bytes": stats.stored_bytes,
            "stored_chunks": stats.stored_chunks,
            "chunks_received": stats.chunks_received,
            "bytes_received": stats.bytes_received,
            "chunks_repeated": stats.chunks_repeated,
            "published_bytes": self.published.get().bytes(),
        }


cdef class _Processing:
    """A processor and what it has made so far."""

    cdef object processor
    cdef shared_ptr[CProcessing] processing

    cdef list results(self, const CContents& contents, double timeout_s):
        cdef CResult[vector[shared_ptr[CRecordBatch]]] made
        with nogil:
            made = ProcessedResults(self.processing, contents, timeout_s)
        self.processor.raise_kept()
        check(made.status())
        return _wrap_batches(deref(made))


cdef class NativeClient:
    """Outboxes to peers, audited pulls, pings."""

    cdef unique_ptr[CDataClient] client

    def __init__(self, *, double stream_timeout_s):
        cdef CClientOptions options
        options.stream_timeout_s = stream_timeout_s
        self.client.reset(new CDataClient(options))

    def fetch(self, str address, str ticket, double timeout_s):
        """What `ticket` names at `address`, audited: (schema, batches)."""
        cdef string address_bytes = _bytes(address)
        cdef string ticket_bytes = _bytes(ticket)
        cdef CResult[shared_ptr[CPublished]] part
        with nogil:
            part = self.client.get().Fetch(address_bytes, ticket_bytes, timeout_s)
        check(part.status())
        cdef shared_ptr[CPublished] pulled = deref(part)
        return pyarrow_wrap_schema(pulled.get().schema), _wrap_batches(pulled.get().batches)

    def ping(self, str address, double timeout_s):
        """The incarnation of the agent at `address`."""
        cdef string address_bytes = _bytes(address)
        cdef CResult[uint64_t] incarnation
        with nogil:
            incarnation = self.client.get().Ping(address_bytes, timeout_s)
        check(incarnation.status())
        return deref(incarnation)

    def end(self, str prefix):
        cdef string prefix_bytes = _bytes(prefix)
        with nogil:
            self.client.get().EndPrefix(prefix_bytes)

    def close(self):
        with nogil:
            self.client.get().Close()


cdef class NativeSender:
    """One attempt's rows on their way to the owners."""

    cdef shared_ptr[CAttemptSender] sender
    cdef object server  # kept alive: the sender points into both
    cdef object client
    cdef ScatterOptions scatter
    cdef object schema

    def __init__(self, NativeClient client, NativeServer server, *, str shuffle_id, uint64_t incarnation, int task,
                 int attempt, owners, int my_owner, int num_partitions, schema=None, keys=(), bint by_hash=False,
                 bint round_robin=False, int64_t chunk_bytes_max=4 << 20):
        cdef CSenderOptions options
        options.shuffle_id = _bytes(shuffle_id)
        options.incarnation = incarnation
        options.attempt.task = task
        options.attempt.attempt = attempt
        for owner in owners:
            options.owners.push_back(_bytes(owner))
        options.my_owner = my_owner
        options.layout.by_hash = by_hash
        for key in keys:
            column = schema.get_field_index(key)
            options.layout.key_columns.push_back(column)
            self.scatter.key_columns.push_back(column)
        if schema is not None:
            options.schema = pyarrow_unwrap_schema(schema)
            self.scatter.sum_column = task % max(1, len(schema))
        self.scatter.partitioning = Partitioning.kRoundRobin if round_robin else Partitioning.kHash
        self.scatter.num_partitions = num_partitions
        for partition in range(num_partitions):
            self.scatter.owner_of.push_back(partition % len(owners))
        self.scatter.first_row = task
        self.scatter.chunk_bytes_max = chunk_bytes_max
        self.schema = schema
        self.server = server
        self.client = client
        cdef CChunkStore* store = NULL
        if server is not None:
            store = server.store.get()
        self.sender = MakeSender(options, store, client.client.get())

    def scatter_and_send(self, batches, SlotPool slot_pool=None):
        """Partitions the rows in a slot and hands them to their owners' outboxes."""
        cdef vector[shared_ptr[CRecordBatch]] unwrapped = _unwrap_batches(batches)
        cdef CSlotPool* pool = _pool_of(slot_pool)
        with nogil:
            check(ScatterAndSend(unwrapped, self.scatter, self.sender, pool))

    def send(self, batch, int partition, int owner, int sum_column):
        """Hands the rows to `owner`'s outbox as they are, as rows of `partition`."""
        cdef vector[ScatteredChunk] chunks
        cdef ScatteredChunk chunk
        cdef Extent extent
        cdef vector[uint64_t] no_keys
        cdef CResult[uint64_t] summed
        chunk.owner = owner
        chunk.batch = pyarrow_unwrap_batch(batch)
        extent.partition = partition
        extent.rows = batch.num_rows
        extent.content_sum = 0
        with nogil:
            if chunk.batch.get().num_columns() > 0:
                no_keys.resize(chunk.batch.get().num_rows())
                summed = ContentSum(no_keys.data(), chunk.batch.get().column(sum_column).get()[0])
                check(summed.status())
                extent.content_sum = deref(summed)
            chunk.extents.push_back(extent)
            chunks.push_back(chunk)
            check(self.sender.get().Send(chunks))

    def finish(self):
        with nogil:
            check(self.sender.get().Finish())

    def wait_confirmed(self, double timeout_s):
        """False where an owner had not confirmed at the deadline."""
        cdef CResult[cbool] confirmed
        cdef double slice_s
        deadline = _time.monotonic() + timeout_s
        while True:
            slice_s = min(_WAIT_SLICE_S, max(0.0, deadline - _time.monotonic()))
            with nogil:
                confirmed = WaitConfirmedFor(self.sender.get(), slice_s)
            check(confirmed.status())
            if deref(confirmed):
                return True
            PyErr_CheckSignals()
            if _time.monotonic() >= deadline:
                return False

    def abort(self):
        self.sender.get().Abort()

    def owners_waited_for(self):
        cdef vector[string] owners = self.sender.get().OwnersWaitedFor()
        return [owners[i].decode() for i in range(owners.size())]

    def summary(self):
        """([(partition, rows, content sum)], rows, bytes to other agents, bytes kept here)."""
        cdef CSendSummary summary = self.sender.get().summary()
        sums = [(entry.first, entry.second.rows, entry.second.content_sum) for entry in summary.sums]
        return sums, summary.rows, summary.wire_bytes, summary.local_bytes


def ticket_of(str name, int64_t index, *, bint shuffle=False):
    """The DoGet ticket of a published part, or of a shuffle's partition."""
    cdef CTicketParts parts
    parts.kind = kTicketShuffle if shuffle else kTicketPublished
    parts.name = _bytes(name)
    parts.index = index
    return CEncodeTicket(parts).decode()

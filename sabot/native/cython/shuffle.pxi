# The native halves of the shuffle: NativeServer (store, published batches, Flight server) here; NativeClient, NativeSender
# and what reads rows in shuffle_client.pxi, shuffle_sender.pxi and shuffle_readers.pxi. Waits run in slices so that Ctrl-C is heard.

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


cdef CSlotUse _slot_use(SlotAccount slots, double timeout_s):
    cdef CJobShare nobody
    if slots is None:
        return SlotUseFor(NULL, nobody, timeout_s)
    return SlotUseFor(slots.pool.get(), slots.share, timeout_s)


cdef COwnerTable _owner_table(unsigned int epoch, owner_of, given_up) except *:
    cdef COwnerTable table
    table.epoch = epoch
    for owner in owner_of:
        table.owner_of.push_back(owner)
    for incarnation in given_up:
        table.given_up.push_back(incarnation)
    return table


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


include "shuffle_readers.pxi"


cdef class NativeServer:
    """Stores chunks and published batches and serves them over Flight; listens from construction to stop()."""

    cdef unique_ptr[CStores] stores
    cdef shared_ptr[CChunkStore] store
    cdef shared_ptr[CPublishedStore] published
    cdef unique_ptr[CFlightServer] server
    cdef dict processing_of
    cdef int64_t batch_bytes_max
    cdef cbool audits_reads
    cdef string agent
    cdef readonly Ledger ledger

    def __init__(self, *, str host, int port, str advertise_host, uint64_t incarnation, double open_wait_s,
                 int64_t batch_bytes_max, double stream_idle_s, size_t streams_max, Ledger ledger=None,
                 spill_dirs=(), int64_t spill_bytes_max=0, bint verify_checksums=True, bint verify_loads=True,
                 bint check_credits=True, bint audits_reads=True):
        cdef CServerOptions options
        cdef CStoresOptions keeping
        self.ledger = Ledger() if ledger is None else ledger
        self.processing_of = {}
        self.batch_bytes_max = batch_bytes_max
        options.host = _bytes(host)
        options.port = port
        options.agent = _bytes(advertise_host)
        options.incarnation = incarnation
        options.open_wait_s = open_wait_s
        options.batch_bytes_max = batch_bytes_max
        options.streams.idle_s = stream_idle_s
        options.streams.streams_max = streams_max
        options.verify_checksums = verify_checksums
        keeping.ledger = self.ledger.ledger
        keeping.pool = self.ledger.ledger_pool.get()
        keeping.agent = options.agent
        for folder in spill_dirs:
            keeping.spill_folders.push_back(_bytes(str(folder)))
        keeping.spill_bytes_max = spill_bytes_max
        keeping.incarnation = incarnation
        keeping.verify_loads = verify_loads
        options.check_credits = check_credits
        self.audits_reads = audits_reads
        options.ledger = self.ledger.ledger
        cdef CResult[unique_ptr[CStores]] opened
        cdef CResult[unique_ptr[CFlightServer]] made
        with nogil:
            opened = CStores.Make(keeping)
        check(opened.status())
        self.stores = move(deref(opened))
        self.store = self.stores.get().chunks()
        self.published = self.stores.get().published()
        with nogil:
            made = CFlightServer.Make(options, self.store, self.published)
        check(made.status())
        self.server = move(deref(made))
        self.agent = _bytes(f"{advertise_host}:{self.port}")

    def __dealloc__(self):
        # Without the GIL: threads that end here, and rows that Python owns, may need it to go.
        with nogil:
            self.server.reset()
            self.stores.reset()
            self.store.reset()
            self.published.reset()

    @property
    def port(self):
        return self.server.get().port()

    def stop(self):
        cdef CFlightServer* server = self.server.get()
        if server != NULL:
            with nogil:
                server.Stop()
                self.stores.get().Stop()

    def spill_outboxes_of(self, NativeClient client):
        """What waits in the client's outboxes goes to disk, too, when the stores have nothing more to give."""
        cdef shared_ptr[CSpillSource] source = static_pointer_cast[CSpillSource, COutboxSpill](
            client.client.get().outbox_spill())
        with nogil:
            self.stores.get().AlsoSpill(weak_ptr[CSpillSource](source))

    def open_shuffle(self, str shuffle_id, *, int num_partitions, int owner_count, int my_owner, int sender_count,
                     bint owners_fixed, owner_of=(), unsigned int epoch=0, schema=None, processor=None,
                     SlotAccount slots=None, bint dedupe=True, bint check_manifests=True, bint check_epochs=True):
        cdef CStoreSpec spec
        cdef shared_ptr[CProcessing] processing
        spec.book.shuffle_id = _bytes(shuffle_id)
        spec.book.agent = self.agent
        spec.book.num_partitions = num_partitions
        spec.book.owner_count = owner_count
        spec.book.my_owner = my_owner
        spec.book.sender_count = sender_count
        spec.book.table = _owner_table(epoch, owner_of, ())
        spec.book.owners_fixed = owners_fixed
        spec.book.dedupe = dedupe
        spec.book.check_manifests = check_manifests
        spec.book.check_epochs = check_epochs
        if schema is not None:
            if not isinstance(schema, pyarrow.Schema):
                raise _errors.UsageError(f"schema must be a pyarrow.Schema, not {type(schema).__name__}.")
            spec.schema = pyarrow_unwrap_schema(schema)
        if processor is not None:
            holder = _Processing()
            holder.processor = processor
            Py_INCREF(processor)  # given back by _release_processor, when the last slot is done with it
            holder.processing = MakeProcessing(slots.pool, slots.share, _call_processor, <void*>processor, _release_processor)
            spec.arrival = ArrivalOf(holder.processing)
        check(self.store.get().Open(spec))
        if processor is not None:
            self.processing_of[shuffle_id] = holder

    def reown(self, str shuffle_id, *, unsigned int epoch, owner_of, given_up):
        """Owner of each partition from `epoch` on; `given_up` are incarnations from which nothing is taken any more."""
        check(self.store.get().Reown(_bytes(shuffle_id), _owner_table(epoch, owner_of, given_up)))

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

    def open_partition(self, str shuffle_id, int partition, attempts, *, int num_partitions, SlotAccount slots=None,
                       int64_t loaded_bytes_max=0):
        """The rows of a partition that exactly these (task, attempt) pairs sent, to be read piece by piece."""
        cdef vector[CAttemptKey] keys
        cdef CAttemptKey key
        for task, attempt in attempts:
            key.task = task
            key.attempt = attempt
            keys.push_back(key)
        cdef CReaderOptions options
        options.names.shuffle_id = _bytes(shuffle_id)
        options.names.agent = self.agent
        options.names.partition = partition
        options.names.num_partitions = num_partitions
        options.audit = self.audits_reads
        options.pool = self.ledger.ledger_pool.get()
        options.loaded_bytes_max = loaded_bytes_max or self.store.get().loaded_bytes_max()
        cdef CResult[CContents] taken
        cdef NativePartition opened = NativePartition.__new__(NativePartition)
        with nogil:
            taken = self.store.get().Take(options.names.shuffle_id, partition, keys)
            check(taken.status())
            opened.reader.reset(new CPartitionReader(deref(taken), options))
        opened.slots = slots
        opened.processing = self.processing_of.get(shuffle_id)
        return opened

    def publish(self, str name, int64_t index, batches, schema):
        """Keeps batches for pull; (ticket, rows, content sum)."""
        if not isinstance(schema, pyarrow.Schema):
            raise _errors.UsageError(f"schema must be a pyarrow.Schema, not {type(schema).__name__}.")
        cdef vector[shared_ptr[CRecordBatch]] unwrapped = _unwrap_batches(batches)
        cdef shared_ptr[CSchema] c_schema = pyarrow_unwrap_schema(schema)
        cdef string name_bytes = _bytes(name)
        cdef CResult[shared_ptr[const CPublished]] part
        with nogil:
            part = self.published.get().Publish(name_bytes, index, c_schema, unwrapped, self.batch_bytes_max)
        check(part.status())
        cdef shared_ptr[const CPublished] kept = deref(part)
        return ticket_of(name, index), kept.get().rows, kept.get().content_sum

    def add(self, str name, int64_t index, batches, schema):
        """Keeps batches, and those that come after, for what `finish` publishes; they may go to disk before that."""
        cdef vector[shared_ptr[CRecordBatch]] unwrapped = _unwrap_batches(batches)
        cdef shared_ptr[CSchema] c_schema = pyarrow_unwrap_schema(schema)
        cdef string name_bytes = _bytes(name)
        cdef CStatus status
        with nogil:
            status = self.published.get().Add(name_bytes, index, c_schema, unwrapped, self.batch_bytes_max)
        check(status)

    def finish(self, str name, int64_t index):
        """Publishes what was added; (ticket, rows, content sum)."""
        cdef CResult[shared_ptr[const CPublished]] part = self.published.get().Finish(_bytes(name), index)
        check(part.status())
        cdef shared_ptr[const CPublished] kept = deref(part)
        return ticket_of(name, index), kept.get().rows, kept.get().content_sum

    def abandon(self, str name, int64_t index):
        """Drops what was added and is not published."""
        cdef string name_bytes = _bytes(name)
        with nogil:
            self.published.get().Abandon(name_bytes, index)

    def find(self, str name, int64_t index):
        """What is published so, as a RecordBatchReader that loads what is on disk."""
        cdef CResult[shared_ptr[const CPublished]] part = self.published.get().Find(_bytes(name), index)
        check(part.status())
        reader = PublishedRows.__new__(PublishedRows)
        (<PublishedRows>reader).reader.reset(new CPublishedReader(deref(part), self.ledger.ledger_pool.get()))
        return reader

    def published_names(self):
        """The published names with their ages in seconds."""
        cdef vector[pair[string, double]] names = self.published.get().NamesWithAge()
        return [(names[i].first.decode(), names[i].second) for i in range(names.size())]

    def end(self, str prefix):
        cdef string prefix_bytes = _bytes(prefix)
        with nogil:
            self.store.get().EndPrefix(prefix_bytes)
            self.published.get().DropPrefix(prefix_bytes)
        below = prefix + "/"
        for shuffle_id in [name for name in list(self.processing_of) if name == prefix or name.startswith(below)]:
            del self.processing_of[shuffle_id]

    def stored_bytes_of(self, str shuffle_id, int32_t partition):
        """About how many bytes of `partition` are stored here; 0 where the shuffle is not open."""
        cdef CResult[int64_t] found = self.store.get().BytesOf(_bytes(shuffle_id), partition)
        return deref(found) if found.ok() else 0

    def spilled_bytes_of(self, str shuffle_id, int32_t partition):
        """About how many of them are on disk."""
        cdef CResult[int64_t] found = self.store.get().SpilledBytesOf(_bytes(shuffle_id), partition)
        return deref(found) if found.ok() else 0

    def row_bytes_of(self, str shuffle_id):
        """The mean bytes of a row of the shuffle; 0 where none has come here, or the shuffle is not open."""
        cdef CResult[double] found = self.store.get().RowBytesOf(_bytes(shuffle_id))
        return deref(found) if found.ok() else 0.0

    def wait_spilled(self, double timeout_s):
        """False where rows were still being written to disk at the deadline."""
        cdef cbool done
        with nogil:
            done = self.stores.get().WaitSpilled(timeout_s)
        return done

    def stats(self):
        cdef CStoreStats stats = self.store.get().stats()
        cdef CSpillStats spilled = self.stores.get().spill_stats()
        return {
            "shuffles": stats.shuffles,
            "stored_bytes": stats.stored_bytes,
            "stored_chunks": stats.stored_chunks,
            "chunks_received": stats.chunks_received,
            "bytes_received": stats.bytes_received,
            "chunks_repeated": stats.chunks_repeated,
            "published_bytes": self.published.get().bytes(),
            "chunks_spilled": stats.chunks_spilled,
            "index_bytes": stats.index_bytes,
            "spill_bytes": spilled.bytes,
            "spilled_bytes_total": spilled.bytes_written,
            "streams_open": self.server.get().open_streams() if self.server.get() != NULL else 0,
        }


include "shuffle_client.pxi"


include "shuffle_sender.pxi"


include "shuffle_tickets.pxi"

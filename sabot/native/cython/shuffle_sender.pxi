# NativeSender: one attempt on its way, from rows to the confirmation of every owner.


cdef class NativeSender:
    """One attempt's rows on their way to the owners."""

    cdef shared_ptr[CAttemptSender] sender
    cdef object server  # kept alive: the sender points into both
    cdef object client
    cdef ScatterOptions scatter
    cdef object schema

    def __init__(self, NativeClient client, NativeServer server, *, str shuffle_id, uint64_t incarnation, int task,
                 int attempt, owners, int my_owner, int num_partitions, owner_of=None, unsigned int epoch=0,
                 schema=None, keys=(), str partitioning="round_robin", RangeBounds bounds=None,
                 tie_turn=(0, 0), int one_partition=0,
                 int64_t chunk_bytes_max=4 << 20, bint audit=True, bint digest_placement=False):
        cdef CSenderOptions options
        options.shuffle_id = _bytes(shuffle_id)
        options.incarnation = incarnation
        options.epoch = epoch
        options.digest_placement = digest_placement
        options.attempt.task = task
        options.attempt.attempt = attempt
        for owner in owners:
            options.owners.push_back(_bytes(owner))
        options.my_owner = my_owner
        options.layout.by_hash = partitioning == "hash" and len(keys) > 0
        options.layout.by_column = partitioning == "column"
        for key in keys:
            column = schema.get_field_index(key)
            options.layout.key_columns.push_back(column)
            self.scatter.key_columns.push_back(column)
        if schema is not None:
            options.schema = pyarrow_unwrap_schema(schema)
            self.scatter.sum_column = task % max(1, len(schema))
        options.checksums = audit
        cdef cbool compares
        for owner in range(len(owners)):
            compares = audit and owner != my_owner
            self.scatter.checked_owners.push_back(compares)
        self.scatter.content_sums = audit
        self.scatter.partitioning = _partitioning_of(partitioning)
        if bounds is not None:
            self.scatter.bounds = bounds.bounds
        self.scatter.tie_turn.index, self.scatter.tie_turn.count = tie_turn
        self.scatter.one_partition = one_partition
        self.scatter.num_partitions = num_partitions
        for partition in range(num_partitions):
            self.scatter.owner_of.push_back(partition % len(owners) if owner_of is None else owner_of[partition])
        self.scatter.first_row = task
        self.scatter.chunk_bytes_max = chunk_bytes_max
        self.scatter.pool = memory_in_use()
        self.schema = schema
        self.server = server
        self.client = client
        cdef CChunkStore* store = NULL
        if server is not None:
            store = server.store.get()
        self.sender = MakeSender(options, store, client.client.get())

    def scatter_and_send(self, batches, SlotAccount slots=None, double timeout_s=300.0):
        """Partitions the rows in a slot and hands them to their owners' outboxes; `timeout_s` bounds the wait for it."""
        cdef vector[shared_ptr[CRecordBatch]] unwrapped = _unwrap_batches(batches)
        cdef CSlotUse slot_use = _slot_use(slots, timeout_s)
        with nogil:
            check(ScatterAndSend(unwrapped, self.scatter, self.sender, slot_use))

    def send(self, batch, int partition, int owner, int sum_column):
        """Hands the rows to `owner`'s outbox as they are, as rows of `partition`."""
        self._send_whole(batch, partition, owner, sum_column)

    def send_again(self, batch, int partition):
        """As `send`, to the partition's owner, the sum as it was when the rows were partitioned."""
        self._send_whole(batch, partition, self.scatter.owner_of[partition], self.scatter.sum_column)

    cdef _send_whole(self, batch, int partition, int owner, int sum_column):
        cdef vector[ScatteredChunk] chunks
        cdef ScatteredChunk chunk
        cdef Extent extent
        cdef CResult[uint64_t] summed
        chunk.owner = owner
        chunk.batch = pyarrow_unwrap_batch(batch)
        extent.partition = partition
        extent.rows = batch.num_rows
        extent.content_sum = 0
        with nogil:
            summed = ContentSum(deref(chunk.batch), self.scatter.key_columns, sum_column)
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
        """([(partition, rows, content sum, bytes of the rows)], rows, bytes to other agents, bytes kept here, placement digest)."""
        cdef CSendSummary summary = self.sender.get().summary()
        sums = [
            (entry.first, entry.second.sum.rows, entry.second.sum.content_sum, entry.second.bytes)
            for entry in summary.sums
        ]
        return sums, summary.rows, summary.wire_bytes, summary.local_bytes, summary.placement_digest

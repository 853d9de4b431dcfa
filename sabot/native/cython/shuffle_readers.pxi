# What reads rows that are stored or published here: each loads what is on disk as it goes on.


cdef class _Processing:
    """A processor and what it has made so far."""

    cdef object processor
    cdef shared_ptr[CProcessing] processing

    cdef list results(self, const vector[CPiece]& pieces, double timeout_s):
        cdef CResult[vector[shared_ptr[CRecordBatch]]] made
        with nogil:
            made = ProcessedResults(self.processing, pieces, timeout_s)
        self.processor.raise_kept()
        check(made.status())
        return _wrap_batches(deref(made))


cdef class NativePartition:
    """A partition that is being read: audited piece by piece, loaded from disk as it is read."""

    cdef unique_ptr[CPartitionReader] reader
    cdef SlotAccount slots
    cdef _Processing processing

    def __dealloc__(self):
        with nogil:
            self.reader.reset()

    def next(self, double timeout_s):
        """The next batches, audited; none at the end. The last come only when the whole is what its senders sent."""
        cdef CSlotUse slot_use = _slot_use(self.slots, timeout_s)
        cdef CResult[vector[CPiece]] read
        cdef vector[CPiece] pieces
        while True:
            with nogil:
                read = self.reader.get().Next(slot_use)
            check(read.status())
            pieces = deref(read)
            if self.processing is None:
                return [pyarrow_wrap_batch(pieces[i].rows) for i in range(pieces.size())]
            batches = self.processing.results(pieces, timeout_s)
            if batches or pieces.empty():
                return batches

    def next_placed(self, double timeout_s):
        """As `next`, of a shuffle without a processor: (task, sequence, batch) of each."""
        cdef CSlotUse slot_use = _slot_use(self.slots, timeout_s)
        cdef CResult[vector[CPiece]] read
        with nogil:
            read = self.reader.get().Next(slot_use)
        check(read.status())
        cdef vector[CPiece] pieces = deref(read)
        return [
            (pieces[i].attempt.task, pieces[i].sequence, pyarrow_wrap_batch(pieces[i].rows))
            for i in range(pieces.size())
        ]

    def arrange(self):
        """Has `next` give the rows in the order of tasks, and of each as it gave them; False where that cannot be
        had piece by piece."""
        return self.reader.get().Arrange()

    def read_all(self, double timeout_s):
        """All batches that are left, audited, in the order of the tasks that sent them and as each of them did."""
        cdef CSlotUse slot_use = _slot_use(self.slots, timeout_s)
        cdef CResult[vector[CPiece]] read
        with nogil:
            read = self.reader.get().ReadAll(slot_use)
        check(read.status())
        return [pyarrow_wrap_batch(deref(read)[i].rows) for i in range(deref(read).size())]

    @property
    def schema(self):
        """The rows' schema; None where no sender had rows or a schema."""
        cdef shared_ptr[CSchema] schema = self.reader.get().schema()
        return None if schema.get() == NULL else pyarrow_wrap_schema(schema)

    @property
    def rows(self):
        """How many rows have been released so far."""
        return self.reader.get().released().sum.rows

    @property
    def content_sum(self):
        return self.reader.get().released().sum.content_sum

    @property
    def num_bytes(self):
        """The bytes of the rows that have been released so far."""
        return self.reader.get().released().bytes

    @property
    def network_rows(self):
        """How many of them came from other agents."""
        return self.reader.get().network_rows()


cdef class PublishedRows:
    """What is published under one name and index, batch by batch; it may be dropped meanwhile."""

    cdef unique_ptr[CPublishedReader] reader

    def __dealloc__(self):
        with nogil:
            self.reader.reset()

    def next(self):
        """The next batch; None at the end."""
        cdef shared_ptr[CRecordBatch] batch
        cdef CStatus status
        with nogil:
            status = self.reader.get().ReadNext(&batch)
        check(status)
        return None if batch.get() == NULL else pyarrow_wrap_batch(batch)

    @property
    def schema(self):
        return pyarrow_wrap_schema(self.reader.get().schema())

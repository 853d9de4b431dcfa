# The sending half beside the sender: outboxes to peers, pulls, pings.


cdef class NativeClient:
    """Outboxes to peers, audited pulls, pings."""

    cdef unique_ptr[CDataClient] client
    cdef readonly Ledger ledger

    def __init__(self, *, double stream_timeout_s, double resume_s, int streams_per_peer, str compression,
                 Ledger ledger=None):
        self.ledger = Ledger() if ledger is None else ledger
        cdef CClientOptions options
        options.stream_timeout_s = stream_timeout_s
        options.resume_s = resume_s
        options.streams_per_peer = streams_per_peer
        options.compression = _bytes("" if compression == "none" else compression)
        options.ledger = self.ledger.ledger
        options.pool = self.ledger.ledger_pool.get()
        cdef CResult[unique_ptr[CDataClient]] made = CDataClient.Make(options)
        check(made.status())
        self.client = move(deref(made))

    def __dealloc__(self):
        with nogil:  # the links' threads may need the GIL to let go of rows that Python owns
            self.client.reset()

    def fetch(self, str address, str ticket, double timeout_s):
        """What `ticket` names at `address`, audited: (schema, batches)."""
        cdef string address_bytes = _bytes(address)
        cdef string ticket_bytes = _bytes(ticket)
        cdef CResult[shared_ptr[CPulled]] part
        with nogil:
            part = self.client.get().Fetch(address_bytes, ticket_bytes, timeout_s)
        check(part.status())
        cdef shared_ptr[CPulled] pulled = deref(part)
        return pyarrow_wrap_schema(pulled.get().schema), _wrap_batches(pulled.get().batches)

    def fetch_share(self, str address, str shuffle_id, int partition, attempts, *, share, key_columns, double timeout_s):
        """A share of a partition at `address`, audited: (schema, batches, rows, content sum, bytes of the rows)."""
        cdef string address_bytes = _bytes(address)
        cdef CShareTicket ticket = _share_ticket(shuffle_id, partition, attempts, share)
        cdef vector[int] keys = key_columns
        cdef CResult[shared_ptr[CPulled]] part
        with nogil:
            part = self.client.get().FetchShare(address_bytes, ticket, keys, timeout_s)
        check(part.status())
        cdef shared_ptr[CPulled] pulled = deref(part)
        schema, batches = pyarrow_wrap_schema(pulled.get().schema), _wrap_batches(pulled.get().batches)
        return schema, batches, pulled.get().rows, pulled.get().content_sum, pulled.get().bytes

    def ping(self, str address, double timeout_s):
        """The incarnation of the agent at `address`."""
        cdef string address_bytes = _bytes(address)
        cdef CResult[uint64_t] incarnation
        with nogil:
            incarnation = self.client.get().Ping(address_bytes, timeout_s)
        check(incarnation.status())
        return deref(incarnation)

    def end_pulls(self, str shuffle_id, str address):
        cdef string id_bytes = _bytes(shuffle_id)
        cdef string address_bytes = _bytes(address)
        with nogil:
            self.client.get().EndPulls(id_bytes, address_bytes)

    def end(self, str prefix):
        cdef string prefix_bytes = _bytes(prefix)
        with nogil:
            self.client.get().EndPrefix(prefix_bytes)

    def close(self):
        with nogil:
            self.client.get().Close()

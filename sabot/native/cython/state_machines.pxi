# The shuffle's state machines without I/O, one object each, for the simulator of whole clusters (tests/simulation). Agents
# drive the same machines from C++; nothing of Sabot uses these faces.

from collections import namedtuple as _namedtuple

from libcpp.optional cimport optional

cdef extern from "sabot/native/shuffle/chunk_header.h" namespace "sabot::shuffle" nogil:
    cdef enum class CMessageKind "sabot::shuffle::MessageKind"(uint8_t):
        kChunk, kManifest, kCredit

    cdef cppclass CChunkHeader "sabot::shuffle::ChunkHeader":
        CMessageKind kind
        string shuffle_id
        uint64_t incarnation
        uint32_t epoch
        uint32_t task
        uint32_t attempt
        uint32_t sequence
        uint64_t checksum
        uint64_t bytes
        CLayout layout
        vector[Extent] extents

    cdef cppclass CAck "sabot::shuffle::Ack":
        CMessageKind kind
        cbool repeated
        int32_t code
        uint64_t granted
        string message

    uint64_t ChunkMark(uint32_t sequence, uint64_t checksum) except +
    string CEncodeHeader "sabot::shuffle::EncodeHeader"(const CChunkHeader& header) except +
    CResult[CChunkHeader] CDecodeHeader "sabot::shuffle::DecodeHeader"(const string& data) except +
    CAck CAckFor "sabot::shuffle::AckFor"(const CChunkHeader& header) except +
    string CEncodeAck "sabot::shuffle::EncodeAck"(const CAck& ack) except +
    CResult[CAck] CDecodeAck "sabot::shuffle::DecodeAck"(const string& data) except +

cdef extern from "sabot/native/shuffle/bookkeeping.h" namespace "sabot::shuffle" nogil:
    cdef enum class CVerdict "sabot::shuffle::Verdict":
        kStore, kRepeated, kRefused

    cdef cppclass CJudgement "sabot::shuffle::Judgement":
        CVerdict verdict
        CStatus status

    cdef cppclass CBookkeeping "sabot::shuffle::Bookkeeping":
        CBookkeeping(CBookOptions options) except +
        void Reown(COwnerTable table) except +
        CJudgement OfferChunk(const CChunkHeader& header, int64_t batch_rows) except +
        CJudgement OfferManifest(const CChunkHeader& header) except +
        CResult[CPartitionSum] Promised(int32_t partition, const vector[CAttemptKey]& attempts) except +

cdef extern from "sabot/native/shuffle/send_window.h" namespace "sabot::shuffle" nogil:
    cdef cppclass COutgoing "sabot::shuffle::Outgoing":
        string header
        CAck awaited
        uint64_t bytes

    cdef cppclass CSendWindow "sabot::shuffle::SendWindow":
        CSendWindow(string peer, size_t streams, size_t chunks) except +
        void Add(COutgoing message) except +
        void Opened(size_t stream) except +
        void Granted(size_t stream, uint64_t total) except +
        shared_ptr[const COutgoing] Next(size_t stream) except +
        shared_ptr[const COutgoing] Write(size_t stream) except +
        uint64_t CreditFor(const COutgoing& next, size_t stream) except +
        CResult[shared_ptr[const COutgoing]] Acknowledge(size_t stream, const CAck& ack) except +
        void Rewind(size_t stream) except +
        size_t unacknowledged(size_t stream) except +
        cbool empty()

cdef extern from "sabot/native/shuffle/credit_desk.h" namespace "sabot::shuffle" nogil:
    cdef cppclass CDeskOptions "sabot::shuffle::CreditDesk::Options":
        int64_t chunk_bytes

    cdef cppclass CNeed "sabot::shuffle::CreditDesk::Need":
        uint64_t stream
        int64_t bytes

    cdef cppclass CCreditDesk "sabot::shuffle::CreditDesk":
        CCreditDesk(CDeskOptions options) except +
        int64_t Opened(uint64_t stream, const string& peer) except +
        void Wanted(uint64_t stream, int64_t total) except +
        cbool Arrived(uint64_t stream, int64_t bytes) except +
        int64_t Settled(uint64_t stream, int64_t bytes) except +
        int64_t Closed(uint64_t stream) except +
        optional[CNeed] NextWaiting() except +
        optional[CNeed] Ahead(uint64_t stream) except +
        int64_t Reserved(const CNeed& need) except +
        cbool LendOwnChunks()
        int64_t granted(uint64_t stream) except +
        cbool Waits(uint64_t stream) except +
        void Answered(uint64_t stream) except +
        int64_t reserved()

cdef extern from "sabot/native/memory/ledger.h" namespace "sabot::memory" nogil:
    cdef enum class CAccount "sabot::memory::Account":
        kStore, kOutbox, kResults

    cdef cppclass CWholeLedger "sabot::memory::Ledger":
        CWholeLedger(CLedgerOptions options) except +
        cbool TryAllocate(int64_t bytes) except +
        void Free(int64_t bytes) except +
        void Hold(CAccount account, int64_t bytes) except +
        void Drop(CAccount account, int64_t bytes) except +
        cbool TryReserve(CPromise promise, int64_t bytes) except +
        cbool ReserveIfRoom(CPromise promise, int64_t bytes) except +
        void Withdraw(CPromise promise) except +
        void Reserve(CPromise promise, int64_t bytes) except +
        void Unreserve(CPromise promise, int64_t bytes) except +
        cbool above_high_water()
        int64_t bytes_to_free()
        CLedgerSnapshot snapshot() except +

HeaderFields = _namedtuple(
    "HeaderFields", "manifest shuffle_id incarnation epoch task attempt sequence checksum bytes extents")
AckFields = _namedtuple("AckFields", "credit granted error")


def chunk_mark(uint32_t sequence, uint64_t checksum):
    """What a manifest adds up over its chunks."""
    return ChunkMark(sequence, checksum)


def encode_header(fields):
    """The bytes of a chunk's or a manifest's header whose rows are partitioned by the hash of column 0."""
    cdef CChunkHeader header
    cdef Extent extent
    header.kind = CMessageKind.kManifest if fields.manifest else CMessageKind.kChunk
    header.shuffle_id = _bytes(fields.shuffle_id)
    header.incarnation = fields.incarnation
    header.epoch = fields.epoch
    header.task = fields.task
    header.attempt = fields.attempt
    header.sequence = fields.sequence
    header.checksum = fields.checksum
    header.bytes = fields.bytes
    header.layout.by_hash = True
    header.layout.key_columns.push_back(0)
    for extent.partition, extent.rows, extent.content_sum in fields.extents:
        header.extents.push_back(extent)
    return <bytes>CEncodeHeader(header)


cdef CChunkHeader _header_of(bytes data) except *:
    cdef CResult[CChunkHeader] decoded = CDecodeHeader(data)
    check(decoded.status())
    return deref(decoded)


def decode_header(bytes data):
    cdef CChunkHeader header = _header_of(data)
    extents = tuple((extent.partition, extent.rows, extent.content_sum) for extent in header.extents)
    return HeaderFields(header.kind == CMessageKind.kManifest, header.shuffle_id.decode(), header.incarnation,
                        header.epoch, header.task, header.attempt, header.sequence, header.checksum, header.bytes,
                        extents)


def encode_ack(bytes header, uint64_t granted, *, bint repeated=False, error=None):
    """The answer to the message with `header`, or about credit alone where it is empty: all is well, or a SabotError."""
    cdef CAck ack
    if header:
        ack = CAckFor(_header_of(header))
    else:
        ack.kind = CMessageKind.kCredit
    ack.granted = granted
    ack.repeated = repeated
    if error is not None:
        ack.code = next((code for code, kind in _CLASS_OF_CODE.items() if kind is type(error)), <int32_t>Code.kInternal)
        ack.message = str(error).encode()
    return <bytes>CEncodeAck(ack)


def decode_ack(bytes data):
    """What an acknowledgement grants, and the error that it carries, or None where all is well."""
    cdef CResult[CAck] ack = CDecodeAck(data)
    check(ack.status())
    error = None
    if deref(ack).code != 0:
        message = deref(ack).message.decode()
        error = _CLASS_OF_CODE[deref(ack).code](message, **_facts_of(message))
    return AckFields(deref(ack).kind == CMessageKind.kCredit, deref(ack).granted, error)


cdef class BookkeepingMachine:
    """Bookkeeping: what an owner holds of one shuffle, as headers tell it."""

    cdef unique_ptr[CBookkeeping] book

    def __init__(self, *, str shuffle_id, str agent, int num_partitions, int owner_count, int my_owner, owner_of,
                 bint dedupe=True, bint check_manifests=True, bint check_epochs=True):
        cdef CBookOptions options
        options.shuffle_id = _bytes(shuffle_id)
        options.agent = _bytes(agent)
        options.num_partitions = num_partitions
        options.owner_count = owner_count
        options.my_owner = my_owner
        options.owners_fixed = True
        options.dedupe = dedupe
        options.check_manifests = check_manifests
        options.check_epochs = check_epochs
        options.table = _owner_table(0, owner_of, ())
        self.book.reset(new CBookkeeping(options))

    def reown(self, unsigned int epoch, owner_of, given_up):
        """The owner table of `epoch`, and the incarnations that were given up."""
        self.book.get().Reown(_owner_table(epoch, owner_of, given_up))

    def offer(self, bytes data, int64_t rows):
        """Whether the chunk of so many rows, or the manifest, was there already; raises what it is refused with."""
        cdef CChunkHeader header = _header_of(data)
        cdef CJudgement judgement
        if header.kind == CMessageKind.kManifest:
            judgement = self.book.get().OfferManifest(header)
        else:
            judgement = self.book.get().OfferChunk(header, rows)
        if judgement.verdict == CVerdict.kRefused:
            check(judgement.status)
        return judgement.verdict == CVerdict.kRepeated

    def promised(self, int partition, attempts):
        """(rows, content sum) that the manifests of `attempts`, pairs of task and attempt, promise for `partition`."""
        cdef vector[CAttemptKey] keys
        cdef CAttemptKey key
        for key.task, key.attempt in attempts:
            keys.push_back(key)
        cdef CResult[CPartitionSum] total = self.book.get().Promised(partition, keys)
        check(total.status())
        return deref(total).rows, deref(total).content_sum


cdef class SendWindowMachine:
    """SendWindow: messages are known by their headers, which differ."""

    cdef unique_ptr[CSendWindow] window

    def __init__(self, str peer, size_t chunks, *, size_t streams=1):
        self.window.reset(new CSendWindow(_bytes(peer), streams, chunks))

    def add(self, bytes data):
        cdef COutgoing message
        message.header = data
        cdef CChunkHeader header = _header_of(data)
        message.awaited = CAckFor(header)
        message.bytes = header.bytes
        self.window.get().Add(message)

    def opened(self, size_t stream=0):
        self.window.get().Opened(stream)

    def granted(self, uint64_t total, size_t stream=0):
        self.window.get().Granted(stream, total)

    def next(self, size_t stream=0):
        """What must be granted in all before `stream` can write its next message, or None where it has none."""
        cdef shared_ptr[const COutgoing] message = self.window.get().Next(stream)
        return None if message.get() == NULL else self.window.get().CreditFor(deref(message), stream)

    def write(self, size_t stream=0):
        """The header of the next message that `stream` is to write, or None."""
        cdef shared_ptr[const COutgoing] message = self.window.get().Write(stream)
        return None if message.get() == NULL else <bytes>message.get().header

    def acknowledge(self, bytes data, size_t stream=0):
        """The header of the message that `data`, come over `stream`, acknowledges."""
        cdef CResult[CAck] ack = CDecodeAck(data)
        check(ack.status())
        cdef CResult[shared_ptr[const COutgoing]] answered = self.window.get().Acknowledge(stream, deref(ack))
        check(answered.status())
        return <bytes>deref(answered).get().header

    def rewind(self, size_t stream=0):
        self.window.get().Rewind(stream)

    def unacknowledged(self, size_t stream=0):
        return self.window.get().unacknowledged(stream)

    @property
    def empty(self):
        return self.window.get().empty()


cdef _need(const optional[CNeed]& need):
    return (need.value().stream, need.value().bytes) if need.has_value() else None


cdef class CreditDeskMachine:
    """CreditDesk: who may send how much to this agent. What must be reserved or given back is in bytes."""

    cdef unique_ptr[CCreditDesk] desk

    def __init__(self, int64_t chunk_bytes):
        cdef CDeskOptions options
        options.chunk_bytes = chunk_bytes
        self.desk.reset(new CCreditDesk(options))

    def opened(self, uint64_t stream, str peer):
        return self.desk.get().Opened(stream, _bytes(peer))

    def wanted(self, uint64_t stream, int64_t total):
        self.desk.get().Wanted(stream, total)

    def arrived(self, uint64_t stream, int64_t count):
        return self.desk.get().Arrived(stream, count)

    def settled(self, uint64_t stream, int64_t count):
        return self.desk.get().Settled(stream, count)

    def closed(self, uint64_t stream):
        return self.desk.get().Closed(stream)

    def next_waiting(self):
        """(stream, bytes) to be reserved next, or None; so `ahead`."""
        return _need(self.desk.get().NextWaiting())

    def ahead(self, uint64_t stream):
        return _need(self.desk.get().Ahead(stream))

    def reserved(self, uint64_t stream, int64_t count):
        """The bytes are reserved; those that are not needed any more."""
        cdef CNeed need
        need.stream = stream
        need.bytes = count
        return self.desk.get().Reserved(need)

    def answered(self, uint64_t stream):
        self.desk.get().Answered(stream)

    def lend_own_chunks(self):
        return self.desk.get().LendOwnChunks()

    def granted(self, uint64_t stream):
        return self.desk.get().granted(stream)

    def waits(self, uint64_t stream):
        return self.desk.get().Waits(stream)

    @property
    def reserved_bytes(self):
        return self.desk.get().reserved()


cdef class LedgerMachine:
    """Ledger: what one agent holds and has promised. Accounts are "store" and "outbox", promises are credits."""

    cdef unique_ptr[CWholeLedger] ledger

    def __init__(self, int64_t bytes_max):
        cdef CLedgerOptions options
        options.bytes_max = bytes_max
        self.ledger.reset(new CWholeLedger(options))

    def try_allocate(self, str account, int64_t count):
        """Whether there was room; then the bytes belong to `account` until they are freed."""
        if not self.ledger.get().TryAllocate(count):
            return False
        self.ledger.get().Hold(CAccount.kStore if account == "store" else CAccount.kOutbox, count)
        return True

    def free(self, str account, int64_t count):
        self.ledger.get().Drop(CAccount.kStore if account == "store" else CAccount.kOutbox, count)
        self.ledger.get().Free(count)

    def try_reserve(self, int64_t count):
        return self.ledger.get().TryReserve(CPromise.kCredits, count)

    def reserve_if_room(self, int64_t count):
        return self.ledger.get().ReserveIfRoom(CPromise.kCredits, count)

    def withdraw(self):
        self.ledger.get().Withdraw(CPromise.kCredits)

    def reserve(self, int64_t count):
        self.ledger.get().Reserve(CPromise.kCredits, count)

    def unreserve(self, int64_t count):
        self.ledger.get().Unreserve(CPromise.kCredits, count)

    @property
    def above_high_water(self):
        return self.ledger.get().above_high_water()

    @property
    def bytes_to_free(self):
        return self.ledger.get().bytes_to_free()

    def snapshot(self):
        """(allocated, store, outbox, credits)"""
        cdef CLedgerSnapshot now = self.ledger.get().snapshot()
        return now.allocated, now.store, now.outbox, now.credits

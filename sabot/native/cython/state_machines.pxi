# The shuffle's state machines without I/O, one object each, for the simulator of whole clusters (tests/simulation). Agents
# drive the same machines from C++; nothing of Sabot uses these faces.

from collections import namedtuple as _namedtuple

cdef extern from "sabot/native/shuffle/chunk_header.h" namespace "sabot::shuffle" nogil:
    cdef enum class CMessageKind "sabot::shuffle::MessageKind"(uint8_t):
        kChunk, kManifest

    cdef cppclass CChunkHeader "sabot::shuffle::ChunkHeader":
        CMessageKind kind
        string shuffle_id
        uint64_t incarnation
        uint32_t epoch
        uint32_t task
        uint32_t attempt
        uint32_t sequence
        uint64_t checksum
        CLayout layout
        vector[Extent] extents

    cdef cppclass CAck "sabot::shuffle::Ack":
        cbool repeated
        int32_t code
        string message

    uint64_t ChunkMark(uint32_t sequence, uint64_t checksum)
    string CEncodeHeader "sabot::shuffle::EncodeHeader"(const CChunkHeader& header)
    CResult[CChunkHeader] CDecodeHeader "sabot::shuffle::DecodeHeader"(const string& data)
    CAck CAckFor "sabot::shuffle::AckFor"(const CChunkHeader& header)
    string CEncodeAck "sabot::shuffle::EncodeAck"(const CAck& ack)
    CResult[CAck] CDecodeAck "sabot::shuffle::DecodeAck"(const string& data)

cdef extern from "sabot/native/shuffle/bookkeeping.h" namespace "sabot::shuffle" nogil:
    cdef enum class CVerdict "sabot::shuffle::Verdict":
        kStore, kRepeated, kRefused

    cdef cppclass CJudgement "sabot::shuffle::Judgement":
        CVerdict verdict
        CStatus status

    cdef cppclass CBookkeeping "sabot::shuffle::Bookkeeping":
        CBookkeeping(CBookOptions options)
        void Reown(COwnerTable table)
        CJudgement OfferChunk(const CChunkHeader& header, int64_t batch_rows)
        CJudgement OfferManifest(const CChunkHeader& header)
        CResult[CPartitionSum] Promised(int32_t partition, const vector[CAttemptKey]& attempts)

cdef extern from "sabot/native/shuffle/send_window.h" namespace "sabot::shuffle" nogil:
    cdef cppclass COutgoing "sabot::shuffle::Outgoing":
        string header
        CAck awaited

    cdef cppclass CSendWindow "sabot::shuffle::SendWindow":
        CSendWindow(string peer, size_t streams, size_t chunks)
        void Add(COutgoing message)
        shared_ptr[const COutgoing] Write(size_t stream)
        CResult[shared_ptr[const COutgoing]] Acknowledge(size_t stream, const CAck& ack)
        void Rewind(size_t stream)
        size_t unacknowledged(size_t stream)
        cbool empty()

HeaderFields = _namedtuple(
    "HeaderFields", "manifest shuffle_id incarnation epoch task attempt sequence checksum extents")


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
                        header.epoch, header.task, header.attempt, header.sequence, header.checksum, extents)


def encode_ack(bytes header, *, bint repeated=False, error=None):
    """The answer to the message with `header`: verified and stored, or refused with a SabotError."""
    cdef CAck ack = CAckFor(_header_of(header))
    ack.repeated = repeated
    if error is not None:
        ack.code = next((code for code, kind in _CLASS_OF_CODE.items() if kind is type(error)), <int32_t>Code.kInternal)
        ack.message = str(error).encode()
    return <bytes>CEncodeAck(ack)


def ack_error(bytes data):
    """The error that an acknowledgement carries, or None where all is well."""
    cdef CResult[CAck] ack = CDecodeAck(data)
    check(ack.status())
    if deref(ack).code == 0:
        return None
    message = deref(ack).message.decode()
    return _CLASS_OF_CODE[deref(ack).code](message, **_facts_of(message))


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
        message.awaited = CAckFor(_header_of(data))
        self.window.get().Add(message)

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

# The C++ faces that shuffle.pxi wraps.

from libcpp.map cimport map as cmap
from libcpp.pair cimport pair

cdef extern from "sabot/native/shuffle/bookkeeping.h" namespace "sabot::shuffle" nogil:
    cdef cppclass CAttemptKey "sabot::shuffle::AttemptKey":
        uint32_t task
        uint32_t attempt

    cdef cppclass CPartitionSum "sabot::shuffle::PartitionSum":
        int64_t rows
        uint64_t content_sum

    cdef cppclass CPartitionCount "sabot::shuffle::PartitionCount":
        CPartitionSum sum
        int64_t bytes

    cdef cppclass CLayout "sabot::shuffle::Layout":
        cbool by_hash
        cbool by_column
        vector[uint16_t] key_columns

    cdef cppclass COwnerTable "sabot::shuffle::OwnerTable":
        uint32_t epoch
        vector[int32_t] owner_of
        vector[uint64_t] given_up

    cdef cppclass CBookOptions "sabot::shuffle::Bookkeeping::Options":
        string shuffle_id
        string agent
        int32_t num_partitions
        int32_t owner_count
        int32_t my_owner
        int32_t sender_count
        COwnerTable table
        cbool owners_fixed
        cbool dedupe
        cbool check_manifests
        cbool check_epochs

cdef extern from "sabot/native/shuffle/chunk_store.h" namespace "sabot::shuffle" nogil:
    cdef cppclass CPiece "sabot::shuffle::Piece":
        shared_ptr[CRecordBatch] rows
        int source
        CAttemptKey attempt
        uint32_t sequence

    cdef cppclass CContents "sabot::shuffle::PartitionContents":
        pass

    cdef cppclass CStoreStats "sabot::shuffle::StoreStats":
        int64_t shuffles
        int64_t stored_bytes
        int64_t stored_chunks
        int64_t chunks_received
        int64_t bytes_received
        int64_t chunks_repeated
        int64_t chunks_spilled
        int64_t index_bytes

    ctypedef struct CArrival "sabot::shuffle::ChunkStore::Arrival":
        pass

    cdef cppclass CStoreSpec "sabot::shuffle::ChunkStore::Spec":
        CBookOptions book
        shared_ptr[CSchema] schema
        CArrival arrival

    cdef cppclass CChunkStore "sabot::shuffle::ChunkStore":
        CStatus Open(CStoreSpec spec) except +
        CResult[int64_t] BytesOf(const string& shuffle_id, int32_t partition) except +
        CResult[int64_t] SpilledBytesOf(const string& shuffle_id, int32_t partition) except +
        CResult[double] RowBytesOf(const string& shuffle_id) except +
        CStatus Reown(const string& shuffle_id, COwnerTable table) except +
        CResult[cbool] Holds(const string& shuffle_id, int32_t partition) except +
        CResult[vector[CAttemptKey]] ConfirmedAttempts(const string& shuffle_id) except +
        CResult[CContents] Take(const string& shuffle_id, int32_t partition, const vector[CAttemptKey]& attempts) except +
        void EndPrefix(const string& prefix) except +
        void Close() except +
        int64_t loaded_bytes_max()
        CStoreStats stats() except +

cdef extern from "sabot/native/shuffle/published_store.h" namespace "sabot::shuffle" nogil:
    cdef cppclass CPublished "sabot::shuffle::Published":
        shared_ptr[CSchema] schema
        int64_t rows
        uint64_t content_sum

    cdef cppclass CPublishedStore "sabot::shuffle::PublishedStore":
        CResult[shared_ptr[const CPublished]] Publish(
            const string& name, int64_t index, shared_ptr[CSchema] schema,
            vector[shared_ptr[CRecordBatch]] batches, int64_t batch_bytes_max) except +
        CStatus Add(
            const string& name, int64_t index, shared_ptr[CSchema] schema,
            vector[shared_ptr[CRecordBatch]] batches, int64_t batch_bytes_max) except +
        CResult[shared_ptr[const CPublished]] Finish(const string& name, int64_t index) except +
        void Abandon(const string& name, int64_t index) except +
        CResult[shared_ptr[const CPublished]] Find(const string& name, int64_t index) except +
        void DropPrefix(const string& prefix) except +
        vector[pair[string, double]] NamesWithAge() except +
        int64_t bytes()

cdef extern from "sabot/native/shuffle/stores.h" namespace "sabot::shuffle" nogil:
    cdef cppclass CSpillStats "sabot::shuffle::SpillStats":
        int64_t bytes
        int64_t bytes_written

    cdef cppclass CStoresOptions "sabot::shuffle::Stores::Options":
        shared_ptr[CLedger] ledger
        CMemoryPool* pool
        string agent
        vector[string] spill_folders
        int64_t spill_bytes_max
        uint64_t incarnation
        cbool verify_loads

    cdef cppclass CSpillSource "sabot::spill::SpillSource":
        pass

    cdef cppclass CStores "sabot::shuffle::Stores":
        @staticmethod
        CResult[unique_ptr[CStores]] Make(CStoresOptions options) except +
        void Stop() except +
        const shared_ptr[CChunkStore]& chunks()
        const shared_ptr[CPublishedStore]& published()
        cbool WaitSpilled(double seconds) except +
        void AlsoSpill(weak_ptr[CSpillSource] source) except +
        CSpillStats spill_stats() except +

cdef extern from "sabot/native/shuffle/row_readers.h" namespace "sabot::shuffle" nogil:
    cdef cppclass CPublishedReader "sabot::shuffle::PublishedReader":
        CPublishedReader(shared_ptr[const CPublished] part, CMemoryPool* pool) except +
        shared_ptr[CSchema] schema() except +
        CStatus ReadNext(shared_ptr[CRecordBatch]* batch) except +

cdef extern from "sabot/native/shuffle/flight_server.h" namespace "sabot::shuffle" nogil:
    cdef cppclass CStreamOptions "sabot::shuffle::StreamWatch::Options":
        size_t streams_max
        double idle_s

    cdef cppclass CServerOptions "sabot::shuffle::FlightServer::Options":
        string host
        int port
        string agent
        uint64_t incarnation
        double open_wait_s
        int64_t batch_bytes_max
        CStreamOptions streams
        shared_ptr[CLedger] ledger
        cbool check_credits
        cbool verify_checksums

    cdef cppclass CFlightServer "sabot::shuffle::FlightServer":
        @staticmethod
        CResult[unique_ptr[CFlightServer]] Make(
            CServerOptions options, shared_ptr[CChunkStore] store, shared_ptr[CPublishedStore] published) except +
        int port()
        void Stop() except +
        size_t open_streams()

cdef extern from "sabot/native/shuffle/ticket.h" namespace "sabot::shuffle" nogil:
    ctypedef enum CTicketKind "sabot::shuffle::TicketKind":
        kTicketPublished "sabot::shuffle::TicketKind::kPublished"
        kTicketShuffle "sabot::shuffle::TicketKind::kShuffle"

    cdef cppclass CTicketParts "sabot::shuffle::TicketParts":
        CTicketKind kind
        string name
        int64_t index

    string CEncodeTicket "sabot::shuffle::EncodeTicket"(const CTicketParts& parts) except +

cdef extern from "sabot/native/shuffle/share_ticket.h" namespace "sabot::shuffle" nogil:
    cdef cppclass CShareTicket "sabot::shuffle::ShareTicket":
        string shuffle_id
        int32_t partition
        uint32_t share
        uint32_t shares
        vector[uint32_t] attempts

    string CEncodeShareTicket "sabot::shuffle::EncodeShareTicket"(const CShareTicket& ticket) except +

cdef extern from "sabot/native/shuffle/data_client.h" namespace "sabot::shuffle" nogil:
    cdef cppclass CPulled "sabot::shuffle::Pulled":
        shared_ptr[CSchema] schema
        vector[shared_ptr[CRecordBatch]] batches
        int64_t rows
        int64_t bytes
        uint64_t content_sum

    cdef cppclass CClientOptions "sabot::shuffle::DataClient::Options":
        double stream_timeout_s
        double resume_s
        int streams_per_peer
        string compression
        shared_ptr[CLedger] ledger
        CMemoryPool* pool

    cdef cppclass COutboxSpill "sabot::shuffle::OutboxSpill"(CSpillSource):
        pass

    cdef cppclass CDataClient "sabot::shuffle::DataClient":
        const shared_ptr[COutboxSpill]& outbox_spill()
        @staticmethod
        CResult[unique_ptr[CDataClient]] Make(CClientOptions options) except +
        void EndPrefix(const string& prefix) except +
        void EndPulls(const string& shuffle_id, const string& address) except +
        void Close() except +
        CResult[shared_ptr[CPulled]] Fetch(const string& address, const string& ticket, double timeout_s) except +
        CResult[shared_ptr[CPulled]] FetchShare(
            const string& address, const CShareTicket& ticket, const vector[int]& key_columns, double timeout_s) except +
        CResult[uint64_t] Ping(const string& address, double timeout_s) except +

cdef extern from "sabot/native/shuffle/attempt_sender.h" namespace "sabot::shuffle" nogil:
    cdef cppclass CSendSummary "sabot::shuffle::SendSummary":
        cmap[int32_t, CPartitionCount] sums
        int64_t rows
        int64_t wire_bytes
        int64_t local_bytes
        uint64_t placement_digest

    cdef cppclass CSenderOptions "sabot::shuffle::AttemptSender::Options":
        string shuffle_id
        uint64_t incarnation
        uint32_t epoch
        CAttemptKey attempt
        cbool digest_placement
        vector[string] owners
        int32_t my_owner
        CLayout layout
        shared_ptr[CSchema] schema
        cbool checksums

    cdef cppclass CAttemptSender "sabot::shuffle::AttemptSender":
        CStatus Send(const vector[ScatteredChunk]& chunks) except +
        CStatus Finish() except +
        void Abort() except +
        CSendSummary summary() except +
        vector[string] OwnersWaitedFor() except +

cdef extern from "sabot/native/shuffle/slot_call.h" namespace "sabot::shuffle" nogil:
    cdef cppclass CSlotUse "sabot::shuffle::SlotUse":
        pass

cdef extern from "sabot/native/shuffle/scatter_call.h" namespace "sabot::shuffle" nogil:
    CStatus ScatterAndSend(
        const vector[shared_ptr[CRecordBatch]]& batches, const ScatterOptions& options,
        const shared_ptr[CAttemptSender]& sender, const CSlotUse& slots)

cdef extern from "sabot/native/shuffle/partition_audit.h" namespace "sabot::shuffle" nogil:
    cdef cppclass CAuditNames "sabot::shuffle::AuditNames":
        string shuffle_id
        string agent
        int32_t partition
        int32_t num_partitions

    cdef cppclass CReaderOptions "sabot::shuffle::PartitionReader::Options":
        CAuditNames names
        cbool audit
        CMemoryPool* pool
        int64_t loaded_bytes_max

    cdef cppclass CPartitionReader "sabot::shuffle::PartitionReader":
        CPartitionReader(CContents contents, CReaderOptions options) except +
        CResult[vector[CPiece]] Next(const CSlotUse& slots) except +
        CResult[vector[CPiece]] ReadAll(const CSlotUse& slots) except +
        cbool Arrange() except +
        const shared_ptr[CSchema]& schema()
        const CPartitionCount& released()
        int64_t network_rows()

cdef extern from "sabot/native/shuffle/processing.h" namespace "sabot::shuffle" nogil:
    cdef cppclass CProcessing "sabot::shuffle::Processing":
        pass

cdef extern from "sabot/native/shuffle/python_bridge.h" namespace "sabot::shuffle" nogil:
    ctypedef cbool (*ProcessorCall)(
        void* processor, const shared_ptr[CRecordBatch]& rows, shared_ptr[CRecordBatch]* result) noexcept
    ctypedef void (*ProcessorRelease)(void* processor) noexcept
    shared_ptr[CAttemptSender] MakeSender(CSenderOptions options, CChunkStore* store, CDataClient* client) except +
    shared_ptr[CProcessing] MakeProcessing(
        shared_ptr[CSlotPool] pool, CJobShare share, ProcessorCall call, void* processor, ProcessorRelease release) except +
    CSlotUse SlotUseFor(CSlotPool* pool, CJobShare share, double timeout_s) except +
    CArrival ArrivalOf(const shared_ptr[CProcessing]& processing) except +
    CResult[vector[shared_ptr[CRecordBatch]]] ProcessedResults(
        const shared_ptr[CProcessing]& processing, const vector[CPiece]& pieces, double timeout_s)
    CResult[cbool] WaitConfirmedFor(CAttemptSender* sender, double timeout_s) except +
    CResult[cbool] WaitSendersFor(CChunkStore* store, const string& shuffle_id, double timeout_s) except +

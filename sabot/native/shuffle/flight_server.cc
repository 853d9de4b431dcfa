#include "sabot/native/shuffle/flight_server.h"

#include <arrow/array.h>

#include "sabot/native/rows/checksum.h"
#include "sabot/native/rows/hash.h"
#include "sabot/native/shuffle/chunk_bytes.h"
#include "sabot/native/shuffle/marked_stream.h"
#include "sabot/native/shuffle/partition_audit.h"
#include "sabot/native/shuffle/ping.h"
#include "sabot/native/shuffle/received_batch.h"
#include "sabot/native/shuffle/row_readers.h"
#include "sabot/native/shuffle/share_stream.h"
#include "sabot/native/shuffle/share_ticket.h"
#include "sabot/native/shuffle/ticket.h"
#include "sabot/native/shuffle/unpack_limit.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {

namespace flight = arrow::flight;

namespace {

constexpr size_t kSenderBytesMax = 64;
constexpr double kRequestWaitS = 1.0;  // the longest that a request for credit stays unanswered

/// An ordinary chunk: rows are cut by their mean, so that one may be somewhat larger than it should.
int64_t OrdinaryChunkBytes(int64_t batch_bytes_max) { return batch_bytes_max + batch_bytes_max / 4 + (64 << 10); }

std::string Facts(const ChunkHeader& header, const std::string& agent) {
  return " (shuffle=" + header.shuffle_id + ", task=" + std::to_string(header.task) +
         ", attempt=" + std::to_string(header.attempt) + ", agent=" + agent + ")";
}

arrow::Status WriteAck(flight::FlightMetadataWriter* writer, const Ack& ack) {
  return writer->WriteMetadata(*arrow::Buffer::FromString(EncodeAck(ack)));
}

/// What `make` gives, made again as memory comes free, to `deadline`: spilling makes room meanwhile.
template <typename Make>
auto MadeWithRoom(Credits* credits, Clock::time_point deadline, const Make& make) {
  auto made = make();
  while (made.status().IsOutOfMemory() && Clock::now() < deadline) {
    if (!credits->WaitFreed(std::min(deadline, DeadlineIn(0.1)))) break;
    made = make();
  }
  return made;
}

/// Rows of a plain writer, whose last message must say how many there were; each batch waits `wait_s` for memory.
arrow::Result<std::vector<std::shared_ptr<arrow::RecordBatch>>> ReadPlainStream(flight::FlightMessageReader* reader,
                                                                                const spill::BlockSource& blocks,
                                                                                Credits* credits, double wait_s) {
  std::vector<std::shared_ptr<arrow::RecordBatch>> batches;
  uint64_t row_count = 0;
  while (true) {
    ARROW_ASSIGN_OR_RAISE(flight::FlightStreamChunk message, reader->Next());
    const bool ended = message.data == nullptr && message.app_metadata == nullptr;
    if (message.data != nullptr) {
      ARROW_ASSIGN_OR_RAISE(auto batch, MadeWithRoom(credits, DeadlineIn(wait_s),
                                                     [&] { return CopyAndValidate(*message.data, blocks); }));
      row_count += static_cast<uint64_t>(batch->num_rows());
      batches.push_back(std::move(batch));
    }
    if (message.app_metadata != nullptr) {
      ARROW_ASSIGN_OR_RAISE(const uint64_t announced, DecodeEnd(std::string_view(*message.app_metadata)));
      if (announced == row_count) return batches;
      return MakeStatus(Code::kIntegrity, "A writer announced " + std::to_string(announced) + " rows, but " +
                                              std::to_string(row_count) + " came. Nothing of them was kept.");
    }
    if (ended) {
      return MakeStatus(Code::kPeerLost,
                        "A writer's stream ended without its last message (SBTE and the row count); its " +
                            std::to_string(row_count) + " rows were dropped.");
    }
  }
}

}  // namespace

FlightServer::FlightServer(Options options, std::shared_ptr<ChunkStore> store,
                           std::shared_ptr<PublishedStore> published)
    : options_(std::move(options)),
      store_(std::move(store)),
      published_(std::move(published)),
      credits_(
          options_.ledger != nullptr ? options_.ledger : std::make_shared<memory::Ledger>(memory::Ledger::Options{}),
          {.chunk_bytes = OrdinaryChunkBytes(options_.batch_bytes_max)}),
      watch_(options_.streams) {}

arrow::Result<std::unique_ptr<FlightServer>> FlightServer::Make(Options options, std::shared_ptr<ChunkStore> store,
                                                                std::shared_ptr<PublishedStore> published) {
  const std::string address = options.host + ":" + std::to_string(options.port);
  ARROW_ASSIGN_OR_RAISE(auto location, flight::Location::ForGrpcTcp(options.host, options.port));
  flight::FlightServerOptions serving(location);
  if (options.ledger != nullptr) {
    serving.memory_manager =
        LimitUnpacking(UnpackedBytesMax(options.ledger->bytes_max(), OrdinaryChunkBytes(options.batch_bytes_max)));
  }
  std::unique_ptr<FlightServer> server(new FlightServer(std::move(options), std::move(store), std::move(published)));
  const arrow::Status status = server->Init(serving);
  if (status.ok()) {
    ARROW_RETURN_NOT_OK(server->watch_.Start(server->port()));
    return server;
  }
  server->stopped_.store(true, std::memory_order_relaxed);  // never served: nothing to shut down
  return MakeStatus(Code::kUsage, "The Flight port " + address +
                                      " cannot be opened: it is in use, or not an address of " +
                                      "this machine. Choose another with agent.port (--port), or 0 for any free one.");
}

FlightServer::~FlightServer() { Stop(); }

void FlightServer::Stop() {
  if (stopped_.exchange(true, std::memory_order_relaxed)) return;  // the stores have locks of their own
  watch_.Stop();
  credits_.Close();
  store_->Close();
  const auto deadline = std::chrono::system_clock::now() + std::chrono::milliseconds(200);
  (void)Shutdown(&deadline);
}

arrow::Status FlightServer::DoPut(const flight::ServerCallContext&, std::unique_ptr<flight::FlightMessageReader> reader,
                                  std::unique_ptr<flight::FlightMetadataWriter> writer) {
  return ForWire(Put(reader.get(), writer.get()));
}

arrow::Status FlightServer::Put(flight::FlightMessageReader* reader, flight::FlightMetadataWriter* writer) {
  ARROW_ASSIGN_OR_RAISE(const auto open, watch_.Enter());
  const std::vector<std::string>& path = reader->descriptor().path;
  if (path.size() >= 2 && path[0] == "sabot") {
    if (path[1] == "chunks" && path.size() == 3) return ReceiveChunks(path[2], reader, writer);
    if (path[1] == "publish" && path.size() == 4) return ReceiveUpload(path[2], path[3], reader, writer);
    if (path[1] == "shuffle" && path.size() == 4) return ReceivePlainRows(path[2], path[3], reader, writer);
  }
  return MakeStatus(
      Code::kUsage,
      "DoPut needs a descriptor path of [\"sabot\", \"publish\", name, index] or [\"sabot\", \"shuffle\", "
      "shuffle_id, partition].");
}

arrow::Status FlightServer::ReceiveChunks(const std::string& sender, flight::FlightMessageReader* reader,
                                          flight::FlightMetadataWriter* writer) {
  if (sender.empty() || sender.size() > kSenderBytesMax) {
    return MakeStatus(Code::kUsage, "A sender of chunks names itself in 1 to 64 bytes.");
  }
  const std::unique_ptr<Credits::Stream> credit = credits_.Open(sender);
  Ack ack;
  ack.kind = MessageKind::kCredit;
  ack.granted = static_cast<uint64_t>(credit->granted());
  ARROW_RETURN_NOT_OK(WriteAck(writer, ack));
  ARROW_ASSIGN_OR_RAISE(const auto schema, reader->GetSchema());
  while (true) {
    ARROW_ASSIGN_OR_RAISE(flight::FlightStreamChunk message, reader->Next());
    if (message.data == nullptr && message.app_metadata == nullptr) return arrow::Status::OK();
    const std::string_view bytes =
        message.app_metadata == nullptr ? std::string_view() : std::string_view(*message.app_metadata);
    if (IsCreditRequest(bytes)) {
      ARROW_ASSIGN_OR_RAISE(ack, AnswerRequest(bytes, credit.get()));
    } else {
      ARROW_ASSIGN_OR_RAISE(const ChunkHeader header, DecodeHeader(bytes));
      ack = AckFor(header);
      const arrow::Result<bool> stored = ReceiveCredited(header, message, schema, credit.get());
      message.data.reset();  // before the answer invites the next one
      if (stored.ok()) {
        ack.repeated = *stored;
      } else {
        const Code code = CodeOf(stored.status());
        ack.code = static_cast<int32_t>(code == Code::kOther ? Code::kIntegrity : code);
        ack.message = PlainMessage(stored.status());
      }
    }
    ack.granted = static_cast<uint64_t>(credit->granted());
    ARROW_RETURN_NOT_OK(WriteAck(writer, ack));
  }
}

arrow::Result<Ack> FlightServer::AnswerRequest(std::string_view bytes, Credits::Stream* credit) const {
  ARROW_ASSIGN_OR_RAISE(const uint64_t total, DecodeCreditRequest(bytes));
  Ack ack;
  ack.kind = MessageKind::kCredit;
  const arrow::Status status = credit->WaitGranted(static_cast<int64_t>(total), DeadlineIn(kRequestWaitS));
  if (!status.ok()) {
    ack.code = static_cast<int32_t>(CodeOf(status));
    ack.message = PlainMessage(status) + " (agent=" + options_.agent + ")";
  }
  return ack;
}

arrow::Result<bool> FlightServer::ReceiveCredited(const ChunkHeader& header, const flight::FlightStreamChunk& message,
                                                  const std::shared_ptr<arrow::Schema>& schema,
                                                  Credits::Stream* credit) {
  const auto bytes = static_cast<int64_t>(header.bytes);
  if (options_.check_credits) {
    ARROW_RETURN_NOT_OK(credit->Arrived(bytes));
  }
  // Its bytes were reserved, but the limit may have been filled by what nobody reserves.
  arrow::Result<bool> stored =
      MadeWithRoom(&credits_, DeadlineIn(options_.open_wait_s), [&] { return ReceiveOne(header, message, schema); });
  if (options_.check_credits) credit->Settled(bytes);
  return stored;
}

arrow::Result<bool> FlightServer::ReceiveOne(const ChunkHeader& header, const flight::FlightStreamChunk& message,
                                             const std::shared_ptr<arrow::Schema>& schema) {
  const std::string facts = Facts(header, options_.agent);
  if ((header.kind == MessageKind::kChunk) != (message.data != nullptr)) {
    return MakeStatus(Code::kPeerRefused, "A chunk came without rows, or a manifest with them" + facts);
  }
  if (options_.check_credits && message.data != nullptr &&
      static_cast<uint64_t>(ReceivedBytes(*message.data)) > header.bytes) {
    return MakeStatus(Code::kLimit, "A chunk holds " + std::to_string(ReceivedBytes(*message.data)) +
                                        " bytes where its header says " + std::to_string(header.bytes) + facts);
  }
  ARROW_RETURN_NOT_OK(store_->WaitOpen(header.shuffle_id, header.epoch, DeadlineIn(options_.open_wait_s)));
  if (header.kind == MessageKind::kManifest) return store_->PutManifest(header, schema);
  rows::BatchChecksum checksum(message.data->num_rows());
  ARROW_ASSIGN_OR_RAISE(const auto batch, CopyAndValidate(*message.data, store_->blocks(),
                                                          options_.verify_checksums ? &checksum : nullptr));
  if (options_.verify_checksums && checksum.Digest() != header.checksum) {
    return MakeStatus(Code::kIntegrity, "Chunk " + std::to_string(header.sequence) +
                                            " was changed on its way: its checksum does not fit" + facts);
  }
  return store_->Put(header, batch, slots::Source::kNetwork);
}

arrow::Status FlightServer::ReceiveUpload(const std::string& name, const std::string& index,
                                          flight::FlightMessageReader* reader, flight::FlightMetadataWriter* writer) {
  ARROW_ASSIGN_OR_RAISE(const int64_t number, DecodeNumber(index, "index"));
  ARROW_ASSIGN_OR_RAISE(const auto schema, reader->GetSchema());
  ARROW_ASSIGN_OR_RAISE(auto batches, ReadPlainStream(reader, published_->blocks(), &credits_, options_.open_wait_s));
  ARROW_ASSIGN_OR_RAISE(const auto part, published_->Publish(name, number, schema, std::move(batches),
                                                             options_.batch_bytes_max, /*ours=*/true));
  const ReadMark stored{
      .last = true, .sequence = 0, .rows = static_cast<uint64_t>(part->rows), .content_sum = part->content_sum};
  return writer->WriteMetadata(*arrow::Buffer::FromString(EncodeReadMark(stored)));
}

arrow::Status FlightServer::ReceivePlainRows(const std::string& shuffle_id, const std::string& partition,
                                             flight::FlightMessageReader* reader,
                                             flight::FlightMetadataWriter* writer) {
  ARROW_ASSIGN_OR_RAISE(const int64_t number, DecodeNumber(partition, "partition"));
  ARROW_RETURN_NOT_OK(store_->WaitOpen(shuffle_id, 0, DeadlineIn(options_.open_wait_s)));
  ARROW_ASSIGN_OR_RAISE(const auto schema, reader->GetSchema());
  ARROW_ASSIGN_OR_RAISE(const auto batches, ReadPlainStream(reader, store_->blocks(), &credits_, options_.open_wait_s));
  ChunkHeader header;
  header.shuffle_id = shuffle_id;
  header.incarnation = options_.incarnation;
  header.task = kFirstPlainTask + plain_tasks_.fetch_add(1, std::memory_order_relaxed) % kFirstPlainTask;
  ChunkHeader manifest = header;
  manifest.kind = MessageKind::kManifest;
  PartitionSum total;
  for (const auto& batch : batches) {
    ARROW_ASSIGN_OR_RAISE(header.checksum, rows::ChecksumBatch(*batch));
    const auto columns = static_cast<uint32_t>(std::max(1, batch->num_columns()));
    ARROW_ASSIGN_OR_RAISE(const uint64_t sum, rows::ContentSum(*batch, {}, static_cast<int>(header.task % columns)));
    header.extents = {{static_cast<int32_t>(number), batch->num_rows(), sum}};
    total.Add(batch->num_rows(), sum);
    manifest.checksum += ChunkMark(header.sequence, header.checksum);
    ARROW_RETURN_NOT_OK(store_->Put(header, batch, slots::Source::kNetwork).status());
    ++header.sequence;
  }
  manifest.sequence = header.sequence;
  manifest.extents = {{static_cast<int32_t>(number), total.rows, total.content_sum}};
  ARROW_RETURN_NOT_OK(store_->PutManifest(manifest, schema).status());
  const ReadMark stored{
      .last = true, .sequence = 0, .rows = static_cast<uint64_t>(total.rows), .content_sum = total.content_sum};
  return writer->WriteMetadata(*arrow::Buffer::FromString(EncodeReadMark(stored)));
}

arrow::Result<std::shared_ptr<arrow::RecordBatchReader>> FlightServer::ReadShuffle(const std::string& shuffle_id,
                                                                                   int32_t partition) {
  ARROW_ASSIGN_OR_RAISE(const bool finished, store_->WaitSenders(shuffle_id, DeadlineIn(options_.open_wait_s)));
  if (!finished) {
    return MakeStatus(Code::kPeerLost, "Partition " + std::to_string(partition) + " of shuffle " + shuffle_id +
                                           " is not complete: not every sender has finished. Ask again later.");
  }
  ARROW_ASSIGN_OR_RAISE(const auto attempts, store_->ConfirmedAttempts(shuffle_id));
  ARROW_ASSIGN_OR_RAISE(PartitionContents contents, store_->Take(shuffle_id, partition, attempts));
  const PartitionReader::Options reading{.names = {shuffle_id, options_.agent, partition, INT32_MAX},
                                         .pool = store_->blocks().pool,
                                         .loaded_bytes_max = store_->loaded_bytes_max()};
  return std::make_shared<PartitionStream>(PartitionReader(std::move(contents), reading), options_.batch_bytes_max);
}

arrow::Result<std::unique_ptr<flight::FlightDataStream>> FlightServer::OpenShare(const std::string& ticket,
                                                                                 StreamWatch::Stream open) {
  ARROW_ASSIGN_OR_RAISE(const ShareTicket share, DecodeShareTicket(ticket));
  ARROW_ASSIGN_OR_RAISE(PartitionContents contents, store_->Take(share.shuffle_id, share.partition, share.keys()));
  const PartitionReader::Options reading{
      .names = {share.shuffle_id, options_.agent, share.partition, contents.num_partitions},
      .pool = store_->blocks().pool,
      .loaded_bytes_max = store_->loaded_bytes_max()};
  return MakeShareStream(PartitionReader(std::move(contents), reading), options_.batch_bytes_max, std::move(open));
}

arrow::Result<std::shared_ptr<arrow::RecordBatchReader>> FlightServer::FindTicket(const std::string& ticket) {
  ARROW_ASSIGN_OR_RAISE(const TicketParts parts, DecodeTicket(ticket));
  if (parts.kind == TicketKind::kShuffle) return ReadShuffle(parts.name, static_cast<int32_t>(parts.index));
  ARROW_ASSIGN_OR_RAISE(auto part, published_->Find(parts.name, parts.index));
  return std::make_shared<PublishedReader>(std::move(part), published_->pool());
}

arrow::Status FlightServer::DoGet(const flight::ServerCallContext&, const flight::Ticket& request,
                                  std::unique_ptr<flight::FlightDataStream>* stream) {
  auto open = watch_.Enter();
  if (!open.ok()) return ForWire(open.status());
  if (IsShareTicket(request.ticket)) return ForWire(OpenShare(request.ticket, *std::move(open)).Value(stream));
  auto rows = FindTicket(request.ticket);
  if (!rows.ok()) return ForWire(rows.status());
  return ForWire(MarkedStream::Make(*std::move(rows), *std::move(open)).Value(stream));
}

arrow::Status FlightServer::DoAction(const flight::ServerCallContext&, const flight::Action& action,
                                     std::unique_ptr<flight::ResultStream>* result) {
  if (action.type != kPingAction) {
    return ForWire(MakeStatus(Code::kUsage, "There is no action \"" + action.type + "\"; there is \"ping\"."));
  }
  std::vector<flight::Result> answers(1);
  answers[0].body = arrow::Buffer::FromString(EncodePing(options_.incarnation));
  *result = std::make_unique<flight::SimpleResultStream>(std::move(answers));
  return arrow::Status::OK();
}

arrow::Status FlightServer::ListActions(const flight::ServerCallContext&, std::vector<flight::ActionType>* actions) {
  actions->push_back({std::string(kPingAction), "Answers SBTP, the protocol version and the agent's incarnation."});
  return arrow::Status::OK();
}

}  // namespace sabot::shuffle

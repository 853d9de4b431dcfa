#include "sabot/native/shuffle/outbox_stream.h"

#include <pthread.h>

#include <system_error>
#include <utility>

#include "sabot/native/shuffle/chunk_store.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {

namespace flight = arrow::flight;

namespace {

constexpr std::chrono::milliseconds kMemoryPause{20};

}  // namespace

OutboxStream::OutboxStream(Outbox* outbox, Options options)
    : outbox_(outbox), options_(std::move(options)), thread_([this] { Loop(); }) {}

void OutboxStream::Loop() {
  (void)pthread_setname_np(pthread_self(), "shuffle-outbox");  // else it, and gRPC's threads, go by a slot's name
  while (true) {
    const Outbox::Step step = outbox_->WaitTurn(options_.index);
    if (step.turn == Turn::kEnd) break;
    const arrow::Status taken = Take(step);
    if (!taken.ok()) Resume(taken);
  }
  outbox_->Fail(MakeStatus(Code::kCancelled, "The shuffle was ended while it was being sent."));
  ended_.store(true, std::memory_order_release);
}

arrow::Status OutboxStream::Take(const Outbox::Step& step) {
  switch (step.turn) {
    case Turn::kOpen:
      return Open(step.message->schema);
    case Turn::kWrite:
      options_.more_is_queued();
      return Write(*step.message);
    case Turn::kAsk:
      return call_->writer->WriteMetadata(arrow::Buffer::FromString(EncodeCreditRequest(step.credit)));
    case Turn::kStarved:
      return Starved();
    case Turn::kExplain:
      return outbox_->SymptomOf(options_.index);
    case Turn::kClose:
    case Turn::kEnd:
      (void)Close();  // all is acknowledged: how the DoPut itself ends says nothing more
  }
  return arrow::Status::OK();
}

arrow::Status OutboxStream::Starved() const {
  const std::string& peer = outbox_->options().peer;
  return MakeStatus(Code::kLimit,
                    "Agent " + peer + " has had no memory for another chunk for " +
                        std::to_string(static_cast<int>(outbox_->options().stream_timeout_s)) +
                        " s. Raise memory.bytes_max there, give it disk to spill to, or run fewer jobs at a time "
                        "(address=" +
                        peer + ")");
}

arrow::Status OutboxStream::Write(const Outgoing& message) {
  auto metadata = arrow::Buffer::FromString(message.header);
  if (message.rows == nullptr) return call_->writer->WriteMetadata(std::move(metadata));
  ARROW_ASSIGN_OR_RAISE(const auto rows, Load(*message.rows));
  return call_->writer->WriteWithMetadata(*rows, std::move(metadata));
}

arrow::Result<std::shared_ptr<arrow::RecordBatch>> OutboxStream::Load(const WaitingRows& rows) const {
  const Outbox::Options& options = outbox_->options();
  const auto deadline = DeadlineIn(options.stream_timeout_s);
  auto loaded = rows.Load(options.pool);
  while (loaded.status().IsOutOfMemory() && Clock::now() < deadline) {
    if (!outbox_->Pause(kMemoryPause)) break;  // others' rows are sent or go to disk meanwhile
    loaded = rows.Load(options.pool);
  }
  return loaded;
}

arrow::Status OutboxStream::Open(const std::shared_ptr<arrow::Schema>& schema) {
  outbox_->Opening(options_.index);
  ARROW_ASSIGN_OR_RAISE(auto client, options_.connect(options_.index));
  ARROW_ASSIGN_OR_RAISE(
      auto opened,
      client->DoPut(options_.call, flight::FlightDescriptor::Path({"sabot", "chunks", options_.sender}), schema));
  call_ = std::make_unique<Call>();
  call_->client = std::move(client);
  call_->writer = std::move(opened.writer);
  call_->reader = std::move(opened.reader);
  outbox_->Opened(options_.index);
  try {
    call_->acknowledgements = std::jthread([this, reader = call_->reader.get()] { ReadAcknowledgements(reader); });
  } catch (const std::system_error&) {
    return MakeNoThread("Chunks cannot be sent to agent " + outbox_->options().peer);
  }
  return arrow::Status::OK();
}

void OutboxStream::ReadAcknowledgements(flight::FlightMetadataReader* reader) {
  (void)pthread_setname_np(pthread_self(), "shuffle-acks");
  arrow::Status status;
  while (status.ok()) {
    std::shared_ptr<arrow::Buffer> bytes;
    status = reader->ReadMetadata(&bytes);
    if (status.ok() && bytes == nullptr) {
      status = arrow::Status::IOError("the stream ended before the acknowledgement");
    } else if (status.ok()) {
      status = outbox_->Answered(options_.index, std::string_view(*bytes));
    }
  }
  outbox_->Broke(options_.index, status);
}

arrow::Status OutboxStream::Close() {
  if (call_ == nullptr) return arrow::Status::OK();
  outbox_->Closed(options_.index);
  (void)call_->writer->DoneWriting();
  if (call_->acknowledgements.joinable()) call_->acknowledgements.join();
  const arrow::Status closed = call_->writer->Close();
  call_.reset();
  return closed;
}

void OutboxStream::Resume(const arrow::Status& symptom) {
  const arrow::Status closed = Close();
  // Our own code's word stands, and Arrow's on what we gave it; of the way's trouble, the peer knows more.
  const bool own = CodeOf(symptom) != Code::kOther || symptom.IsInvalid() || symptom.IsCapacityError();
  const arrow::Status cause = own || closed.ok() ? symptom : closed;
  const std::string& peer = outbox_->options().peer;
  if (const Code code = CodeOf(cause); code != Code::kOther) {
    return outbox_->Fail(MakeStatus(code, PlainMessage(cause)));
  }
  if (own) {  // not the way's fault but the message's: again it would fail again
    return outbox_->Fail(
        MakeStatus(Code::kLimit, "A chunk for agent " + peer + " cannot be sent: " + cause.message() +
                                     ". Give it smaller values, or fewer rows at a time (address=" + peer + ")"));
  }
  if (outbox_->WaitToRetry(options_.index)) return;
  outbox_->Fail(MakeStatus(Code::kPeerLost, "Agent " + peer +
                                                " broke off while it was being sent to, or did not answer within " +
                                                std::to_string(static_cast<int>(outbox_->options().stream_timeout_s)) +
                                                " s: " + cause.message() + " (address=" + peer + ")"));
}

}  // namespace sabot::shuffle

#include "sabot/native/shuffle/peer_link.h"

#include <pthread.h>

#include <tuple>
#include <utility>

#include "sabot/native/shuffle/chunk_store.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {

namespace flight = arrow::flight;

PeerLink::PeerLink(Connect connect, Options options)
    : connect_(std::move(connect)), options_(std::move(options)), thread_([this] { Loop(); }) {}

PeerLink::~PeerLink() { Stop(); }

void PeerLink::Stop() {
  std::lock_guard lock(mutex_);
  stopping_ = true;
  changed_.notify_all();
}

void PeerLink::Enqueue(Outgoing message) {
  arrow::Status failure;
  {
    std::lock_guard lock(mutex_);
    failure = stopping_ && failure_.ok()
                  ? MakeStatus(Code::kCancelled, "The shuffle was ended while it was being sent.")
                  : failure_;
    if (failure.ok()) {
      queue_.push_back(std::move(message));
      changed_.notify_one();
      return;
    }
  }
  message.listener->Undelivered(options_.peer, failure);
}

bool PeerLink::Next(Outgoing* message, bool stream_open) {
  std::unique_lock lock(mutex_);
  const auto ready = [&] { return stopping_ || !queue_.empty(); };
  if (stream_open) {
    changed_.wait_for(lock, std::chrono::duration<double>(options_.idle_s), ready);
  } else {
    changed_.wait(lock, ready);
  }
  if (stopping_ || queue_.empty()) return false;
  *message = std::move(queue_.front());
  queue_.pop_front();
  return true;
}

void PeerLink::Loop() {
  (void)pthread_setname_np(pthread_self(), "shuffle-link");  // else it, and gRPC's threads, go by its maker's: a slot's
  while (true) {
    Outgoing message;
    arrow::Status status;
    if (Next(&message, stream_ != nullptr)) {
      status = Deliver(std::move(message));
    } else {
      status = CloseStream();
      std::lock_guard lock(mutex_);
      if (stopping_) break;
    }
    if (!status.ok()) Fail(status);
  }
  Fail(MakeStatus(Code::kCancelled, "The shuffle was ended while it was being sent."));
  ended_.store(true, std::memory_order_release);
}

arrow::Status PeerLink::Deliver(Outgoing message) {
  const auto age_max = std::chrono::duration<double>(options_.stream_timeout_s / 3);
  if (stream_ != nullptr && std::chrono::steady_clock::now() - stream_->opened_at > age_max) {
    if (arrow::Status status = CloseStream(); !status.ok()) {
      unacknowledged_.push_back(std::move(message));
      return status;
    }
  }
  unacknowledged_.push_back(std::move(message));
  const Outgoing& sent = unacknowledged_.back();
  if (stream_ == nullptr) ARROW_RETURN_NOT_OK(OpenStream(sent.schema));
  auto metadata = arrow::Buffer::FromString(sent.header);
  const arrow::Status written = sent.batch == nullptr
                                    ? stream_->writer->WriteMetadata(std::move(metadata))
                                    : stream_->writer->WriteWithMetadata(*sent.batch, std::move(metadata));
  if (!written.ok()) return Explain(written);
  const auto queue_empty = [&] {
    std::lock_guard lock(mutex_);
    return queue_.empty();
  };
  while (unacknowledged_.size() >= options_.window_chunks || (!unacknowledged_.empty() && queue_empty())) {
    ARROW_RETURN_NOT_OK(ReadAck());
  }
  return arrow::Status::OK();
}

arrow::Status PeerLink::OpenStream(const std::shared_ptr<arrow::Schema>& schema) {
  flight::FlightCallOptions call;
  call.timeout = flight::TimeoutDuration(BoundedSeconds(options_.stream_timeout_s));
  ARROW_ASSIGN_OR_RAISE(const auto client, connect_());
  auto opened = client->DoPut(call, flight::FlightDescriptor::Path({"sabot", "chunks"}), schema);
  if (!opened.ok()) return Explain(opened.status());
  stream_ = std::make_unique<Stream>(
      Stream{std::move(opened->writer), std::move(opened->reader), std::chrono::steady_clock::now()});
  return arrow::Status::OK();
}

arrow::Status PeerLink::ReadAck() {
  std::shared_ptr<arrow::Buffer> bytes;
  const arrow::Status read = stream_->reader->ReadMetadata(&bytes);
  if (!read.ok()) return Explain(read);
  if (bytes == nullptr) return Explain(arrow::Status::IOError("the stream ended before the acknowledgement"));
  ARROW_ASSIGN_OR_RAISE(const Ack ack, DecodeAck(bytes->ToString()));
  const Ack& awaited = unacknowledged_.front().awaited;
  if (std::tie(ack.kind, ack.task, ack.attempt, ack.sequence) !=
      std::tie(awaited.kind, awaited.task, awaited.attempt, awaited.sequence)) {
    return MakeStatus(Code::kPeerRefused, "Agent " + options_.peer +
                                              " acknowledged another message than it was sent. Run the same Sabot on "
                                              "every agent (address=" +
                                              options_.peer + ")");
  }
  Outgoing answered = std::move(unacknowledged_.front());
  unacknowledged_.pop_front();
  answered.listener->Acknowledged(options_.peer, ack);
  return arrow::Status::OK();
}

arrow::Status PeerLink::CloseStream() {
  if (stream_ == nullptr) return arrow::Status::OK();
  while (!unacknowledged_.empty()) ARROW_RETURN_NOT_OK(ReadAck());
  const std::unique_ptr<Stream> closing = std::move(stream_);
  // Everything is acknowledged: how the stream itself ends says nothing more.
  (void)closing->writer->DoneWriting();
  (void)closing->writer->Close();
  return arrow::Status::OK();
}

arrow::Status PeerLink::Explain(const arrow::Status& symptom) {
  arrow::Status cause = symptom;
  if (stream_ != nullptr) {
    const arrow::Status closed = stream_->writer->Close();
    if (!closed.ok()) cause = closed;
    stream_.reset();
  }
  if (const Code code = CodeOf(cause); code != Code::kOther) return MakeStatus(code, PlainMessage(cause));
  return MakeStatus(Code::kPeerLost, "Agent " + options_.peer +
                                         " broke off while it was being sent to, or did not answer " + "within " +
                                         std::to_string(static_cast<int>(options_.stream_timeout_s)) +
                                         " s: " + cause.message() + " (address=" + options_.peer + ")");
}

void PeerLink::Fail(const arrow::Status& status) {
  std::deque<Outgoing> lost = std::move(unacknowledged_);
  unacknowledged_.clear();
  stream_.reset();
  {
    std::lock_guard lock(mutex_);
    if (failure_.ok()) failure_ = status;
    for (Outgoing& message : queue_) lost.push_back(std::move(message));
    queue_.clear();
  }
  for (const Outgoing& message : lost) message.listener->Undelivered(options_.peer, status);
}

}  // namespace sabot::shuffle

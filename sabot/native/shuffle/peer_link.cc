#include "sabot/native/shuffle/peer_link.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "sabot/native/shuffle/chunk_store.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {

namespace flight = arrow::flight;

PeerLink::PeerLink(Connect connect, Options options)
    : connect_(std::move(connect)),
      options_(std::move(options)),
      window_(options_.peer, options_.window_chunks),
      thread_([this] { Loop(); }) {}

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
      window_.Add(std::move(message));
      changed_.notify_one();
      return;
    }
  }
  message.listener->Undelivered(options_.peer, failure);
}

bool PeerLink::WaitForWork() {
  std::unique_lock lock(mutex_);
  const auto ready = [&] { return stopping_ || !window_.empty(); };
  if (stream_ != nullptr) {
    changed_.wait_for(lock, std::chrono::duration<double>(options_.idle_s), ready);
  } else {
    changed_.wait(lock, ready);
  }
  return !stopping_ && !window_.empty();
}

bool PeerLink::WaitToRetry(std::chrono::milliseconds pause) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, pause, [&] { return stopping_; });
}

void PeerLink::Loop() {
  (void)pthread_setname_np(pthread_self(), "shuffle-link");  // else it, and gRPC's threads, go by its maker's: a slot's
  while (true) {
    arrow::Status status;
    if (WaitForWork()) {
      if (stream_ == nullptr && retries_ == 0) alive_at_ = Clock::now();
      status = SendWhatMayBe();
    } else {
      status = CloseStream();
      std::lock_guard lock(mutex_);
      if (stopping_) break;
    }
    if (!status.ok() && !Resume(status)) Fail(status);
  }
  Fail(MakeStatus(Code::kCancelled, "The shuffle was ended while it was being sent."));
  ended_.store(true, std::memory_order_release);
}

bool PeerLink::Resume(const arrow::Status& trouble) {
  if (!broken_ || CodeOf(trouble) != Code::kPeerLost) return false;
  const auto give_up_at = alive_at_ + std::chrono::duration<double>(BoundedSeconds(options_.resume_s));
  if (Clock::now() >= give_up_at) return false;
  WithWindow([](SendWindow& window) { return window.Rewind(); });
  const auto pause = std::chrono::milliseconds(10) * (1 << std::min(retries_, 5));
  ++retries_;
  return WaitToRetry(pause);
}

arrow::Status PeerLink::SendWhatMayBe() {
  const auto age_max = std::chrono::duration<double>(options_.stream_timeout_s / 3);
  if (stream_ != nullptr && Clock::now() - stream_->opened_at > age_max) ARROW_RETURN_NOT_OK(CloseStream());
  while (true) {
    // The message stays where it is until it is acknowledged, which only this thread does.
    const Outgoing* message = WithWindow([&](SendWindow& window) { return stopping_ ? nullptr : window.Write(); });
    if (message != nullptr) {
      ARROW_RETURN_NOT_OK(Write(*message));
      continue;
    }
    if (WithWindow([](const SendWindow& window) { return window.unacknowledged() == 0; })) return arrow::Status::OK();
    ARROW_RETURN_NOT_OK(ReadAck());
    if (Clock::now() - stream_->opened_at > age_max) return CloseStream();
  }
}

arrow::Status PeerLink::Write(const Outgoing& message) {
  if (stream_ == nullptr) ARROW_RETURN_NOT_OK(OpenStream(message.schema));
  auto metadata = arrow::Buffer::FromString(message.header);
  const arrow::Status written = message.batch == nullptr
                                    ? stream_->writer->WriteMetadata(std::move(metadata))
                                    : stream_->writer->WriteWithMetadata(*message.batch, std::move(metadata));
  if (!written.IsInvalid() && !written.IsCapacityError()) return written.ok() ? written : Explain(written);
  // Not the way's fault but the message's: again it would fail again.
  broken_ = false;
  (void)stream_->writer->Close();
  stream_.reset();
  return MakeStatus(Code::kLimit, "A chunk for agent " + options_.peer + " cannot be sent: " + written.message() +
                                      ". Give it smaller values, or fewer rows at a time (address=" + options_.peer +
                                      ")");
}

arrow::Status PeerLink::OpenStream(const std::shared_ptr<arrow::Schema>& schema) {
  flight::FlightCallOptions call;
  call.timeout = flight::TimeoutDuration(BoundedSeconds(options_.stream_timeout_s));
  ARROW_ASSIGN_OR_RAISE(const auto client, connect_());
  auto opened = client->DoPut(call, flight::FlightDescriptor::Path({"sabot", "chunks"}), schema);
  if (!opened.ok()) return Explain(opened.status());
  stream_ = std::make_unique<Stream>(Stream{std::move(opened->writer), std::move(opened->reader), Clock::now()});
  return arrow::Status::OK();
}

arrow::Status PeerLink::ReadAck() {
  std::shared_ptr<arrow::Buffer> bytes;
  const arrow::Status read = stream_->reader->ReadMetadata(&bytes);
  if (!read.ok()) return Explain(read);
  if (bytes == nullptr) return Explain(arrow::Status::IOError("the stream ended before the acknowledgement"));
  broken_ = false;  // it speaks: what it says now is its word
  ARROW_ASSIGN_OR_RAISE(const Ack ack, DecodeAck(bytes->ToString()));
  ARROW_ASSIGN_OR_RAISE(const Outgoing answered,
                        WithWindow([&](SendWindow& window) { return window.Acknowledge(ack); }));
  alive_at_ = Clock::now();
  retries_ = 0;
  answered.listener->Acknowledged(options_.peer, ack);
  return arrow::Status::OK();
}

arrow::Status PeerLink::CloseStream() {
  if (stream_ == nullptr) return arrow::Status::OK();
  while (WithWindow([](const SendWindow& window) { return window.unacknowledged() > 0; })) {
    ARROW_RETURN_NOT_OK(ReadAck());
  }
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
  const Code code = CodeOf(cause);
  broken_ = code == Code::kOther;
  if (!broken_) return MakeStatus(code, PlainMessage(cause));
  return MakeStatus(Code::kPeerLost, "Agent " + options_.peer +
                                         " broke off while it was being sent to, or did not answer " + "within " +
                                         std::to_string(static_cast<int>(options_.stream_timeout_s)) +
                                         " s: " + cause.message() + " (address=" + options_.peer + ")");
}

void PeerLink::Fail(const arrow::Status& status) {
  std::deque<Outgoing> lost;
  stream_.reset();
  {
    std::lock_guard lock(mutex_);
    if (failure_.ok()) failure_ = status;
    failed_.store(true, std::memory_order_release);
    lost = window_.Clear();
  }
  for (const Outgoing& message : lost) message.listener->Undelivered(options_.peer, status);
}

}  // namespace sabot::shuffle

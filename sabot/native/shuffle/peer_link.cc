#include "sabot/native/shuffle/peer_link.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "sabot/native/shuffle/chunk_store.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {

namespace {

arrow::flight::FlightCallOptions CallOptions(const PeerLink::Options& options) {
  arrow::flight::FlightCallOptions call;
  call.timeout = arrow::flight::TimeoutDuration(BoundedSeconds(options.outbox.stream_timeout_s));
  call.write_options.use_threads = false;  // it is for the stream's own thread to compress
  call.write_options.codec = options.codec;
  call.write_options.min_space_savings = 0.1;  // less is not worth the receiver's work
  return call;
}

}  // namespace

PeerLink::PeerLink(OutboxStream::Connect connect, Options options)
    : connect_(std::move(connect)), options_(std::move(options)), outbox_(std::make_shared<Outbox>(options_.outbox)) {}

PeerLink::~PeerLink() {
  Stop();
  decltype(streams_) streams;
  {
    std::lock_guard lock(mutex_);
    streams.swap(streams_);
  }
  streams.clear();  // joins, outside the lock
  FailLeft();
}

void PeerLink::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  outbox_->Stop();
}

bool PeerLink::ended() {
  std::lock_guard lock(mutex_);
  return stopping_ && std::ranges::all_of(streams_, [](const auto& stream) { return stream->ended(); });
}

void PeerLink::Enqueue(Outgoing message) {
  if (!outbox_->Add(std::move(message))) return;
  Grow();
  // Between the two the link may have been stopped: then no stream may be left to fail the message.
  if (ended()) FailLeft();
}

void PeerLink::FailLeft() {
  outbox_->Fail(MakeStatus(Code::kCancelled, "The shuffle was ended while it was being sent."));
}

void PeerLink::Grow() {
  size_t next = 0;
  {
    std::lock_guard lock(mutex_);
    next = streams_.size();
  }
  if (next >= options_.outbox.streams || !outbox_->Needs(next)) return;
  try {
    std::lock_guard lock(mutex_);
    if (stopping_ || streams_.size() != next) return;
    streams_.push_back(std::make_unique<OutboxStream>(
        outbox_.get(),
        OutboxStream::Options{next, connect_, CallOptions(options_), options_.sender, [this] { Grow(); }}));
  } catch (const std::system_error&) {
    // One stream carries everything, though slower; without any the rows would wait for ever.
    if (next == 0) outbox_->Fail(MakeNoThread("Chunks cannot be sent to agent " + options_.outbox.peer));
  }
}

}  // namespace sabot::shuffle

#include "sabot/native/shuffle/outbox.h"

#include <algorithm>
#include <utility>

#include "sabot/native/shuffle/chunk_store.h"
#include "sabot/native/status.h"

namespace sabot::shuffle {

namespace {

arrow::Status Ended() { return MakeStatus(Code::kCancelled, "The shuffle was ended while it was being sent."); }

}  // namespace

Outbox::Outbox(Options options)
    : options_(std::move(options)),
      window_(options_.peer, options_.streams, options_.window_chunks),
      streams_(options_.streams) {}

bool Outbox::Add(Outgoing message) {
  arrow::Status failure;
  {
    std::lock_guard lock(mutex_);
    failure = stopping_ && failure_.ok() ? Ended() : failure_;
    if (failure.ok()) {
      window_.Add(std::move(message));
      changed_.notify_all();
      return true;
    }
  }
  message.listener->Undelivered(options_.peer, failure);
  return false;
}

void Outbox::Stop() {
  std::lock_guard lock(mutex_);
  stopping_ = true;
  changed_.notify_all();
}

Turn Outbox::WaitTurn(size_t stream, SendWindow::Message* message) {
  const auto age_max = std::chrono::duration<double>(options_.stream_timeout_s / 3);
  std::unique_lock lock(mutex_);
  const auto idle_at = Clock::now() + std::chrono::duration<double>(options_.idle_s);
  Stream& own = streams_[stream];
  while (true) {
    if (own.symptom) return Turn::kExplain;
    const auto now = Clock::now();
    const bool quiet = window_.unacknowledged(stream) == 0;
    const bool ending = stopping_ || !failure_.ok();
    const bool old = own.open && now - own.opened_at > age_max;
    if (stopping_ && !own.open) return Turn::kEnd;
    if (!ending && !old && window_.may_write(stream)) {
      *message = window_.Write(stream);
      changed_.notify_all();  // the next stream may be needed now
      return Turn::kWrite;
    }
    if (own.open && quiet && (ending || old || now >= idle_at)) return Turn::kClose;
    if (own.open && quiet) {
      changed_.wait_until(lock, idle_at);
    } else {
      changed_.wait(lock);  // an open stream that is not quiet ends at its deadline
    }
  }
}

bool Outbox::Needs(size_t stream) {
  std::lock_guard lock(mutex_);
  return !stopping_ && failure_.ok() && window_.may_write(stream);
}

void Outbox::Opening(size_t stream) {
  std::lock_guard lock(mutex_);
  if (streams_[stream].retries == 0) alive_at_ = Clock::now();
}

void Outbox::Opened(size_t stream) {
  std::lock_guard lock(mutex_);
  Stream& own = streams_[stream];
  own.open = true;
  own.opened_at = Clock::now();
  own.symptom.reset();
}

void Outbox::Closed(size_t stream) {
  std::lock_guard lock(mutex_);
  streams_[stream].open = false;
  streams_[stream].symptom.reset();
}

arrow::Status Outbox::Answered(size_t stream, std::string_view bytes) {
  ARROW_ASSIGN_OR_RAISE(const Ack ack, DecodeAck(bytes));
  SendWindow::Message answered;
  {
    std::lock_guard lock(mutex_);
    if (!failure_.ok()) return arrow::Status::OK();  // its messages are undelivered already
    ARROW_ASSIGN_OR_RAISE(answered, window_.Acknowledge(stream, ack));
    alive_at_ = Clock::now();
    streams_[stream].retries = 0;
    changed_.notify_all();
  }
  answered->listener->Acknowledged(options_.peer, ack);
  return arrow::Status::OK();
}

void Outbox::Broke(size_t stream, const arrow::Status& symptom) {
  std::lock_guard lock(mutex_);
  Stream& own = streams_[stream];
  if (own.open && !own.symptom) own.symptom = symptom;
  changed_.notify_all();
}

arrow::Status Outbox::SymptomOf(size_t stream) {
  std::lock_guard lock(mutex_);
  return streams_[stream].symptom.value_or(arrow::Status::OK());
}

bool Outbox::WaitToRetry(size_t stream) {
  std::unique_lock lock(mutex_);
  Stream& own = streams_[stream];
  const auto give_up_at = alive_at_ + std::chrono::duration<double>(BoundedSeconds(options_.resume_s));
  if (Clock::now() >= give_up_at) return false;
  window_.Rewind(stream);
  const auto pause = std::chrono::milliseconds(10) * (1 << std::min(own.retries, 5));
  ++own.retries;
  return !changed_.wait_for(lock, pause, [&] { return stopping_ || !failure_.ok(); });
}

void Outbox::Fail(const arrow::Status& status) {
  std::vector<SendWindow::Message> lost;
  arrow::Status why;
  {
    std::lock_guard lock(mutex_);
    if (failure_.ok()) failure_ = status;
    failed_.store(true, std::memory_order_release);
    why = failure_;
    lost = window_.Clear();
    changed_.notify_all();
  }
  for (const SendWindow::Message& message : lost) message->listener->Undelivered(options_.peer, why);
}

}  // namespace sabot::shuffle

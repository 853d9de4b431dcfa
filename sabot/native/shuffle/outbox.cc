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
  const auto rows = message.rows;
  if (options_.ledger != nullptr && rows != nullptr) options_.ledger->Hold(memory::Account::kOutbox, rows->held());
  arrow::Status failure;
  {
    std::lock_guard lock(mutex_);
    failure = stopping_ && failure_.ok() ? Ended() : failure_;
    if (failure.ok()) {
      window_.Add(std::move(message));
      changed_.notify_all();
    }
  }
  if (failure.ok()) {
    if (options_.ledger != nullptr) options_.ledger->TellFreeable();
    return true;
  }
  Drop(message);
  message.listener->Undelivered(options_.peer, failure);
  return false;
}

void Outbox::Drop(const Outgoing& message) const {
  const int64_t bytes = message.rows == nullptr ? 0 : message.rows->TakeHeld();
  if (options_.ledger != nullptr && bytes > 0) options_.ledger->Drop(memory::Account::kOutbox, bytes);
}

int64_t Outbox::BytesForDisk() {
  std::lock_guard lock(mutex_);
  int64_t bytes = 0;
  for (const SendWindow::Message& message : window_.queued()) {
    if (message->rows != nullptr && !message->rows->claimed()) bytes += message->rows->held();
  }
  return bytes;
}

std::vector<SendWindow::Message> Outbox::ClaimForDisk(int64_t bytes) {
  std::vector<SendWindow::Message> claimed;
  std::lock_guard lock(mutex_);
  const auto& queued = window_.queued();
  for (auto message = queued.rbegin(); message != queued.rend() && bytes > 0; ++message) {
    if ((*message)->rows == nullptr || !(*message)->rows->ClaimForDisk()) continue;
    bytes -= (*message)->rows->held();
    claimed.push_back(*message);
  }
  return claimed;
}

bool Outbox::Pause(std::chrono::milliseconds pause) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, pause, [&] { return stopping_ || !failure_.ok(); });
}

void Outbox::Stop() {
  std::lock_guard lock(mutex_);
  stopping_ = true;
  changed_.notify_all();
}

std::optional<Outbox::Step> Outbox::NextLocked(size_t stream, Clock::time_point now) {
  Stream& own = streams_[stream];
  SendWindow::Message next = window_.Next(stream);
  if (next == nullptr) return std::nullopt;
  if (!own.open) return Step{Turn::kOpen, std::move(next), 0};
  if (SendWindow::Message message = window_.Write(stream)) {
    own.starved_at.reset();
    written_at_ = now;
    changed_.notify_all();  // the next stream may be needed now
    return Step{Turn::kWrite, std::move(message), 0};
  }
  if (own.asking) return std::nullopt;
  const uint64_t credit = window_.CreditFor(*next, stream);
  if (!own.starved_at) own.starved_at = now;
  const auto since = std::max(*own.starved_at, written_at_);  // what goes over other streams is a sign that it goes on
  const auto starved_max = std::chrono::duration<double>(BoundedSeconds(options_.stream_timeout_s));
  if (now - since > starved_max) return Step{Turn::kStarved, nullptr, 0};
  own.asking = true;
  return Step{Turn::kAsk, nullptr, credit};
}

Outbox::Step Outbox::WaitTurn(size_t stream) {
  const auto age_max = std::chrono::duration<double>(BoundedSeconds(options_.stream_timeout_s) / 3);
  std::unique_lock lock(mutex_);
  const auto idle_at = Clock::now() + std::chrono::duration<double>(options_.idle_s);
  Stream& own = streams_[stream];
  while (true) {
    if (own.symptom) return {Turn::kExplain, nullptr, 0};
    if (stopping_ && !own.open) return {Turn::kEnd, nullptr, 0};
    const auto now = Clock::now();
    const bool ending = stopping_ || !failure_.ok();
    const bool old = own.open && now - own.opened_at > age_max;
    if (!ending && !old) {
      if (auto step = NextLocked(stream, now)) return *std::move(step);
    }
    const bool quiet = window_.unacknowledged(stream) == 0 && !own.asking;
    if (own.open && quiet && (ending || old || now >= idle_at)) return {Turn::kClose, nullptr, 0};
    if (own.open && quiet) {
      changed_.wait_until(lock, idle_at);
    } else {
      changed_.wait(lock);  // an open stream that is not quiet ends at its deadline
    }
  }
}

bool Outbox::Needs(size_t stream) {
  std::lock_guard lock(mutex_);
  return !stopping_ && failure_.ok() && window_.Next(stream) != nullptr;
}

void Outbox::Opening(size_t stream) {
  std::lock_guard lock(mutex_);
  if (streams_[stream].retries == 0) alive_at_ = Clock::now();
}

void Outbox::Opened(size_t stream) {
  std::lock_guard lock(mutex_);
  Stream& own = streams_[stream];
  own.open = true;
  own.asking = true;  // the peer begins with what it grants
  own.opened_at = Clock::now();
  window_.Opened(stream);
  own.symptom.reset();
}

void Outbox::Closed(size_t stream) {
  std::lock_guard lock(mutex_);
  streams_[stream].open = false;
  streams_[stream].asking = false;
  streams_[stream].symptom.reset();
}

arrow::Status Outbox::AnsweredLocked(size_t stream, const Ack& ack, SendWindow::Message* answered) {
  Stream& own = streams_[stream];
  if (ack.kind == MessageKind::kCredit) {
    if (!own.asking)
      return MakeStatus(Code::kPeerRefused, "Agent " + options_.peer + " answered what it was not asked.");
    own.asking = false;
    if (ack.code != 0) return MakeStatus(static_cast<Code>(ack.code), ack.message);
  } else {
    ARROW_ASSIGN_OR_RAISE(*answered, window_.Acknowledge(stream, ack));
  }
  window_.Granted(stream, ack.granted);
  alive_at_ = Clock::now();
  own.retries = 0;
  changed_.notify_all();
  return arrow::Status::OK();
}

arrow::Status Outbox::Answered(size_t stream, std::string_view bytes) {
  ARROW_ASSIGN_OR_RAISE(const Ack ack, DecodeAck(bytes));
  SendWindow::Message answered;
  {
    std::lock_guard lock(mutex_);
    if (!failure_.ok()) return arrow::Status::OK();  // its messages are undelivered already
    ARROW_RETURN_NOT_OK(AnsweredLocked(stream, ack, &answered));
  }
  if (answered == nullptr) return arrow::Status::OK();
  Drop(*answered);
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
  for (const SendWindow::Message& message : lost) {
    Drop(*message);
    message->listener->Undelivered(options_.peer, why);
  }
}

}  // namespace sabot::shuffle

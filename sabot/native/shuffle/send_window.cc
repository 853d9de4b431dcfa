#include "sabot/native/shuffle/send_window.h"

#include <algorithm>
#include <tuple>

#include "sabot/native/status.h"

namespace sabot::shuffle {

void SendWindow::Add(Outgoing message) {
  auto added = std::make_shared<const Outgoing>(std::move(message));
  const AttemptId id = IdOf(added->awaited);
  if (added->awaited.kind == MessageKind::kChunk) {
    ++attempts_[id].chunks;
  } else if (const auto found = attempts_.find(id); found != attempts_.end()) {
    found->second.manifest = std::move(added);
    return;
  }
  queue_.push_back(std::move(added));
}

void SendWindow::Opened(size_t stream) {
  streams_[stream].granted = 0;
  streams_[stream].spent = 0;
}

void SendWindow::Granted(size_t stream, uint64_t total) {
  Stream& own = streams_[stream];
  own.granted = std::max(own.granted, total);
}

SendWindow::Message SendWindow::Next(size_t stream) const {
  const Stream& own = streams_[stream];
  if (own.written < own.messages.size()) return own.messages[own.written];
  const auto full = [&](const Stream& of) { return of.messages.size() >= chunks_; };
  const auto end = streams_.begin() + static_cast<ptrdiff_t>(stream);
  return queue_.empty() || full(own) || !std::all_of(streams_.begin(), end, full) ? nullptr : queue_.front();
}

SendWindow::Message SendWindow::Write(size_t stream) {
  Message next = Next(stream);
  Stream& own = streams_[stream];
  if (next == nullptr || CreditFor(*next, stream) > own.granted) return nullptr;
  if (own.written == own.messages.size()) {
    own.messages.push_back(next);
    queue_.pop_front();
  }
  ++own.written;
  own.spent += next->bytes;
  return next;
}

arrow::Result<SendWindow::Message> SendWindow::Acknowledge(size_t stream, const Ack& ack) {
  const auto place = [](const Ack& of) { return std::tie(of.kind, of.task, of.attempt, of.sequence); };
  Stream& own = streams_[stream];
  if (own.written == 0 || place(ack) != place(own.messages.front()->awaited)) {
    return MakeStatus(Code::kPeerRefused, "Agent " + peer_ +
                                              " acknowledged another message than it was sent. Run the same Sabot on "
                                              "every agent (address=" +
                                              peer_ + ")");
  }
  Message answered = std::move(own.messages.front());
  own.messages.pop_front();
  --own.written;
  if (ack.kind == MessageKind::kChunk) {
    const auto found = attempts_.find(IdOf(ack));
    if (--found->second.chunks == 0) {
      if (found->second.manifest != nullptr) queue_.push_front(std::move(found->second.manifest));
      attempts_.erase(found);
    }
  }
  return answered;
}

std::vector<SendWindow::Message> SendWindow::Clear() {
  std::vector<Message> all;
  for (Stream& stream : streams_) {
    all.insert(all.end(), stream.messages.begin(), stream.messages.end());
    stream = {};
  }
  all.insert(all.end(), queue_.begin(), queue_.end());
  queue_.clear();
  for (auto& [id, attempt] : attempts_) {
    if (attempt.manifest != nullptr) all.push_back(std::move(attempt.manifest));
  }
  attempts_.clear();
  return all;
}

bool SendWindow::empty() const {
  // A manifest that is held back waits for chunks that some stream has.
  return queue_.empty() && std::ranges::all_of(streams_, [](const Stream& stream) { return stream.messages.empty(); });
}

}  // namespace sabot::shuffle

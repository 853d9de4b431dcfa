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

bool SendWindow::may_write(size_t stream) const {
  const Stream& own = streams_[stream];
  if (own.written < own.messages.size()) return true;
  const auto full = [&](const Stream& of) { return of.messages.size() >= chunks_; };
  return !queue_.empty() && !full(own) &&
         std::all_of(streams_.begin(), streams_.begin() + static_cast<ptrdiff_t>(stream), full);
}

SendWindow::Message SendWindow::Write(size_t stream) {
  if (!may_write(stream)) return nullptr;
  Stream& own = streams_[stream];
  if (own.written == own.messages.size()) {
    own.messages.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  return own.messages[own.written++];
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

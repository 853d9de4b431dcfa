#include "sabot/native/shuffle/send_window.h"

#include <tuple>
#include <utility>

#include "sabot/native/status.h"

namespace sabot::shuffle {

const Outgoing* SendWindow::Write() { return may_write() ? &messages_[written_++] : nullptr; }

arrow::Result<Outgoing> SendWindow::Acknowledge(const Ack& ack) {
  const auto place = [](const Ack& of) { return std::tie(of.kind, of.task, of.attempt, of.sequence); };
  if (written_ == 0 || place(ack) != place(messages_.front().awaited)) {
    return MakeStatus(Code::kPeerRefused, "Agent " + peer_ +
                                              " acknowledged another message than it was sent. Run the same Sabot on "
                                              "every agent (address=" +
                                              peer_ + ")");
  }
  Outgoing answered = std::move(messages_.front());
  messages_.pop_front();
  --written_;
  return answered;
}

std::deque<Outgoing> SendWindow::Clear() {
  written_ = 0;
  return std::exchange(messages_, {});
}

}  // namespace sabot::shuffle

// What one outbox has queued, what of it is written and not acknowledged, and what a broken stream means for it. A
// state machine without I/O, clock, lock or rows' contents.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <deque>
#include <memory>
#include <string>

#include "sabot/native/shuffle/chunk_header.h"

namespace sabot::shuffle {

class DeliveryListener;

/// A chunk, or a manifest where `batch` is null.
struct Outgoing {
  std::string header;
  Ack awaited;  // what confirms it
  std::shared_ptr<arrow::RecordBatch> batch;
  std::shared_ptr<arrow::Schema> schema;
  std::shared_ptr<DeliveryListener> listener;
};

class SendWindow {
 public:
  /// At most `chunks` are written and not acknowledged: gRPC swallows tens of MB per stream that no one counts.
  SendWindow(std::string peer, size_t chunks) : peer_(std::move(peer)), chunks_(chunks) {}

  void Add(Outgoing message) { messages_.push_back(std::move(message)); }

  /// The next message to be written, which then counts as written; null where there is none or the window is full.
  /// Valid until it is acknowledged or Clear is called.
  const Outgoing* Write();
  /// The peer has answered; the message that was waited for longest, which is done with. kPeerRefused where the answer
  /// is for another.
  arrow::Result<Outgoing> Acknowledge(const Ack& ack);
  /// The stream broke. What is not acknowledged may have arrived or not: all of it is to be written again, in order,
  /// and the peer drops what it has.
  void Rewind() { written_ = 0; }
  /// Everything, given up.
  std::deque<Outgoing> Clear();

  bool empty() const { return messages_.empty(); }
  bool may_write() const { return written_ < messages_.size() && written_ < chunks_; }
  size_t unacknowledged() const { return written_; }

 private:
  const std::string peer_;
  const size_t chunks_;
  std::deque<Outgoing> messages_;  // not acknowledged, in order
  size_t written_ = 0;             // the first so many of them
};

}  // namespace sabot::shuffle

// What one outbox has queued, which of its streams carries what, and what a broken stream means for it. A state machine
// without I/O, clock, lock or rows' contents.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "sabot/native/shuffle/chunk_header.h"
#include "sabot/native/shuffle/waiting_rows.h"

namespace sabot::shuffle {

class DeliveryListener;

/// A chunk, or a manifest where `rows` is null.
struct Outgoing {
  std::string header;
  Ack awaited;                              // what confirms it
  std::shared_ptr<const WaitingRows> rows;  // shared with who writes them to disk
  std::shared_ptr<arrow::Schema> schema;
  std::shared_ptr<DeliveryListener> listener;
  uint64_t bytes = 0;  // of credit that it takes
};

class SendWindow {
 public:
  using Message = std::shared_ptr<const Outgoing>;  // shared with the thread that writes it, while Clear may come

  /// Of each stream at most `chunks` are written and not acknowledged: gRPC swallows tens of MB per stream that no one
  /// counts.
  SendWindow(std::string peer, size_t streams, size_t chunks)
      : peer_(std::move(peer)), chunks_(chunks), streams_(streams) {}

  /// A manifest is held back until every chunk of its attempt is acknowledged, since another stream may overtake them.
  void Add(Outgoing message);

  /// A DoPut of `stream` begins, without credit.
  void Opened(size_t stream);
  /// The peer grants it so much in all, counted from there.
  void Granted(size_t stream, uint64_t total);

  /// What `stream` is to write next; null where there is nothing for it. A stream takes a new message only where those
  /// before it are full, so that the last ones fall idle and close.
  Message Next(size_t stream) const;
  /// As Next, and it counts as written; null too where the stream's credit is too small for it.
  Message Write(size_t stream);
  /// How much must be granted in all before what is next can be written.
  uint64_t CreditFor(const Outgoing& next, size_t stream) const { return streams_[stream].spent + next.bytes; }

  /// The peer has answered on `stream`; the message that had waited for longest there, which is done with. kPeerRefused
  /// where the answer is for another.
  arrow::Result<Message> Acknowledge(size_t stream, const Ack& ack);
  /// The stream broke. What is not acknowledged may have arrived or not: all of it is to be written there again, in
  /// order, and the peer drops what it has.
  void Rewind(size_t stream) { streams_[stream].written = 0; }
  /// Everything, given up.
  std::vector<Message> Clear();

  /// What no stream has taken yet, in the order in which it will be.
  const std::deque<Message>& queued() const { return queue_; }
  bool empty() const;
  size_t unacknowledged(size_t stream) const { return streams_[stream].written; }

 private:
  struct Stream {
    std::deque<Message> messages;  // not acknowledged, in order
    size_t written = 0;            // the first so many of them
    uint64_t granted = 0;          // both since the DoPut began
    uint64_t spent = 0;
  };
  struct Attempt {
    size_t chunks = 0;  // not acknowledged, queued ones included
    Message manifest;   // held back until there are none; may be null
  };
  using AttemptId = std::pair<uint32_t, uint32_t>;
  static AttemptId IdOf(const Ack& ack) { return {ack.task, ack.attempt}; }

  const std::string peer_;
  const size_t chunks_;
  std::deque<Message> queue_;  // of no stream yet
  std::vector<Stream> streams_;
  std::map<AttemptId, Attempt> attempts_;  // those with chunks that are not acknowledged
};

}  // namespace sabot::shuffle

// One stream of an outbox: a thread that opens Flight DoPuts and writes to them, and beside it, while one is open, a
// thread that reads the acknowledgements, so that neither waits for the other. A broken DoPut is resumed by the next.
#pragma once

#include <arrow/flight/client.h>

#include <atomic>
#include <functional>
#include <memory>
#include <thread>

#include "sabot/native/shuffle/outbox.h"

namespace sabot::shuffle {

class OutboxStream {
 public:
  /// Called on the stream's thread, so that a slot that needs a link does not connect itself.
  using Connect = std::function<arrow::Result<std::shared_ptr<arrow::flight::FlightClient>>(size_t stream)>;

  struct Options {
    size_t index = 0;
    Connect connect;
    arrow::flight::FlightCallOptions call;  // the deadline, and how batches are written
    std::string sender;                     // by which the peer knows our streams as one sender's
    std::function<void()> more_is_queued;   // called when a message has been taken and others wait
  };

  /// `outbox` must outlive the stream.
  OutboxStream(Outbox* outbox, Options options);

  /// True once the thread has ended after the outbox was stopped, so that destruction does not wait.
  bool ended() const { return ended_.load(std::memory_order_acquire); }  // pairs with the release at the end of Loop

 private:
  struct Call {
    std::shared_ptr<arrow::flight::FlightClient> client;  // shared with DataClient until that leaves it
    std::unique_ptr<arrow::flight::FlightStreamWriter> writer;
    std::unique_ptr<arrow::flight::FlightMetadataReader> reader;
    std::jthread acknowledgements;  // last: it uses the reader
  };

  void Loop();
  arrow::Status Take(const Outbox::Step& step);
  arrow::Status Starved() const;
  void ReadAcknowledgements(arrow::flight::FlightMetadataReader* reader);
  arrow::Status Write(const Outgoing& message);
  /// The rows, as soon as there is memory for those that are on disk.
  arrow::Result<std::shared_ptr<arrow::RecordBatch>> Load(const WaitingRows& rows) const;
  arrow::Status Open(const std::shared_ptr<arrow::Schema>& schema);
  /// Closes the DoPut, if one is open, and says how the peer ended it. Waits for the peer, to the deadline at most.
  arrow::Status Close();
  /// Whether the trouble is over, for now: what is not acknowledged will be sent again. Otherwise the link has failed.
  void Resume(const arrow::Status& symptom);

  Outbox* const outbox_;
  const Options options_;
  std::unique_ptr<Call> call_;  // the thread's own
  std::atomic<bool> ended_{false};
  std::jthread thread_;  // last: it uses all of the above
};

}  // namespace sabot::shuffle

// The outbox of one peer for one shuffle, and the thread that empties it over Flight DoPut. Enqueue never waits; the
// thread waits for the peer, with a deadline on every stream. A link that has failed stays failed.
#pragma once

#include <arrow/flight/client.h>
#include <arrow/record_batch.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "sabot/native/shuffle/chunk_header.h"

namespace sabot::shuffle {

/// Hears what became of its messages, on the link's thread.
class DeliveryListener {
 public:
  virtual ~DeliveryListener() = default;
  virtual void Acknowledged(const std::string& peer, const Ack& ack) = 0;
  virtual void Undelivered(const std::string& peer, const arrow::Status& status) = 0;
};

/// A chunk, or a manifest where `batch` is null.
struct Outgoing {
  std::string header;
  Ack awaited;  // what confirms it
  std::shared_ptr<arrow::RecordBatch> batch;
  std::shared_ptr<arrow::Schema> schema;
  std::shared_ptr<DeliveryListener> listener;
};

class PeerLink {
 public:
  struct Options {
    std::string peer;                // host:port, for messages
    double stream_timeout_s = 30.0;  // the deadline of each DoPut; streams are changed at a third of it
    double idle_s = 1.0;             // an idle stream is closed after this
    size_t window_chunks = 2;        // unacknowledged at most: gRPC swallows tens of MB per stream that no one counts
  };

  /// Called on the link's thread, so that a slot that needs a link does not connect itself.
  using Connect = std::function<arrow::Result<std::shared_ptr<arrow::flight::FlightClient>>()>;

  PeerLink(Connect connect, Options options);
  /// Lets go of what is not sent and joins the thread, which takes up to the stream's deadline at a frozen peer.
  ~PeerLink();

  void Enqueue(Outgoing message);
  /// Asks the thread to end: what is queued is undelivered. Returns at once.
  void Stop();
  /// True once the thread has ended after Stop, so that destruction does not wait.
  bool ended() const { return ended_.load(std::memory_order_acquire); }  // pairs with the release at the end of Loop

 private:
  struct Stream {
    std::unique_ptr<arrow::flight::FlightStreamWriter> writer;
    std::unique_ptr<arrow::flight::FlightMetadataReader> reader;
    std::chrono::steady_clock::time_point opened_at;
  };

  void Loop();
  bool Next(Outgoing* message, bool stream_open);
  arrow::Status Deliver(Outgoing message);
  arrow::Status OpenStream(const std::shared_ptr<arrow::Schema>& schema);
  arrow::Status ReadAck();
  arrow::Status CloseStream();
  /// What the peer said when it ended the stream, or PeerLost.
  arrow::Status Explain(const arrow::Status& symptom);
  void Fail(const arrow::Status& status);

  const Connect connect_;
  const Options options_;

  std::mutex mutex_;  // guards queue_, stopping_, failure_; a leaf
  std::condition_variable changed_;
  std::deque<Outgoing> queue_;
  bool stopping_ = false;
  arrow::Status failure_;

  std::unique_ptr<Stream> stream_;       // the thread's own
  std::deque<Outgoing> unacknowledged_;  // the thread's own
  std::atomic<bool> ended_{false};
  std::jthread thread_;  // last: it uses all of the above
};

}  // namespace sabot::shuffle

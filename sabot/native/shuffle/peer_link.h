// The outbox of one peer for one shuffle, and the thread that empties it over Flight DoPut. Enqueue never waits; the
// thread waits for the peer, with a deadline on every stream. A broken stream is resumed: what was not acknowledged is
// sent again. A link that has failed stays failed; its DataClient makes another one for the next attempt.
#pragma once

#include <arrow/flight/client.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "sabot/native/shuffle/send_window.h"

namespace sabot::shuffle {

/// Hears what became of its messages, on the link's thread.
class DeliveryListener {
 public:
  virtual ~DeliveryListener() = default;
  virtual void Acknowledged(const std::string& peer, const Ack& ack) = 0;
  virtual void Undelivered(const std::string& peer, const arrow::Status& status) = 0;
};

class PeerLink {
 public:
  struct Options {
    std::string peer;                // host:port, for messages
    double stream_timeout_s = 30.0;  // the deadline of each DoPut; streams are changed at a third of it
    double resume_s = 2.0;           // how long after the last sign of life a broken stream is tried again
    double idle_s = 1.0;             // an idle stream is closed after this
    size_t window_chunks = 2;
  };

  /// Called on the link's thread, so that a slot that needs a link does not connect itself.
  using Connect = std::function<arrow::Result<std::shared_ptr<arrow::flight::FlightClient>>()>;

  PeerLink(Connect connect, Options options);
  /// Lets go of what is not sent and joins the thread, which takes up to the stream's deadline at a frozen peer.
  ~PeerLink();

  void Enqueue(Outgoing message);
  /// Asks the thread to end: what is queued is undelivered. Returns at once.
  void Stop();
  /// True once it has given up on its peer: what is queued is undelivered, now and later.
  bool failed() const { return failed_.load(std::memory_order_acquire); }  // pairs with the release in Fail
  /// True once the thread has ended after Stop, so that destruction does not wait.
  bool ended() const { return ended_.load(std::memory_order_acquire); }  // pairs with the release at the end of Loop

 private:
  using Clock = std::chrono::steady_clock;
  struct Stream {
    std::unique_ptr<arrow::flight::FlightStreamWriter> writer;
    std::unique_ptr<arrow::flight::FlightMetadataReader> reader;
    Clock::time_point opened_at;
  };

  void Loop();
  /// Waits until something may be sent. False where there is nothing: the link stops, or its stream is idle.
  bool WaitForWork();
  bool WaitToRetry(std::chrono::milliseconds pause);
  arrow::Status SendWhatMayBe();
  arrow::Status Write(const Outgoing& message);
  arrow::Status OpenStream(const std::shared_ptr<arrow::Schema>& schema);
  arrow::Status ReadAck();
  arrow::Status CloseStream();
  /// What the peer said when it ended the stream, or PeerLost, which may be worth another try.
  arrow::Status Explain(const arrow::Status& symptom);
  /// Whether the trouble is over, for now: what is not acknowledged will be sent again.
  bool Resume(const arrow::Status& trouble);
  void Fail(const arrow::Status& status);
  template <typename Action>
  auto WithWindow(Action action) {
    std::lock_guard lock(mutex_);
    return action(window_);
  }

  const Connect connect_;
  const Options options_;

  std::mutex mutex_;  // guards the three below; a leaf
  std::condition_variable changed_;
  SendWindow window_;
  bool stopping_ = false;
  arrow::Status failure_;

  std::unique_ptr<Stream> stream_;  // the thread's own, as the next three
  bool broken_ = false;             // the last trouble was the way there, not what the peer said
  Clock::time_point alive_at_;      // when the peer last answered, or was first needed
  int retries_ = 0;                 // since then
  std::atomic<bool> failed_{false};
  std::atomic<bool> ended_{false};
  std::jthread thread_;  // last: it uses all of the above
};

}  // namespace sabot::shuffle

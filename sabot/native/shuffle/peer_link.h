// The link to one peer for one shuffle: its outbox, and the streams that empty it over Flight DoPut. Enqueue never
// waits; the streams' threads wait for the peer, with a deadline on every DoPut. A link that has failed stays failed;
// its DataClient makes another for the next attempt.
#pragma once

#include <arrow/util/compression.h>

#include <memory>
#include <mutex>
#include <vector>

#include "sabot/native/shuffle/outbox.h"
#include "sabot/native/shuffle/outbox_stream.h"

namespace sabot::shuffle {

class PeerLink {
 public:
  struct Options {
    Outbox::Options outbox;
    std::string sender;                         // by which the peer knows our streams as one sender's
    std::shared_ptr<arrow::util::Codec> codec;  // for the rows' buffers; null: they are sent as they are
  };

  PeerLink(OutboxStream::Connect connect, Options options);
  /// Lets go of what is not sent and joins the threads, which takes up to a DoPut's deadline at a frozen peer.
  ~PeerLink();

  void Enqueue(Outgoing message);
  const std::shared_ptr<Outbox>& outbox() const { return outbox_; }
  /// Asks the threads to end: what is queued is undelivered. Returns at once.
  void Stop();
  /// True once it has given up on its peer: what is queued is undelivered, now and later.
  bool failed() const { return outbox_->failed(); }
  /// True once the threads have ended after Stop, so that destruction does not wait.
  bool ended();

 private:
  /// Starts the next stream where those that run are all full.
  void Grow();
  /// No stream sends any more: what is queued is undelivered.
  void FailLeft();

  const OutboxStream::Connect connect_;
  const Options options_;
  const std::shared_ptr<Outbox> outbox_;                // shared with who writes its chunks to disk
  std::mutex mutex_;                                    // guards the next two; a leaf
  bool stopping_ = false;                               // no stream is started any more
  std::vector<std::unique_ptr<OutboxStream>> streams_;  // last: their threads use all of the above
};

}  // namespace sabot::shuffle

// The outbox of one peer for one shuffle, as the threads of its streams share it: the SendWindow under a lock, what the
// streams wait for, and when to give up. It does no I/O.
#pragma once

#include <arrow/memory_pool.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sabot/native/memory/ledger.h"
#include "sabot/native/shuffle/send_window.h"

namespace sabot::shuffle {

/// Hears what became of its messages, on a thread of the link.
class DeliveryListener {
 public:
  virtual ~DeliveryListener() = default;
  virtual void Acknowledged(const std::string& peer, const Ack& ack) = 0;
  virtual void Undelivered(const std::string& peer, const arrow::Status& status) = 0;
};

/// What a stream is to do next.
enum class Turn { kOpen, kWrite, kAsk, kClose, kExplain, kStarved, kEnd };

class Outbox {
 public:
  using Clock = std::chrono::steady_clock;

  struct Options {
    std::string peer;                // host:port, for messages
    double stream_timeout_s = 30.0;  // the deadline of each DoPut; streams are changed at a third of it
    double resume_s = 2.0;           // how long after the peer's last sign of life a broken stream is tried again
    double idle_s = 1.0;             // an idle stream is closed after this
    size_t streams = 1;
    size_t window_chunks = 2;
    std::shared_ptr<memory::Ledger> ledger;  // counts what waits here; shared with all that count; may be null
    arrow::MemoryPool* pool = arrow::default_memory_pool();  // for what comes back from disk
  };

  explicit Outbox(Options options);

  /// False where the link has failed or is being stopped: the listener has been told.
  bool Add(Outgoing message);
  /// The bytes of chunks that no stream has taken and nobody has claimed for disk.
  int64_t BytesForDisk();
  /// About `bytes` of them, those first that will be sent last; they are the caller's to write.
  std::vector<SendWindow::Message> ClaimForDisk(int64_t bytes);
  void Stop();

  struct Step {
    Turn turn = Turn::kEnd;
    SendWindow::Message message;  // kOpen: the first to be written; kWrite: what is to be written
    uint64_t credit = 0;          // kAsk: what must be granted in all
  };

  /// Waits until `stream` has something to do.
  Step WaitTurn(size_t stream);
  /// Whether `stream`, which is not in use yet, would have something to write.
  bool Needs(size_t stream);

  /// `stream` is about to be opened: the peer is needed.
  void Opening(size_t stream);
  void Opened(size_t stream);
  void Closed(size_t stream);
  /// An acknowledgement has come; an error where it makes no sense.
  arrow::Status Answered(size_t stream, std::string_view bytes);
  /// Nothing more will come from `stream`. Of no account where it is closed already.
  void Broke(size_t stream, const arrow::Status& symptom);
  arrow::Status SymptomOf(size_t stream);
  /// `stream` is closed after trouble on the way. True once it is time to try again, what is not acknowledged first;
  /// false where the peer has given no sign of life for too long.
  bool WaitToRetry(size_t stream);
  /// Waits a little; false at once where the link is being stopped or has failed.
  bool Pause(std::chrono::milliseconds pause);
  /// Ends the link: everything that is not acknowledged is undelivered.
  void Fail(const arrow::Status& status);

  /// True once Fail was called.
  bool failed() const { return failed_.load(std::memory_order_acquire); }  // pairs with the release in Fail

  const Options& options() const { return options_; }

 private:
  struct Stream {
    bool open = false;
    bool asking = false;  // an answer about credit is awaited
    Clock::time_point opened_at;
    std::optional<Clock::time_point> starved_at;  // since when there is no credit for what is next
    int retries = 0;                              // since it was last answered
    std::optional<arrow::Status> symptom;         // of its end
  };

  /// What an open stream that is not ending has to do at once, if anything.
  std::optional<Step> NextLocked(size_t stream, Clock::time_point now);
  arrow::Status AnsweredLocked(size_t stream, const Ack& ack, SendWindow::Message* answered);
  /// The memory of the rows is not the outbox's any more.
  void Drop(const Outgoing& message) const;

  const Options options_;
  std::atomic<bool> failed_{false};
  std::mutex mutex_;  // guards all below; a leaf
  std::condition_variable changed_;
  SendWindow window_;
  std::vector<Stream> streams_;
  Clock::time_point alive_at_;    // when the peer last answered, or was first needed
  Clock::time_point written_at_;  // when something was last written
  bool stopping_ = false;
  arrow::Status failure_;
};

}  // namespace sabot::shuffle

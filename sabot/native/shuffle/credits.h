// The credits of an agent's streams, out of its ledger: the CreditDesk under a lock, and the waits of those who want
// more than there is. Every wait has a deadline and ends with Close.
#pragma once

#include <arrow/result.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "sabot/native/memory/ledger.h"
#include "sabot/native/shuffle/credit_desk.h"

namespace sabot::shuffle {

class Credits {
 public:
  using Clock = std::chrono::steady_clock;

  /// One stream's credit, until it is let go of. The Credits outlive it.
  class Stream {
   public:
    Stream(Credits* credits, CreditDesk::StreamId id) : credits_(credits), id_(id) {}
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    ~Stream() { credits_->CloseStream(id_); }

    /// Granted since the stream was opened.
    int64_t granted() const;
    /// Waits until `total` is granted, to the deadline at most; the stream keeps its place among those who wait. kLimit
    /// where that can never be.
    arrow::Status WaitGranted(int64_t total, Clock::time_point deadline);
    /// kLimit where a chunk of so many bytes is more than the stream has credit for.
    arrow::Status Arrived(int64_t bytes);
    /// A chunk that had arrived is stored or dropped.
    void Settled(int64_t bytes);

   private:
    arrow::Status AwaitGranted(int64_t total, Clock::time_point deadline);

    Credits* const credits_;
    const CreditDesk::StreamId id_;
  };

  Credits(std::shared_ptr<memory::Ledger> ledger, CreditDesk::Options options);
  ~Credits();

  /// A stream of the sender that calls itself so, with what can be granted to it at once.
  std::unique_ptr<Stream> Open(const std::string& peer);
  /// Waits until the ledger may have room, or `deadline`; for a chunk that has come and finds none. False after Close.
  bool WaitFreed(Clock::time_point deadline);
  /// Ends every wait, now and later.
  void Close();

  const memory::Ledger& ledger() const { return *ledger_; }

 private:
  void CloseStream(CreditDesk::StreamId id);
  /// Grants those who wait what can be reserved.
  void ServeWaiting();
  /// Reserves what keeps the stream sending, if that is possible.
  void GrantAhead(CreditDesk::StreamId id);
  void GiveBack(int64_t bytes);

  const std::shared_ptr<memory::Ledger> ledger_;  // shared with all that count
  mutable std::mutex mutex_;                      // guards the next five; a leaf
  std::condition_variable changed_;
  CreditDesk desk_;
  CreditDesk::StreamId next_id_ = 1;
  uint64_t freed_ = 0;  // how often the ledger said so
  bool closed_ = false;
  int64_t listener_ = 0;
};

}  // namespace sabot::shuffle

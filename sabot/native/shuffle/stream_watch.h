// The streams that a server has open: counts them, and cuts connections that have said nothing for too long. Flight
// cannot cancel a stream; what can be ended is its socket. Arrow-free but for Status.
#pragma once

#include <arrow/result.h>
#include <dirent.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace sabot::shuffle {

class StreamWatch {
 public:
  struct Options {
    size_t streams_max = 1024;
    double idle_s = 120.0;  // a connection from which nothing has come for longer is cut
  };

  /// A stream that counts until it is let go of.
  class Stream {
   public:
    explicit Stream(StreamWatch* watch) : watch_(watch) {}
    Stream(Stream&& other) noexcept : watch_(std::exchange(other.watch_, nullptr)) {}
    ~Stream() {
      if (watch_ != nullptr) watch_->open_.fetch_sub(1, std::memory_order_relaxed);
    }
    Stream& operator=(Stream&&) = delete;

   private:
    StreamWatch* watch_;
  };

  explicit StreamWatch(Options options) : options_(options) {}
  ~StreamWatch() { Stop(); }

  /// Watches the connections that come to `port` of this process; kLimit where there is no thread for it.
  arrow::Status Start(int port);
  void Stop();

  /// kLimit where there are streams_max already. The watch outlives its streams.
  arrow::Result<Stream> Enter();
  size_t open() const noexcept { return open_.load(std::memory_order_relaxed); }  // relaxed, as every access: a count

 private:
  void Loop(int port);
  void CutIdleConnections(int port, std::chrono::milliseconds idle);

  const Options options_;
  std::atomic<size_t> open_{0};
  std::mutex mutex_;  // guards stopping_; a leaf
  std::condition_variable changed_;
  bool stopping_ = false;
  // Opened at the start, since descriptors may have run out when connections have to be cut. The thread's own.
  std::unique_ptr<DIR, int (*)(DIR*)> descriptors_{nullptr, &closedir};
  std::thread thread_;
};

}  // namespace sabot::shuffle

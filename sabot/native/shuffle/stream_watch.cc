#include "sabot/native/shuffle/stream_watch.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

#include "sabot/native/status.h"

namespace sabot::shuffle {
namespace {

/// The port that the socket is bound to; -1 where it is none of TCP/IP.
int LocalPort(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return -1;
  if (address.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  if (address.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
  return -1;
}

bool HasBeenIdle(int fd, std::chrono::milliseconds idle) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return false;
  // Acknowledgements do not count: the kernel of a frozen process goes on sending them.
  return info.tcpi_state == TCP_ESTABLISHED && info.tcpi_last_data_recv > idle.count() &&
         info.tcpi_last_data_sent > idle.count();
}

}  // namespace

void StreamWatch::CutIdleConnections(int port, std::chrono::milliseconds idle) {
  rewinddir(descriptors_.get());
  while (const dirent* entry = readdir(descriptors_.get())) {
    const int fd = std::atoi(entry->d_name);
    if (entry->d_name[0] == '.' || LocalPort(fd) != port) continue;
    // A duplicate, so that what is looked at and what is shut are one connection, though the number may be given away
    // between the two. Without a descriptor left for it that risk is the smaller one.
    const int held = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    const int looked_at = held < 0 ? fd : held;
    if (LocalPort(looked_at) == port && HasBeenIdle(looked_at, idle)) (void)shutdown(looked_at, SHUT_RDWR);
    if (held >= 0) close(held);
  }
}

arrow::Status StreamWatch::Start(int port) {
  descriptors_.reset(opendir("/proc/self/fd"));
  if (descriptors_ == nullptr) return arrow::Status::OK();
  try {
    thread_ = std::thread([this, port] { Loop(port); });
  } catch (const std::system_error&) {
    return MakeNoThread("The thread that watches the Flight port's connections cannot be started");
  }
  (void)pthread_setname_np(thread_.native_handle(), "shuffle-watch");
  return arrow::Status::OK();
}

void StreamWatch::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void StreamWatch::Loop(int port) {
  const auto idle = std::chrono::milliseconds(static_cast<int64_t>(options_.idle_s * 1000));
  const auto pause = std::max(idle / 4, std::chrono::milliseconds(10));
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, pause, [&] { return stopping_; })) {
    lock.unlock();
    CutIdleConnections(port, idle);
    lock.lock();
  }
}

arrow::Result<StreamWatch::Stream> StreamWatch::Enter() {
  if (open_.fetch_add(1, std::memory_order_relaxed) < options_.streams_max) return Stream(this);
  open_.fetch_sub(1, std::memory_order_relaxed);
  return MakeStatus(Code::kLimit, "The agent has " + std::to_string(options_.streams_max) +
                                      " streams open and takes no more; close some, or raise shuffle.streams_max "
                                      "(limit=" +
                                      std::to_string(options_.streams_max) + ")");
}

}  // namespace sabot::shuffle

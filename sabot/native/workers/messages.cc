#include "sabot/native/workers/messages.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace sabot::workers {
namespace {

constexpr size_t kDescriptorsMax = 3;

}  // namespace

bool SendMessage(int socket, const void* message, size_t size, const int* fds, size_t fd_count) noexcept {
  alignas(cmsghdr) char control[CMSG_SPACE(kDescriptorsMax * sizeof(int))] = {};
  iovec data{const_cast<void*>(message), size};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  if (fd_count > 0) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
    std::memcpy(CMSG_DATA(rights), fds, fd_count * sizeof(int));
  }
  ssize_t sent;
  do {
    sent = sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent == static_cast<ssize_t>(size);
}

Received ReceiveMessage(int socket, void* message, size_t size, Descriptor* fd) noexcept {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec data{message, size};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = CMSG_LEN(sizeof(int));  // with its padding there would be room for a second descriptor
  ssize_t got;
  do {
    got = recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? Received::kNothingYet : Received::kClosed;
  const cmsghdr* rights = CMSG_FIRSTHDR(&header);
  if (rights != nullptr && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS &&
      rights->cmsg_len == CMSG_LEN(sizeof(int))) {
    int received;
    std::memcpy(&received, CMSG_DATA(rights), sizeof(int));
    *fd = Descriptor(received);
  }
  if (got == 0) return Received::kClosed;
  if (static_cast<size_t>(got) != size || (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    return Received::kMalformed;
  }
  return Received::kMessage;
}

}  // namespace sabot::workers
